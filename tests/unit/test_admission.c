/* Token buckets: rates, bursts, eviction, exactness between threads. */
#include "unetserve/admission.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000)

static struct admission table;

static int set_up(void **state)
{
    (void)state;
    memset(&table, 0, sizeof table);
    for (unsigned char i = 0; i < 16; i++)
        table.secret[i] = i;
    return 0;
}

/* The vectors of the paper's appendix and of its reference code. */
static void test_hash_is_siphash(void **state)
{
    (void)state;
    unsigned char bytes[15];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)i;
    assert_true(admission_hash(&table, bytes, 15) == UINT64_C(0xa129ca6149be45e5));
    assert_true(admission_hash(&table, bytes, 0) == UINT64_C(0x726fdb47dd0e0e31));
    assert_true(admission_hash(&table, bytes, 8) == UINT64_C(0x93f5f5799a932462));
}

static void test_secrets_differ(void **state)
{
    (void)state;
    static struct admission other;
    assert_int_equal(admission_init(&table), 0);
    assert_int_equal(admission_init(&other), 0);
    assert_true(admission_hash(&table, "x", 1) != admission_hash(&other, "x", 1));
}

static void test_rates(void **state)
{
    (void)state;
    struct admission_rate rate = admission_rate_of(2500, 0);
    assert_int_equal(rate.interval_us, 400000);
    assert_int_equal(rate.window_us, 3 * 400000);
    rate = admission_rate_of(100, 0);
    assert_int_equal(rate.interval_us, 10 * SECOND);
    assert_int_equal(rate.window_us, 10 * SECOND);
    rate = admission_rate_of(10000000, 5);
    assert_int_equal(rate.interval_us, 100);
    assert_int_equal(rate.window_us, 500);
    rate = admission_rate_of(0, 7);
    assert_int_equal(admission_take(&table, &rate, 1, 1), 0);
    assert_int_equal(atomic_load(&table.buckets[1][0]), 0);
}

static unsigned take_many(const struct admission_rate *rate, uint64_t hash, uint64_t now_us,
                          unsigned times)
{
    unsigned taken = 0;
    for (unsigned i = 0; i < times; i++)
        taken += admission_take(&table, rate, hash, now_us) == 0;
    return taken;
}

static void test_burst_then_rate(void **state)
{
    (void)state;
    struct admission_rate rate = admission_rate_of(4000, 3);
    uint64_t now = 5 * SECOND;
    assert_int_equal(take_many(&rate, 77, now, 10), 3);
    assert_int_equal(admission_take(&table, &rate, 77, now), 250000);
    assert_int_equal(admission_take(&table, &rate, 77, now + 249999), 1);
    assert_int_equal(admission_take(&table, &rate, 77, now + 250000), 0);
    assert_int_equal(admission_take(&table, &rate, 77, now + 250000), 250000);
    /* A minute at ten times the rate: exactly the rate. */
    unsigned taken = 0;
    for (uint64_t t = 250000; t < 60 * SECOND + 250000; t += 25000)
        taken += admission_take(&table, &rate, 77, now + t) == 0;
    assert_int_equal(taken, 239);
    /* Others are not concerned, and a rest fills the bucket and no more. */
    assert_int_equal(take_many(&rate, UINT64_C(78) << 44 | 77, now, 10), 3);
    assert_int_equal(take_many(&rate, 77, now + 3600 * SECOND, 10), 3);
}

/* The clock of one gateway's request may be a little behind what another wrote. */
static void test_clock_behind(void **state)
{
    (void)state;
    struct admission_rate rate = admission_rate_of(1000, 2);
    assert_int_equal(take_many(&rate, 5, 9 * SECOND, 2), 2);
    assert_int_equal(admission_take(&table, &rate, 5, 9 * SECOND - 500), SECOND + 500);
}

