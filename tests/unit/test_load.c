/* The load generator's parts: histogram against sorted values, arrivals, answers in pieces, and
 * whom it asks. */
#include "bench/load/answer.h"
#include "bench/load/arrivals.h"
#include "bench/load/histogram.h"
#include "bench/load/target.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- histogram ---- */

static struct histogram histogram;

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void histogram_is_exact_for_small_values(void **state)
{
    (void)state;
    memset(&histogram, 0, sizeof histogram);
    assert_int_equal(histogram_percentile(&histogram, .5), 0);
    assert_true(histogram_mean(&histogram) == 0);
    for (int64_t value = 1; value <= 1000; value++)
        histogram_record(&histogram, value);
    assert_int_equal(histogram_percentile(&histogram, 0), 1);
    assert_int_equal(histogram_percentile(&histogram, .5), 500);
    assert_int_equal(histogram_percentile(&histogram, .99), 990);
    assert_int_equal(histogram_percentile(&histogram, 1), 1000);
    assert_int_equal(histogram.least, 1);
    assert_int_equal(histogram.most, 1000);
    assert_true(fabs(histogram_mean(&histogram) - 500.5) < 1e-9);
}

static void histogram_is_right_within_its_steps(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    static int64_t values[COUNT];
    memset(&histogram, 0, sizeof histogram);
    srand48(5);
    for (int i = 0; i < COUNT; i++) {
        values[i] = (int64_t)exp(drand48() * log((double)HISTOGRAM_MOST));
        histogram_record(&histogram, values[i]);
    }
    qsort(values, COUNT, sizeof *values, by_value);
    for (int i = 1; i <= 1000; i++) {
        int64_t exact = values[i * COUNT / 1000 - 1];
        int64_t told = histogram_percentile(&histogram, ((double)i - .5 / COUNT) / 1000);
        assert_true(told >= exact);
        assert_true((double)(told - exact) <= (double)exact / 512);
    }
}

static void histogram_takes_in_what_lies_outside(void **state)
{
    (void)state;
    memset(&histogram, 0, sizeof histogram);
    histogram_record(&histogram, -5);
    histogram_record(&histogram, INT64_MAX);
    for (int bit = 0; bit < HISTOGRAM_TOP_BITS; bit++) {
        histogram_record(&histogram, (INT64_C(1) << bit) - 1);
        histogram_record(&histogram, INT64_C(1) << bit);
    }
    assert_int_equal(histogram.count, 2 + 2 * HISTOGRAM_TOP_BITS);
    assert_int_equal(histogram.least, 0);
    assert_int_equal(histogram_percentile(&histogram, 1), HISTOGRAM_MOST);
}

/* ---- arrivals ---- */

static void even_arrivals_keep_their_distance(void **state)
{
    (void)state;
    struct arrivals arrivals;
    arrivals_begin(&arrivals, 1000, false, 1);
    for (int i = 0; i < 100000; i++) {
        assert_in_range(arrivals_due_ns(&arrivals), (uint64_t)i * 1000000,
                        (uint64_t)i * 1000000 + 1);
        arrivals_advance(&arrivals);
    }
}

/* Of an exponential distribution the share above its mean is 1/e, and its deviation is its mean. */
static void poisson_arrivals_have_exponential_gaps(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    struct arrivals arrivals, again;
    double square = 0;
    int long_ones = 0;
    int64_t last = 0;
    arrivals_begin(&arrivals, 1000, true, 7);
    arrivals_begin(&again, 1000, true, 7);
    for (int i = 0; i < COUNT; i++) {
        int64_t due = arrivals_due_ns(&arrivals);
        assert_int_equal(due, arrivals_due_ns(&again));
        assert_true(due >= last);
        double gap_ms = (double)(due - last) * 1e-6;
        square += gap_ms * gap_ms;
        long_ones += gap_ms > 1;
        last = due;
        arrivals_advance(&arrivals);
        arrivals_advance(&again);
    }
    assert_true(fabs((double)last * 1e-6 / COUNT - 1) < .02);
    assert_true(fabs(square / COUNT - 2) < .1);
    assert_true(fabs((double)long_ones / COUNT - exp(-1)) < .01);
}

/* ---- answers ---- */

static const char good[] =
    "HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length:  15 \r\n\r\n{\"output\":80.0}";
static const struct answer_expected eighty = {(const unsigned char *)"{\"output\":80.0}", 15};

static enum answer_state feed(struct answer *answer, const char *text, size_t piece,
                              struct answer_expected expected)
{
    size_t size = strlen(text);
    answer_begin(answer, expected);
    for (size_t at = 0; at < size; at += piece)
        answer_feed(answer, text + at, piece < size - at ? piece : size - at);
    return answer->state;
}

static void an_answer_is_read_in_any_pieces(void **state)
{
    (void)state;
    struct answer answer;
    for (size_t piece = 1; piece < sizeof good; piece++) {
        assert_int_equal(feed(&answer, good, piece, eighty), ANSWER_WHOLE);
        assert_int_equal(answer.status, 200);
        assert_int_equal(answer.body_bytes, 15);
        assert_false(answer.wrong);
        assert_false(answer.closes);
    }
    for (size_t size = 0; size + 1 < sizeof good; size++) {
        answer_begin(&answer, eighty);
        assert_true(answer_feed(&answer, good, size) < ANSWER_WHOLE);
    }
}

