/* Counters: places of statuses, buckets, sums, and that a queue has them and keeps them. */
#include "unetserve/queue.h"
#include "unetserve/seat.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void test_statuses(void **state)
{
    (void)state;
    bool seen[COUNTERS_STATUSES] = {false};
    for (int status = -1; status < 1000; status++) {
        unsigned place = counters_status(status);
        bool own = status == 200 || (status >= 400 && status <= 512);
        assert_true(place < COUNTERS_STATUSES);
        assert_int_equal(counters_status_of(place), own ? status : 0);
        seen[place] = true;
    }
    for (unsigned place = 0; place < COUNTERS_STATUSES; place++)
        assert_true(seen[place]);
}

static void check_bounds(const uint64_t bounds[COUNTERS_BUCKETS])
{
    for (unsigned i = 0; i < COUNTERS_BUCKETS; i++) {
        struct counters_histogram histogram = {0};
        if (i > 0)
            assert_true(bounds[i - 1] < bounds[i]);
        counters_observe(&histogram, bounds, bounds[i]);
        assert_int_equal(histogram.buckets[i], 1);
        assert_int_equal(histogram.sum, bounds[i]);
        if (i + 1 == COUNTERS_BUCKETS)
            break;
        counters_observe(&histogram, bounds, bounds[i] + 1);
        assert_int_equal(histogram.buckets[i], 1);
        assert_int_equal(histogram.buckets[i + 1], 1);
    }
    assert_true(bounds[COUNTERS_BUCKETS - 1] == UINT64_MAX);
}

static void test_buckets(void **state)
{
    (void)state;
    check_bounds(counters_time_bounds);
    check_bounds(counters_batch_bounds);
}

/* Every number of a block is added, and nothing else: but for what models make up, a block is
 * nothing but counters. */
static void test_sum(void **state)
{
    (void)state;
    struct counters *one = aligned_alloc(64, sizeof *one);
    struct counters *total = aligned_alloc(64, sizeof *total);
    assert_true(one && total);
    size_t bytes = offsetof(struct counters, models) + sizeof one->models;
    size_t count = bytes / sizeof(counter);
    counter *from = (counter *)one, *to = (counter *)total;
    for (size_t i = 0; i < count; i++) {
        counter_set(&from[i], i + 1);
        counter_set(&to[i], 1000000);
    }
    counters_sum(total, one);
    counters_sum(total, one);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(counter_read(&to[i]), 1000000 + 2 * (i + 1));
    free(one);
    free(total);
}

/* Two mappings see one block; blocks are apart; what was counted stays when the process leaves. */
static void test_shared(void **state)
{
    (void)state;
    const struct queue_geometry geometry = {
        .class_count = 1,
        .model_count = 1,
        .classes = {{.input_bytes = 4096, .output_bytes = 4096, .count = 2}},
    };
    struct queue queue;
    struct seat seat = {.seat = COUNTERS_MAX_SEATS - 1};
    assert_int_equal(queue_create(&geometry, &queue), 0);
    assert_int_equal(queue_attach(dup(queue.fd), -1, -1, &seat.queue), 0);
    assert_true(queue_created_unix_ms(&seat.queue) > UINT64_C(1600000000000));
    assert_int_equal(queue_process_enter(&queue, QUEUE_GATEWAY, seat.seat, &seat.index), 0);

    struct counters *mine = seat_counters(&seat);
    counter_add(&mine->models[COUNTERS_NO_MODEL].busy_ns, 7);
    counter_add(&mine->received_bytes, 3);
    assert_int_equal(queue.counters[seat.seat].models[COUNTERS_NO_MODEL].busy_ns, 7);
    assert_int_equal(queue.counters[seat.seat - 1].models[COUNTERS_NO_MODEL].busy_ns, 0);
    queue_process_leave(&queue, seat.index, true);
    assert_int_equal(queue_process_enter(&queue, QUEUE_GATEWAY, seat.seat, &seat.index), 0);
    assert_int_equal(queue.counters[seat.seat].received_bytes, 3);

    /* The counters end where the table does, at the latest. */
    assert_true((char *)&queue.counters[COUNTERS_MAX_SEATS] <= (char *)queue.header + queue.size);
    queue_close(&seat.queue);
    queue_close(&queue);
}

static double own_of(struct counters *block, unsigned place, const char *name)
{
    struct counters_own_view own;
    assert_true(counters_own_read(&block->own[place], &own));
    assert_string_equal(own.name, name);
    return own.value;
}

static void test_own(void **state)
{
    (void)state;
    struct counters *block = aligned_alloc(64, sizeof *block);
    struct counters_own_view own;
    assert_non_null(block);
    memset(block, 0, sizeof *block);
    assert_int_equal(counters_own_set(block, 1, "seen_total", COUNTERS_COUNTER, 2), 0);
    assert_int_equal(counters_own_set(block, 1, "seen_total", COUNTERS_COUNTER, 0.5), 0);
    assert_int_equal(counters_own_set(block, 2, "seen_total", COUNTERS_COUNTER, 7), 0);
    assert_int_equal(counters_own_set(block, 1, "depth", COUNTERS_GAUGE, -3), 0);
    assert_int_equal(counters_own_set(block, 1, "depth", COUNTERS_GAUGE, 4), 0);
    assert_true(own_of(block, 0, "seen_total") == 2.5);
    assert_true(own_of(block, 1, "seen_total") == 7);
    assert_true(own_of(block, 2, "depth") == 4);
    assert_false(counters_own_read(&block->own[3], &own));
    counters_own_begin(block);
    assert_true(own_of(block, 0, "seen_total") == 2.5);
    assert_true(own_of(block, 2, "depth") == 0);

    static const char *const bad[] = {"", "Upper", "with-dash", "quote\"",
                                      "a_name_that_is_forty_eight_characters_long_______"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(counters_own_set(block, 1, bad[i], COUNTERS_GAUGE, 1), -EINVAL);
    assert_int_equal(counters_own_set(block, 1, "seen", COUNTERS_COUNTER, 1), -EINVAL);
    assert_int_equal(counters_own_set(block, 1, "seen_total", COUNTERS_GAUGE, 1), -EINVAL);
    assert_int_equal(counters_own_set(block, 1, "seen_total", COUNTERS_COUNTER, -1), -EINVAL);
    assert_int_equal(counters_own_set(block, 1, "depth", COUNTERS_GAUGE, INFINITY), -EINVAL);
    for (char name[] = "a"; name[0] < 'a' + COUNTERS_OWN_MAX - 3; name[0]++)
        assert_int_equal(counters_own_set(block, 1, name, COUNTERS_GAUGE, 1), 0);
    assert_int_equal(counters_own_set(block, 1, "one_more", COUNTERS_GAUGE, 1), -ENOSPC);
    assert_int_equal(counters_own_set(block, 1, "depth", COUNTERS_GAUGE, 1), 0);

    /* What another process wrote is not believed. */
    memset(block->own[0].name, 'x', sizeof block->own[0].name);
    assert_false(counters_own_read(&block->own[0], &own));
    memcpy(block->own[0].name, "a\"b_total", 10);
    assert_false(counters_own_read(&block->own[0], &own));
    atomic_store(&block->own[1].kind, 9);
    assert_false(counters_own_read(&block->own[1], &own));
    free(block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statuses), cmocka_unit_test(test_buckets), cmocka_unit_test(test_sum),
        cmocka_unit_test(test_own),      cmocka_unit_test(test_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
