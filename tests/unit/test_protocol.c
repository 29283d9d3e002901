/* Heads: what is written reads back; what is hostile is refused, without reading past the bytes. */
#include "unetserve/protocol.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

/* Read from an exact allocation, so that a sanitizer sees a read past the end. */
static int read_request(const void *bytes, size_t size, struct protocol_request *out)
{
    char error[160] = "";
    unsigned char *exact = malloc(size ? size : 1);
    assert_non_null(exact);
    memcpy(exact, bytes, size);
    int rc = protocol_request_read(exact, size, out, error, sizeof error);
    free(exact);
    assert_true(rc == 0 || rc == -EBADMSG);
    assert_true((rc == 0) == (error[0] == 0));
    return rc;
}

static int read_reply(const void *bytes, size_t size, struct protocol_reply *out)
{
    char error[160] = "";
    unsigned char *exact = malloc(size ? size : 1);
    assert_non_null(exact);
    memcpy(exact, bytes, size);
    int rc = protocol_reply_read(exact, size, out, error, sizeof error);
    free(exact);
    assert_true((rc == 0) == (error[0] == 0));
    return rc;
}

static struct protocol_request full_request(void)
{
    struct protocol_request request = {
        .op = PROTOCOL_PREDICT,
        .shape = {UNETSERVE_U16, 4, {3, 12, 256, (uint64_t)1 << 40}},
        .accept = PROTOCOL_NPY,
        .timeout_ms = 70000,
    };
    memset(request.id, 'i', 63);
    strcpy(request.model, "land-cover");
    return request;
}

static void request_reads_back(void **state)
{
    (void)state;
    unsigned char bytes[PROTOCOL_HEAD_MAX];
    struct protocol_request request = full_request();
    struct protocol_request read;
    long length = protocol_request_write(&request, bytes, sizeof bytes);
    assert_true(length > 0);
    assert_int_equal(read_request(bytes, (size_t)length, &read), 0);
    assert_int_equal(read.op, request.op);
    assert_string_equal(read.id, request.id);
    assert_string_equal(read.model, request.model);
    assert_memory_equal(&read.shape, &request.shape, sizeof read.shape);
    assert_int_equal(read.accept, request.accept);
    assert_int_equal(read.timeout_ms, request.timeout_ms);
}

static void least_request_reads_back(void **state)
{
    (void)state;
    unsigned char bytes[PROTOCOL_HEAD_MAX];
    struct protocol_request request = {.op = PROTOCOL_STATUS};
    struct protocol_request read;
    long length = protocol_request_write(&request, bytes, sizeof bytes);
    assert_int_equal(read_request(bytes, (size_t)length, &read), 0);
    assert_int_equal(read.op, PROTOCOL_STATUS);
    assert_int_equal(read.shape.rank, 0);
    assert_string_equal(read.id, "");
    assert_int_equal(read.accept, PROTOCOL_TENSOR);
}

static void reply_reads_back(void **state)
{
    (void)state;
    unsigned char bytes[PROTOCOL_HEAD_MAX];
    struct protocol_reply reply = {
        .id = "a",
        .status = 503,
        .shape = {UNETSERVE_U8, 2, {16, 32}},
        .type = "application/json",
        .receive_ms = 0.25,
        .queue_ms = 1.5,
        .forward_ms = 44,
        .encode_ms = 1e-9,
    };
    struct protocol_reply read;
    long length = protocol_reply_write(&reply, bytes, sizeof bytes);
    assert_int_equal(read_reply(bytes, (size_t)length, &read), 0);
    assert_string_equal(read.id, "a");
    assert_string_equal(read.type, "application/json");
    assert_int_equal(read.status, 503);
    assert_memory_equal(&read.shape, &reply.shape, sizeof read.shape);
    assert_true(read.receive_ms == 0.25 && read.queue_ms == 1.5);
    assert_true(read.forward_ms == 44 && read.encode_ms == 1e-9);
}

static void small_buffer_is_no_space(void **state)
{
    (void)state;
    unsigned char bytes[PROTOCOL_HEAD_MAX];
    struct protocol_request request = full_request();
    long length = protocol_request_write(&request, bytes, sizeof bytes);
    for (long size = 0; size < length; size++)
        assert_int_equal(protocol_request_write(&request, bytes, (size_t)size), -ENOSPC);
    assert_int_equal(protocol_request_write(&request, bytes, (size_t)length), length);
}

/* Every head cut anywhere is refused. */
static void cut_heads_are_refused(void **state)
{
    (void)state;
    unsigned char bytes[PROTOCOL_HEAD_MAX];
    struct protocol_request request = full_request();
    struct protocol_request read;
    long length = protocol_request_write(&request, bytes, sizeof bytes);
    for (long size = 0; size < length; size++)
        assert_int_equal(read_request(bytes, (size_t)size, &read), -EBADMSG);
    bytes[length] = 0xc0;
    assert_int_equal(read_request(bytes, (size_t)length + 1, &read), -EBADMSG);
}