static void another_body_is_wrong(void **state)
{
    (void)state;
    struct answer answer;
    static const char *const bodies[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"output\":80.1}",
        "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"output\":80.0",
        "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"output\":80.0} ",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        for (size_t piece = 1; piece < 80; piece++) {
            assert_int_equal(feed(&answer, bodies[i], piece, eighty), ANSWER_WHOLE);
            assert_true(answer.wrong);
            assert_int_equal(feed(&answer, bodies[i], piece, (struct answer_expected){NULL, 0}),
                             ANSWER_WHOLE);
            assert_false(answer.wrong);
        }
    }
}

static void refusals_are_answers(void **state)
{
    (void)state;
    struct answer answer;
    assert_int_equal(feed(&answer,
                          "HTTP/1.1 503 Busy\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nno",
                          9, eighty),
                     ANSWER_WHOLE);
    assert_int_equal(answer.status, 503);
    assert_true(answer.closes);
    assert_false(answer.wrong);
}

static void what_is_no_answer_is_malformed(void **state)
{
    (void)state;
    struct answer answer;
    static const char *const texts[] = {
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n",
        "HTTP/1.1 2000 OK\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1234567890123456\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{} more than it said",
        "nonsense\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (size_t piece = 1; piece < 90; piece++)
            assert_int_equal(feed(&answer, texts[i], piece, eighty), ANSWER_MALFORMED);
}

static void a_head_without_end_is_malformed(void **state)
{
    (void)state;
    struct answer answer;
    char line[1000];
    memset(line, 'x', sizeof line);
    answer_begin(&answer, eighty);
    answer_feed(&answer, "HTTP/1.1 200 OK\r\n", 17);
    for (int i = 0; i < ANSWER_HEAD_MAX / 1000 - 1; i++)
        assert_int_equal(answer_feed(&answer, line, sizeof line), ANSWER_HEAD);
    answer_feed(&answer, line, sizeof line);
    assert_int_equal(answer_feed(&answer, line, sizeof line), ANSWER_MALFORMED);
}

/* ---- targets ---- */

static void only_loopback_is_a_target(void **state)
{
    (void)state;
    struct target target;
    assert_int_equal(target_parse("http://127.0.0.1:8000/predict", &target), 0);
    assert_string_equal(target.host, "127.0.0.1:8000");
    assert_string_equal(target.path, "/predict");
    assert_int_equal(target_parse("http://127.9.9.9:80", &target), 0);
    assert_string_equal(target.path, "/");
    assert_int_equal(target_parse("http://localhost:80/", &target), 0);
    assert_int_equal(target_parse("http://[::1]:80/", &target), 0);
    assert_int_equal(target.address.ss_family, AF_INET6);
    static const char *const strangers[] = {"http://10.0.0.1:80/",         "http://0.0.0.0:80/",
                                            "http://126.255.255.255:80/",  "http://128.0.0.1:80/",
                                            "http://[2001:db8::1]:80/",    "http://[::]:80/",
                                            "http://[::ffff:10.0.0.1]:80/"};
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++)
        assert_int_equal(target_parse(strangers[i], &target), -EACCES);
    static const char *const bad[] = {"",
                                      "https://127.0.0.1:80/",
                                      "http://127.0.0.1/",
                                      "http://example:80/",
                                      "http://127.0.0.1:0/",
                                      "http://127.0.0.1:65536/",
                                      "http://127.0.0.1:+80/",
                                      "http://127.0.0.1:80/a b",
                                      "http://127.0.0.1:80/a\r\nb",
                                      "http://127.1:80/",
                                      "http://:80/",
                                      "http://[::1]/",
                                      "http://[:80/"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(target_parse(bad[i], &target), -EINVAL);
}

static void a_request_is_whole(void **state)
{
    (void)state;
    struct target target;
    struct target_request request;
    assert_int_equal(target_parse("http://127.0.0.1:8000/predict", &target), 0);
    const char *fields[] = {"Content-Type: application/json", "A: b"};
    assert_int_equal(target_request_make(&target, fields, 2, "{}", 2, &request), 0);
    static const char text[] =
        "POST /predict HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n"
        "Content-Type: application/json\r\nA: b\r\nContent-Length: 2\r\n\r\n{}";
    assert_int_equal(request.size, sizeof text - 1);
    assert_memory_equal(request.bytes, text, sizeof text - 1);
    free(request.bytes);
    assert_int_equal(target_request_make(&target, NULL, 0, NULL, 0, &request), 0);
    assert_memory_equal(request.bytes, "GET /predict HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n",
                        request.size);
    free(request.bytes);
    const char *bad[] = {"no colon", "A: b\r\nC: d"};
    assert_int_equal(target_request_make(&target, bad, 1, NULL, 0, &request), -EINVAL);
    assert_int_equal(target_request_make(&target, bad + 1, 1, NULL, 0, &request), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(histogram_is_exact_for_small_values),
        cmocka_unit_test(histogram_is_right_within_its_steps),
        cmocka_unit_test(histogram_takes_in_what_lies_outside),
        cmocka_unit_test(even_arrivals_keep_their_distance),
        cmocka_unit_test(poisson_arrivals_have_exponential_gaps),
        cmocka_unit_test(an_answer_is_read_in_any_pieces),
        cmocka_unit_test(another_body_is_wrong),
        cmocka_unit_test(refusals_are_answers),
        cmocka_unit_test(what_is_no_answer_is_malformed),
        cmocka_unit_test(a_head_without_end_is_malformed),
        cmocka_unit_test(only_loopback_is_a_target),
        cmocka_unit_test(a_request_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
