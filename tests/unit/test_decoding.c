/* Compressed request bodies: which codings, whole streams in any pieces, broken ones, and bounds.
 */
#include "gateway/decoding.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include <cmocka.h>

#define MOST (UINT64_C(1) << 30)

struct bytes {
    char *data;
    size_t size;
};

static struct bytes made(size_t capacity)
{
    struct bytes bytes = {malloc(capacity), capacity};
    assert_non_null(bytes.data);
    return bytes;
}

/* A text that is neither all the same nor noise. */
static struct bytes text_of(size_t size)
{
    struct bytes text = made(size);
    for (size_t i = 0; i < size; i++)
        text.data[i] = (char)('a' + (i * i / 7 + i % 13) % 26);
    return text;
}

static struct bytes packed(enum body_coding coding, struct bytes plain)
{
    struct bytes out = made(ZSTD_compressBound(plain.size) + 1024);
    if (coding == BODY_ZSTD) {
        out.size = ZSTD_compress(out.data, out.size, plain.data, plain.size, 3);
        assert_false(ZSTD_isError(out.size));
        return out;
    }
    z_stream zlib = {.next_in = (Bytef *)plain.data, .avail_in = (uInt)plain.size};
    zlib.next_out = (Bytef *)out.data;
    zlib.avail_out = (uInt)out.size;
    assert_int_equal(
        deflateInit2(&zlib, 6, Z_DEFLATED, coding == BODY_GZIP ? 31 : 15, 8, Z_DEFAULT_STRATEGY),
        Z_OK);
    assert_int_equal(deflate(&zlib, Z_FINISH), Z_STREAM_END);
    out.size = zlib.total_out;
    deflateEnd(&zlib);
    return out;
}

/* What came out, and in how many calls. */
struct result {
    struct bytes out;
    struct problem problem;
    size_t calls, most_a_call, since;
};

static int collect(void *opaque, const void *bytes, size_t size, struct problem *problem)
{
    struct result *result = opaque;
    (void)problem;
    assert_true(size > 0);
    result->out.data = realloc(result->out.data, result->out.size + size);
    assert_non_null(result->out.data);
    memcpy(result->out.data + result->out.size, bytes, size);
    result->out.size += size;
    result->since += size;
    return 0;
}

static int feed_all(struct decoder *decoder, struct bytes body, size_t step, struct result *result)
{
    for (size_t at = 0; at < body.size;) {
        size_t size = body.size - at < step ? body.size - at : step, used = 0;
        result->since = 0;
        if (decoder_feed(decoder, body.data + at, size, &used, collect, result, &result->problem))
            return -1;
        assert_true(used <= size && (used > 0 || result->since > 0));
        result->calls++;
        if (result->since > result->most_a_call)
            result->most_a_call = result->since;
        at += used;
    }
    return decoder_finish(decoder, &result->problem);
}

/* 0 or the refusal's status. */
static int unpack(enum body_coding coding, struct bytes body, size_t step, uint64_t most,
                  struct result *result)
{
    struct decoder *decoder = decoder_open(coding, most);
    assert_non_null(decoder);
    *result = (struct result){.calls = 0};
    int failed = feed_all(decoder, body, step, result);
    decoder_close(decoder);
    return failed ? result->problem.status : 0;
}

static void expect(enum body_coding coding, struct bytes body, int status)
{
    struct result result;
    static const size_t steps[] = {1, 7, 1000, SIZE_MAX};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        assert_int_equal(unpack(coding, body, steps[i], MOST, &result), status);
        free(result.out.data);
    }
}

static void test_codings(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int coding; /* -1: 415 */
    } cases[] = {
        {NULL, BODY_PLAIN},
        {"", BODY_PLAIN},
        {"identity", BODY_PLAIN},
        {" gzip\t", BODY_GZIP},
        {"X-GZip", BODY_GZIP},
        {"deflate", BODY_DEFLATE},
        {"zstd", BODY_ZSTD},
        {"br", -1},
        {"gzip, gzip", -1},
        {"identity, gzip", -1},
        {"gzip,", -1},
        {"compress", -1},
        {"gzip;q=1", -1},
        {"gzipp", -1},
        {"?zip", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        enum body_coding coding = BODY_ZSTD;
        struct problem problem = {0};
        int refused = decoding_choose(cases[i].text, &coding, &problem);
        assert_int_equal(refused ? -1 : (int)coding, cases[i].coding);
        assert_int_equal(problem.status, refused ? 415 : 0);
    }
}

static void test_whole_streams(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 1000, 65536, 3000001};
    static const size_t steps[] = {1, 17, 4096, SIZE_MAX};
    for (enum body_coding coding = BODY_GZIP; coding <= BODY_ZSTD; coding++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            struct bytes plain = text_of(sizes[i] ? sizes[i] : 1);
            plain.size = sizes[i];
            struct bytes body = packed(coding, plain);
            for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++) {
                struct result result;
                assert_int_equal(unpack(coding, body, steps[k], MOST, &result), 0);
                assert_int_equal(result.out.size, plain.size);
                if (plain.size)
                    assert_memory_equal(result.out.data, plain.data, plain.size);
                free(result.out.data);
            }
            free(plain.data);
            free(body.data);
        }
    expect(BODY_GZIP, (struct bytes){"", 0}, 0); /* no body at all: its reader says what it lacks */
}