/* The time has 44 bits: half a year, and then it comes round. */
static void test_time_comes_round(void **state)
{
    (void)state;
    struct admission_rate rate = admission_rate_of(1000, 2);
    uint64_t round = UINT64_C(1) << 44;
    assert_int_equal(take_many(&rate, 5, round - SECOND / 2, 5), 2);
    assert_int_equal(admission_take(&table, &rate, 5, round + SECOND / 4), SECOND / 4);
    assert_int_equal(take_many(&rate, 5, round + 10 * SECOND, 5), 2);
    /* A bucket that was not touched for a hundred days and more. */
    for (uint64_t days = 1; days < 200; days += 7)
        assert_int_equal(take_many(&rate, 5 + (days << 13), days * 86400 * SECOND, 5), 2);
    assert_int_equal(take_many(&rate, 5, round + 150 * UINT64_C(86400) * SECOND, 5), 2);
}

/* A ninth client of a set takes a full bucket for nothing, and an indebted one with its debt. */
static void test_eviction(void **state)
{
    (void)state;
    struct admission_rate rate = admission_rate_of(1000, 4);
    uint64_t now = 100 * SECOND;
    uint64_t client[10];
    for (uint64_t i = 0; i < 10; i++)
        client[i] = (i + 10) << 44 | 3;
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(take_many(&rate, client[i], now, i == 6 ? 1 : 3), i == 6 ? 1 : 3);
    /* Client 6 had the fullest, with 3 tokens left: the newcomer gets these, not 4. */
    assert_int_equal(take_many(&rate, client[8], now, 9), 3);
    /* All others are where they were: one token left. */
    for (unsigned i = 0; i < 8; i++)
        if (i != 6)
            assert_int_equal(take_many(&rate, client[i], now, 9), 1);
    /* All are empty now: whoever comes new waits as they do, and pushes nobody out. */
    assert_int_equal(admission_take(&table, &rate, client[6], now), SECOND);
    assert_int_equal(admission_take(&table, &rate, client[9], now), SECOND);
    for (unsigned i = 0; i < 8; i++)
        if (i != 6)
            assert_int_equal(admission_take(&table, &rate, client[i], now), SECOND);
    /* Full again: a newcomer takes the one that has been full for longest, at its full worth. */
    assert_int_equal(take_many(&rate, client[9], now + 10 * SECOND, 9), 4);
}

/* However many addresses somebody has: eight buckets a set, and each at the rate. */
static void test_many_addresses_are_bounded(void **state)
{
    (void)state;
    struct admission_rate rate = admission_rate_of(10000, 5);
    unsigned taken = 0;
    for (uint64_t i = 0; i < 20000; i++)
        taken += admission_take(&table, &rate, (i + 1) << 44 | 9, 50 * SECOND + i * 500) == 0;
    /* Ten seconds. */
    assert_in_range(taken, 8 * 100, 8 * (100 + 5));
}

struct racer {
    pthread_t thread;
    struct admission_rate rate;
    unsigned taken;
};

#define RACE_CLIENTS 12

static void *race(void *opaque)
{
    struct racer *racer = opaque;
    for (uint64_t i = 0; i < 40000; i++)
        racer->taken += admission_take(&table, &racer->rate, (i % RACE_CLIENTS + 1) << 44 | i % 2,
                                       70 * SECOND) == 0;
    return NULL;
}

/* Four threads, six clients in each of two sets, at one moment: each gets its burst, no more and no
 * less. */
static void test_exact_between_threads(void **state)
{
    (void)state;
    struct racer racers[4];
    unsigned taken = 0;
    for (unsigned i = 0; i < 4; i++) {
        racers[i] = (struct racer){.rate = admission_rate_of(1000, 1000)};
        assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(racers[i].thread, NULL);
        taken += racers[i].taken;
    }
    assert_int_equal(taken, RACE_CLIENTS * 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_hash_is_siphash, set_up),
        cmocka_unit_test_setup(test_secrets_differ, set_up),
        cmocka_unit_test_setup(test_rates, set_up),
        cmocka_unit_test_setup(test_burst_then_rate, set_up),
        cmocka_unit_test_setup(test_clock_behind, set_up),
        cmocka_unit_test_setup(test_time_comes_round, set_up),
        cmocka_unit_test_setup(test_eviction, set_up),
        cmocka_unit_test_setup(test_many_addresses_are_bounded, set_up),
        cmocka_unit_test_setup(test_exact_between_threads, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
