/* The predicted wait: what it is, and that it never locks itself in. */
#include "gateway/wait.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MS UINT64_C(1000000)
#define S  (1000 * MS)

static uint64_t predict(const struct wait_estimate *estimate, uint32_t waiting, uint32_t running,
                        uint32_t workers, uint64_t now_ns)
{
    struct wait_queue queue = {waiting, running, workers};
    return wait_predict(estimate, &queue, now_ns);
}

static void observe(struct wait_estimate *estimate, uint64_t jobs, uint64_t busy_ns,
                    uint64_t now_ns)
{
    struct wait_work work = {jobs, busy_ns};
    wait_observe(estimate, &work, now_ns);
}

static void test_nothing_is_known_at_first(void **state)
{
    (void)state;
    struct wait_estimate estimate = {0};
    assert_true(wait_due(&estimate, 100 * S));
    assert_int_equal(predict(&estimate, 1000, 1, 1, 100 * S), 0);
    /* What was done before we looked is no measurement, and neither is time without a job. */
    observe(&estimate, 50, 70 * S, 100 * S);
    assert_int_equal(predict(&estimate, 1000, 1, 1, 100 * S), 0);
    observe(&estimate, 50, 75 * S, 105 * S);
    assert_int_equal(predict(&estimate, 1000, 1, 1, 105 * S), 0);
    assert_false(wait_due(&estimate, 105 * S + 99 * MS));
    assert_true(wait_due(&estimate, 105 * S + 100 * MS));
}

static void test_waits(void **state)
{
    (void)state;
    struct wait_estimate estimate = {0};
    observe(&estimate, 0, 0, 10 * S);
    observe(&estimate, 20, 2 * S, 11 * S); /* 100 ms each */
    uint64_t now = 11 * S;
    assert_int_equal(predict(&estimate, 0, 0, 1, now), 0);
    assert_int_equal(predict(&estimate, 0, 1, 2, now), 0);
    assert_int_equal(predict(&estimate, 0, 1, 1, now), 50 * MS);
    assert_int_equal(predict(&estimate, 10, 1, 1, now), 1050 * MS);
    assert_int_equal(predict(&estimate, 10, 4, 4, now), 300 * MS);
    /* No worker is ready: they start, and nobody knows how long that takes. */
    assert_int_equal(predict(&estimate, 10, 0, 0, now), 0);
    /* Counts from shared memory may be anything. */
    assert_true(predict(&estimate, UINT32_MAX, UINT32_MAX, 1, now) > 0);
}

static void test_the_young_count_more(void **state)
{
    (void)state;
    struct wait_estimate estimate = {0};
    observe(&estimate, 0, 0, S);
    observe(&estimate, 10, S, 2 * S);
    assert_int_equal(estimate.service_ns, 100 * MS);
    observe(&estimate, 20, S + 3 * S, 4 * S); /* two seconds at 300 ms each */
    assert_int_equal(estimate.service_ns, 200 * MS);
    for (unsigned i = 1; i <= 20; i++)
        observe(&estimate, 20 + i, 4 * S + i * 10 * MS, (4 + i) * S);
    assert_in_range(estimate.service_ns, 10 * MS, 11 * MS);
}

/* All is refused, so nothing is measured: the data runs out, and somebody is let in again. */
static void test_it_does_not_lock_itself_in(void **state)
{
    (void)state;
    struct wait_estimate estimate = {0};
    observe(&estimate, 0, 0, S);
    observe(&estimate, 1, 5 * S, 6 * S);
    assert_int_equal(predict(&estimate, 1, 1, 1, 7 * S), 7500 * MS);
    /* An idle worker takes everybody, at once. */
    assert_int_equal(predict(&estimate, 0, 0, 1, 7 * S), 0);
    /* A queue that does not move: four times the service time. */
    assert_int_equal(predict(&estimate, 1, 1, 1, 26 * S), 7500 * MS);
    assert_int_equal(predict(&estimate, 1, 1, 1, 27 * S), 0);
    /* Quick jobs: ten seconds. */
    observe(&estimate, 1001, 6 * S, 200 * S);
    assert_true(predict(&estimate, 1000, 1, 1, 210 * S) > 0);
    assert_int_equal(predict(&estimate, 1000, 1, 1, 211 * S), 0);
}

static void test_workers_that_end(void **state)
{
    (void)state;
    struct wait_estimate estimate = {0};
    observe(&estimate, 100, 10 * S, S);
    observe(&estimate, 110, 11 * S, 2 * S);
    /* One of two is gone, and its counts with it: begin again, keep what is known. */
    observe(&estimate, 60, 6 * S, 3 * S);
    assert_int_equal(predict(&estimate, 1, 0, 1, 3 * S), 100 * MS);
    observe(&estimate, 70, 7 * S, 4 * S);
    assert_int_equal(estimate.service_ns, 100 * MS);
    /* Nonsense is bounded. */
    observe(&estimate, 71, UINT64_MAX, 5 * S);
    assert_true(estimate.service_ns <= 24 * 3600 * S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_known_at_first),
        cmocka_unit_test(test_waits),
        cmocka_unit_test(test_the_young_count_more),
        cmocka_unit_test(test_it_does_not_lock_itself_in),
        cmocka_unit_test(test_workers_that_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