/* cat a.gz b.gz, and frames of zstd: one body. zlib's streams have no such thing. */
static void test_several_streams(void **state)
{
    (void)state;
    for (enum body_coding coding = BODY_GZIP; coding <= BODY_ZSTD; coding++) {
        struct bytes plain = text_of(100000), once = packed(coding, plain);
        struct bytes twice = made(2 * once.size);
        struct result result;
        memcpy(twice.data, once.data, once.size);
        memcpy(twice.data + once.size, once.data, once.size);
        int status = unpack(coding, twice, 1000, MOST, &result);
        assert_int_equal(status, coding == BODY_DEFLATE ? 400 : 0);
        if (!status)
            assert_int_equal(result.out.size, 200000);
        free(result.out.data);
        free(plain.data);
        free(once.data);
        free(twice.data);
    }
}

static void test_broken_streams(void **state)
{
    (void)state;
    for (enum body_coding coding = BODY_GZIP; coding <= BODY_ZSTD; coding++) {
        struct bytes plain = text_of(200000), body = packed(coding, plain);
        expect(coding, plain, 400);
        expect(coding, (struct bytes){body.data, body.size - 1}, 400);
        expect(coding, (struct bytes){body.data, body.size / 2}, 400);
        expect(coding, (struct bytes){body.data, 1}, 400);
        struct bytes longer = made(body.size + 4);
        memcpy(longer.data, body.data, body.size);
        memcpy(longer.data + body.size, "junk", 4);
        expect(coding, longer, 400);
        body.data[body.size / 2] ^= 0x55;
        if (coding != BODY_ZSTD) /* this frame has no checksum */
            expect(coding, body, 400);
        free(plain.data);
        free(body.data);
        free(longer.data);
    }
}

/* Zeros: a few bytes that become very many. Each call makes a bounded amount, and all of them no
 * more than is allowed. */
static void test_bombs(void **state)
{
    (void)state;
    struct bytes plain = {calloc(1, 64 << 20), 64 << 20};
    assert_non_null(plain.data);
    for (enum body_coding coding = BODY_GZIP; coding <= BODY_ZSTD; coding++) {
        struct bytes body = packed(coding, plain);
        struct result result;
        assert_int_equal(unpack(coding, body, SIZE_MAX, MOST, &result), 0);
        assert_int_equal(result.out.size, plain.size);
        assert_true(result.most_a_call <= 2 * DECODING_A_CALL);
        assert_true(result.calls >= 32);
        free(result.out.data);
        assert_int_equal(unpack(coding, body, SIZE_MAX, 5000000, &result), 413);
        assert_true(result.out.size <= 5000000);
        free(result.out.data);
        free(body.data);
    }
    free(plain.data);
}

static struct bytes packed_with_window(struct bytes plain, int window_log)
{
    struct bytes out = made(ZSTD_compressBound(plain.size) + 1024);
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_inBuffer in = {plain.data, plain.size, 0};
    ZSTD_outBuffer to = {out.data, out.size, 0};
    assert_non_null(context);
    ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log);
    /* In two calls: a frame of known size has a window of no more than that. */
    ZSTD_compressStream2(context, &to, &in, ZSTD_e_flush);
    assert_int_equal(ZSTD_compressStream2(context, &to, &in, ZSTD_e_end), 0);
    out.size = to.pos;
    ZSTD_freeCCtx(context);
    return out;
}

static void test_zstd_memory(void **state)
{
    (void)state;
    enum { MANY = 32 };
    struct decoder *decoders[MANY] = {NULL};
    struct bytes plain = text_of(10000);
    struct bytes large = packed_with_window(plain, DECODING_ZSTD_WINDOW_LOG);
    struct bytes too_large = packed_with_window(plain, DECODING_ZSTD_WINDOW_LOG + 1);
    struct result result = {.calls = 0};
    size_t open = 0, used;
    expect(BODY_ZSTD, too_large, 400);
    for (; open < MANY; open++) {
        decoders[open] = decoder_open(BODY_ZSTD, MOST);
        assert_non_null(decoders[open]);
        if (decoder_feed(decoders[open], large.data, 32, &used, collect, &result, &result.problem))
            break;
    }
    assert_int_equal(result.problem.status, 503);
    assert_in_range(open, 4, MANY - 1);
    for (size_t i = 0; i <= open; i++)
        decoder_close(decoders[i]);
    free(result.out.data);
    expect(BODY_ZSTD, large, 0); /* it was given back */
    free(plain.data);
    free(large.data);
    free(too_large.data);
}

static int refuse(void *opaque, const void *bytes, size_t size, struct problem *problem)
{
    (void)opaque, (void)bytes, (void)size;
    problem_set(problem, 422, "no");
    return -1;
}

static void test_refusal_of_what_comes_out(void **state)
{
    (void)state;
    struct bytes plain = text_of(1000), body = packed(BODY_GZIP, plain);
    struct decoder *decoder = decoder_open(BODY_GZIP, MOST);
    struct problem problem = {0};
    size_t used;
    assert_non_null(decoder);
    assert_int_equal(decoder_feed(decoder, body.data, body.size, &used, refuse, NULL, &problem),
                     -1);
    assert_int_equal(problem.status, 422);
    decoder_close(decoder);
    free(plain.data);
    free(body.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codings),
        cmocka_unit_test(test_whole_streams),
        cmocka_unit_test(test_several_streams),
        cmocka_unit_test(test_broken_streams),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_zstd_memory),
        cmocka_unit_test(test_refusal_of_what_comes_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