struct hostile {
    const char *what;
    const char *bytes;
    size_t size;
};

#define HOSTILE(what, text)                                                                        \
    {                                                                                              \
        what, text, sizeof(text) - 1                                                               \
    }

static void hostile_heads_are_refused(void **state)
{
    (void)state;
    static const struct hostile cases[] = {
        HOSTILE("array of four billion", "\xdd\xff\xff\xff\xff"),
        HOSTILE("map of four billion", "\xdf\xff\xff\xff\xff"),
        HOSTILE("map of four billion inside", "\x81\xa1x\xdf\xff\xff\xff\xff"),
        HOSTILE("text of four billion", "\x81\xdb\xff\xff\xff\xff"),
        HOSTILE("bin of four billion", "\x81\xa1x\xc6\xff\xff\xff\xff"),
        HOSTILE("ext of four billion", "\x81\xa1x\xc9\xff\xff\xff\xff\x01"),
        HOSTILE("no type", "\xc1"),
        HOSTILE("no map", "\x01"),
        HOSTILE("key is a number", "\x81\x01\x01"),
        HOSTILE("wrong version", "\x82\xa1v\x02\xa2op\xa6status"),
        HOSTILE("version is negative", "\x82\xa1v\xff\xa2op\xa6status"),
        HOSTILE("version is text", "\x82\xa1v\xa1"
                                   "1\xa2op\xa6status"),
        HOSTILE("no version", "\x81\xa2op\xa6status"),
        HOSTILE("no op", "\x81\xa1v\x01"),
        HOSTILE("unknown op", "\x82\xa1v\x01\xa2op\xa6STATUS"),
        HOSTILE("id with a line break", "\x83\xa1v\x01\xa2op\xa6status\xa2id\xa2x\n"),
        HOSTILE("id with a NUL", "\x83\xa1v\x01\xa2op\xa6status\xa2id\xa2x\0"),
        HOSTILE("shape without dtype", "\x83\xa1v\x01\xa2op\xa7predict\xa5shape\x91\x01"),
        HOSTILE("dtype without shape", "\x83\xa1v\x01\xa2op\xa7predict\xa5"
                                       "dtype\xa5uint8"),
        HOSTILE("empty shape", "\x84\xa1v\x01\xa2op\xa7predict\xa5shape\x90\xa5"
                               "dtype\xa5uint8"),
        HOSTILE("seven dimensions", "\x84\xa1v\x01\xa2op\xa7predict\xa5shape\x97\1\1\1\1\1\1\1\xa5"
                                    "dtype\xa5uint8"),
        HOSTILE("negative dimension", "\x84\xa1v\x01\xa2op\xa7predict\xa5shape\x91\xff\xa5"
                                      "dtype\xa5uint8"),
        HOSTILE("a real dimension",
                "\x84\xa1v\x01\xa2op\xa7predict\xa5shape\x91\xca\x3f\x80\0\0\xa5"
                "dtype\xa5uint8"),
        HOSTILE("unknown dtype", "\x84\xa1v\x01\xa2op\xa7predict\xa5shape\x91\x01\xa5"
                                 "dtype\xa5int64"),
        HOSTILE("dtype none", "\x84\xa1v\x01\xa2op\xa7predict\xa5shape\x91\x01\xa5"
                              "dtype\xa4none"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct protocol_request request;
        if (read_request(cases[i].bytes, cases[i].size, &request) != -EBADMSG)
            fail_msg("taken: %s", cases[i].what);
    }
}

/* Arrays in arrays in arrays: as deep as a head is long, and no deeper than the stack likes. */
static void deep_head_is_passed_over(void **state)
{
    (void)state;
    unsigned char bytes[PROTOCOL_HEAD_MAX];
    const char start[] = "\x83\xa1v\x01\xa2op\xa6status\xa1x";
    size_t used = sizeof start - 1;
    memcpy(bytes, start, used);
    memset(bytes + used, 0x91, sizeof bytes - used);
    bytes[sizeof bytes - 1] = 0xc0;
    struct protocol_request request;
    assert_int_equal(read_request(bytes, sizeof bytes, &request), 0);
    bytes[sizeof bytes - 1] = 0x91;
    assert_int_equal(read_request(bytes, sizeof bytes, &request), -EBADMSG);
}

static void long_head_is_refused(void **state)
{
    (void)state;
    static unsigned char bytes[PROTOCOL_HEAD_MAX + 1];
    struct protocol_request request;
    memcpy(bytes, "\x83\xa1v\x01\xa2op\xa6status\xa1x\xda\x0f\xed", 17);
    assert_int_equal(read_request(bytes, sizeof bytes, &request), -EBADMSG);
}

/* Every msgpack type as the value of a key that nobody knows. */
static void unknown_keys_are_ignored(void **state)
{
    (void)state;
    static const struct hostile values[] = {
        HOSTILE("nil", "\xc0"),
        HOSTILE("true", "\xc3"),
        HOSTILE("negative", "\xff"),
        HOSTILE("int64", "\xd3\x80\0\0\0\0\0\0\0"),
        HOSTILE("float", "\xca\0\0\0\0"),
        HOSTILE("double", "\xcb\0\0\0\0\0\0\0\0"),
        HOSTILE("bin", "\xc4\x02xy"),
        HOSTILE("ext8", "\xc7\x01\x05x"),
        HOSTILE("fixext16", "\xd8\x01"
                            "0123456789abcdef"),
        HOSTILE("fixext1", "\xd4\x01x"),
        HOSTILE("array16", "\xdc\0\x02\x01\x02"),
        HOSTILE("map16", "\xde\0\x01\xa1y\x81\xa1z\x90"),
        HOSTILE("str16", "\xda\0\x01x"),
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        unsigned char bytes[128] = "\x84\xa1x";
        size_t used = 3;
        memcpy(bytes + used, values[i].bytes, values[i].size);
        used += values[i].size;
        const char rest[] = "\xa2op\xa6status\xa2id\xa1r\xa1v\x01";
        memcpy(bytes + used, rest, sizeof rest - 1);
        struct protocol_request request;
        if (read_request(bytes, used + sizeof rest - 1, &request) != 0)
            fail_msg("refused: %s", values[i].what);
        assert_string_equal(request.id, "r");
    }
}

/* Numbers may come in any width, also as signed ones that are not negative. */
static void wide_numbers_are_numbers(void **state)
{
    (void)state;
    const char head[] =
        "\x85\xa1v\xd3\0\0\0\0\0\0\0\x01\xa2op\xa7predict\xa5"
        "dtype\xa5int16\xa5shape\x93\xcc\x0c\xcd\x01\0\xd1\x01\0\xa7timeout\xce\0\0\x03\xe8";
    struct protocol_request request;
    assert_int_equal(read_request(head, sizeof head - 1, &request), 0);
    assert_int_equal(request.shape.dtype, UNETSERVE_I16);
    assert_int_equal(request.shape.rank, 3);
    assert_int_equal(request.shape.dims[0], 12);
    assert_int_equal(request.shape.dims[1], 256);
    assert_int_equal(request.shape.dims[2], 256);
    assert_int_equal(request.timeout_ms, 1000);
}

static void refused_request_keeps_its_id(void **state)
{
    (void)state;
    const char head[] = "\x83\xa1v\x09\xa2op\xa6status\xa2id\xa3"
                        "abc";
    struct protocol_request request;
    assert_int_equal(read_request(head, sizeof head - 1, &request), -EBADMSG);
    assert_string_equal(request.id, "abc");
}

static void wrong_replies_are_refused(void **state)
{
    (void)state;
    static const struct hostile cases[] = {
        HOSTILE("no status", "\x81\xa1v\x01"),
        HOSTILE("status 7", "\x82\xa1v\x01\xa6status\x07"),
        HOSTILE("status 600", "\x82\xa1v\x01\xa6status\xcd\x02\x58"),
        HOSTILE("times are text", "\x83\xa1v\x01\xa6status\xcc\xc8\xa5times\xa1x"),
        HOSTILE("time is NaN",
                "\x83\xa1v\x01\xa6status\xcc\xc8\xa5times\x81\xa5queue\xcb\x7f\xf8\0\0\0\0\0\0"),
        HOSTILE("times lie", "\x83\xa1v\x01\xa6status\xcc\xc8\xa5times\xdf\xff\xff\xff\xff"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct protocol_reply reply;
        if (read_reply(cases[i].bytes, cases[i].size, &reply) != -EBADMSG)
            fail_msg("taken: %s", cases[i].what);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_reads_back),
        cmocka_unit_test(least_request_reads_back),
        cmocka_unit_test(reply_reads_back),
        cmocka_unit_test(small_buffer_is_no_space),
        cmocka_unit_test(cut_heads_are_refused),
        cmocka_unit_test(hostile_heads_are_refused),
        cmocka_unit_test(deep_head_is_passed_over),
        cmocka_unit_test(long_head_is_refused),
        cmocka_unit_test(unknown_keys_are_ignored),
        cmocka_unit_test(wide_numbers_are_numbers),
        cmocka_unit_test(refused_request_keeps_its_id),
        cmocka_unit_test(wrong_replies_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
