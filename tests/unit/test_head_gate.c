/* The head gate alone: the corpus of requests on which HTTP readers disagree, every bound from both
 * sides, and that the verdict does not depend on how the stream is cut into pieces. */
#include "gateway/head_gate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define POST_11 "POST / HTTP/1.1\r\nHost: x\r\n"
#define CHUNKED POST_11 "Transfer-Encoding: chunked\r\n\r\n"

struct stream {
    const char *name;
    const char *bytes;
    size_t size;
    int status;
    uint32_t requests; /* complete ones before the refusal, or in all */
};

#define STREAM(name, bytes, status, requests)                                                      \
    {                                                                                              \
        name, bytes, sizeof(bytes) - 1, status, requests                                           \
    }

static const struct stream streams[] = {
    STREAM("length", POST_11 "Content-Length: 5\r\n\r\nhello", 0, 1),
    STREAM("CR between headers",
           POST_11 "X-A:\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", 400, 0),
    STREAM("length and coding",
           POST_11 "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, 0),
    STREAM("coding and length",
           POST_11 "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, 0),
    STREAM("two lengths", POST_11 "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400, 0),
    STREAM("length twice", POST_11 "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400, 0),
    STREAM("space before colon", POST_11 "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, 0),
    STREAM("leading space", POST_11 " Content-Length: 5\r\n\r\nhello", 400, 0),
    STREAM("folded line", POST_11 "X: a\r\n b\r\nContent-Length: 5\r\n\r\nhello", 400, 0),
    STREAM("first header folded", "GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400, 0),
    STREAM("xchunked", POST_11 "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, 0),
    STREAM("chunked, identity", POST_11 "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
           400, 0),
    STREAM("coding twice",
           POST_11 "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400, 0),
    STREAM("plus", POST_11 "Content-Length: +5\r\n\r\nhello", 400, 0),
    STREAM("list", POST_11 "Content-Length: 5, 5\r\n\r\nhello", 400, 0),
    STREAM("minus", POST_11 "Content-Length: -5\r\n\r\nhello", 400, 0),
    STREAM("hexadecimal", POST_11 "Content-Length: 0x5\r\n\r\nhello", 400, 0),
    STREAM("no digits", POST_11 "Content-Length:  \r\n\r\n", 400, 0),
    STREAM("space in length", POST_11 "Content-Length: 1 0\r\n\r\n", 400, 0),
    STREAM("overflowing length", POST_11 "Content-Length: 99999999999999999999999\r\n\r\nhello",
           400, 0),
    STREAM("length beyond 63 bits", POST_11 "Content-Length: 9999999999999999999\r\n\r\n", 400, 0),
    STREAM("overflowing chunk", CHUNKED "FFFFFFFFFFFFFFFFF1\r\nhello\r\n0\r\n\r\n", 400, 0),
    STREAM("0x chunk", CHUNKED "0x5\r\nhello\r\n0\r\n\r\n", 400, 0),
    STREAM("LF after chunk size", CHUNKED "5\nhello\r\n0\r\n\r\n", 400, 0),
    STREAM("chunk extension", CHUNKED "5;a=b\r\nhello\r\n0\r\n\r\n", 0, 1),
    STREAM("space after chunk size", CHUNKED "5 \r\nhello\r\n0\r\n\r\n", 400, 0),
    STREAM("empty chunk size", CHUNKED "\r\nhello\r\n0\r\n\r\n", 400, 0),
    STREAM("chunk too long", CHUNKED "5\r\nhelloXX0\r\n\r\n", 400, 0),
    STREAM("LF after chunk", CHUNKED "5\r\nhello\n0\r\n\r\n", 400, 0),
    STREAM("chunks", CHUNKED "5\r\nhello\r\n00a\r\n0123456789\r\n0\r\n\r\n", 0, 1),
    STREAM("trailer", CHUNKED "0\r\nX-Sum: 1\r\n\r\n", 0, 1),
    STREAM("length in trailer", CHUNKED "0\r\nContent-Length: 1\r\n\r\n", 400, 0),
    STREAM("host in trailer", CHUNKED "0\r\nHost: y\r\n\r\n", 400, 0),
    STREAM("LF lines", "POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello", 400, 0),
    STREAM("LF in header", POST_11 "X: a\nY: b\r\n\r\n", 400, 0),
    STREAM("NUL", POST_11 "X-A: a\0b\r\nContent-Length: 5\r\n\r\nhello", 400, 0),
    STREAM("DEL", POST_11 "X-A: a\x7f\r\n\r\n", 400, 0),
    STREAM("no host", "GET / HTTP/1.1\r\n\r\n", 400, 0),
    STREAM("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, 0),
    STREAM("no host in 1.0", "GET / HTTP/1.0\r\n\r\n", 0, 1),
    STREAM("2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, 0),
    STREAM("1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, 0),
    STREAM("no version", "GET /\r\n\r\n", 400, 0),
    STREAM("lower case version", "GET / http/1.1\r\nHost: a\r\n\r\n", 400, 0),
    STREAM("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    STREAM("tab in target", "GET /\ta HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    STREAM("coding in 1.0",
           "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, 0),
    STREAM("header without a name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400, 0),
    STREAM("header without a colon", "GET / HTTP/1.1\r\nHost: a\r\nabc\r\n\r\n", 400, 0),
    STREAM("empty line first", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, 1),
    STREAM("two empty lines first", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    STREAM("any case, any white space",
           "POST / HTTP/1.1\r\nhOST:x\r\ncontent-LENGTH:\t 5\t \r\n\r\nhello", 0, 1),
    STREAM("CHUNKED", POST_11 "transfer-encoding: CHUNKED\r\n\r\n0\r\n\r\n", 0, 1),
    STREAM("three requests",
           "GET /a HTTP/1.1\r\nHost: x\r\n\r\n" POST_11
           "Content-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
           0, 3),
    STREAM("bad after good",
           "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost : x\r\n\r\n", 400, 1),
    STREAM("lengths do not carry over",
           POST_11
           "Content-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab",
           0, 2),
    STREAM("name that only begins like one", POST_11 "Content-Length-Extra: 5\r\n\r\n", 0, 1),
};

struct verdict {
    int status;
    uint32_t requests;
    size_t taken; /* bytes in order */
    size_t whole; /* end of the last complete request */
};

static struct verdict judge(const char *bytes, size_t size, size_t piece)
{
    struct head_gate gate;
    struct verdict verdict = {0};
    head_gate_init(&gate);
    for (size_t at = 0; at < size; at += piece) {
        size_t count = size - at < piece ? size - at : piece;
        struct head_gate_report report;
        verdict.taken += head_gate_feed(&gate, bytes + at, count, &report);
        if (report.whole)
            verdict.whole = at + report.whole;
        verdict.status = report.status;
        if (report.status) {
            assert_non_null(report.reason);
            break;
        }
    }
    verdict.requests = gate.requests;
    return verdict;
}

static void test_streams(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof streams / sizeof streams[0]; i++) {
        const struct stream *stream = &streams[i];
        for (size_t piece = 1; piece <= stream->size; piece++) {
            struct verdict verdict = judge(stream->bytes, stream->size, piece);
            if (verdict.status != stream->status || verdict.requests != stream->requests)
                fail_msg("%s in pieces of %zu: status %d, %u requests", stream->name, piece,
                         verdict.status, verdict.requests);
            if (!stream->status)
                assert_int_equal(verdict.taken, stream->size);
        }
    }
}

static void test_whole_is_where_the_last_request_ended(void **state)
{
    (void)state;
    static const char good[] = POST_11 "Content-Length: 3\r\n\r\nabc";
    static const char both[] = POST_11
        "Content-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost : x\r\n\r\n";
    for (size_t piece = 1; piece < sizeof both; piece++) {
        struct verdict verdict = judge(both, sizeof both - 1, piece);
        assert_int_equal(verdict.whole, sizeof good - 1);
        assert_int_equal(verdict.taken, strchr(both + sizeof good, ':') - both - 1);
    }
}

static void test_refused_stays_refused(void **state)
{
    (void)state;
    static const char bad[] = "GET / HTTP/1.1\nHost: x\n\n",
                      good[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    struct head_gate gate;
    struct head_gate_report report;
    head_gate_init(&gate);
    head_gate_feed(&gate, bad, sizeof bad - 1, &report);
    assert_int_equal(report.status, 400);
    assert_int_equal(head_gate_feed(&gate, good, sizeof good - 1, &report), 0);
    assert_int_equal(report.status, 400);
    assert_int_equal(gate.requests, 0);
}

/* A head of exactly `size` bytes, padded in one header's value. */
static char *head_of(size_t size)
{
    static const char begin[] = "GET / HTTP/1.1\r\nHost: x\r\nX: ", end[] = "\r\n\r\n";
    char *head = malloc(size + 1);
    assert_non_null(head);
    memset(head, 'a', size);
    memcpy(head, begin, sizeof begin - 1);
    memcpy(head + size - (sizeof end - 1), end, sizeof end);
    return head;
}

static void test_bound_of_the_head(void **state)
{
    (void)state;
    for (size_t over = 0; over <= 1; over++) {
        char *head = head_of(HEAD_GATE_HEAD_MAX + over);
        struct verdict verdict = judge(head, HEAD_GATE_HEAD_MAX + over, 1000);
        free(head);
        /* The last byte of a head that is one too long completes it: it must not count as complete
         * all the same. */
        assert_int_equal(verdict.requests, over ? 0 : 1);
        assert_int_equal(verdict.status, over ? 431 : 0);
    }
}

static void test_bound_of_the_target(void **state)
{
    (void)state;
    static char text[HEAD_GATE_TARGET_MAX + 100];
    for (int over = 0; over <= 1; over++) {
        int size = snprintf(text, sizeof text, "GET /%0*d HTTP/1.1\r\nHost: x\r\n\r\n",
                            HEAD_GATE_TARGET_MAX - 1 + over, 0);
        struct verdict verdict = judge(text, (size_t)size, 777);
        assert_int_equal(verdict.status, over ? 414 : 0);
    }
}

static void test_bound_of_the_headers(void **state)
{
    (void)state;
    char text[2048];
    for (int over = 0; over <= 1; over++) {
        int size = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: x\r\n");
        for (int i = 1; i < HEAD_GATE_HEADERS_MAX + over; i++)
            size += snprintf(text + size, sizeof text - (size_t)size, "a:b\r\n");
        size += snprintf(text + size, sizeof text - (size_t)size, "\r\n");
        assert_int_equal(judge(text, (size_t)size, 13).status, over ? 431 : 0);
    }
}

static void test_bounds_of_chunks(void **state)
{
    (void)state;
    static char text[HEAD_GATE_TRAILER_MAX + 400];
    for (int over = 0; over <= 1; over++) {
        int size = snprintf(text, sizeof text, CHUNKED "1;%0*d\r\na\r\n0\r\n\r\n",
                            HEAD_GATE_EXTENSION_MAX + over, 0);
        assert_int_equal(judge(text, (size_t)size, 7).status, over ? 400 : 0);
        size = snprintf(text, sizeof text, CHUNKED "0\r\nX: %0*d\r\n\r\n",
                        HEAD_GATE_TRAILER_MAX - 7 + over, 0);
        assert_int_equal(judge(text, (size_t)size, 7).status, over ? 431 : 0);
    }
}

static void test_in_head_and_idle(void **state)
{
    (void)state;
    static const char request[] = POST_11 "Content-Length: 3\r\n\r\nabc";
    struct head_gate gate;
    struct head_gate_report report;
    head_gate_init(&gate);
    for (size_t i = 0; i < sizeof request - 1; i++) {
        assert_int_equal(head_gate_idle(&gate), i == 0);
        assert_int_equal(head_gate_in_head(&gate), i > 0 && i < sizeof request - 1 - 3);
        head_gate_feed(&gate, request + i, 1, &report);
    }
    assert_true(head_gate_idle(&gate));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_whole_is_where_the_last_request_ended),
        cmocka_unit_test(test_refused_stays_refused),
        cmocka_unit_test(test_bound_of_the_head),
        cmocka_unit_test(test_bound_of_the_target),
        cmocka_unit_test(test_bound_of_the_headers),
        cmocka_unit_test(test_bounds_of_chunks),
        cmocka_unit_test(test_in_head_and_idle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
