/* When keys are fetched, and how long they are good for. */
#include "auth/refresh.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define S UINT64_C(1000000000)

static const struct config_oauth config = {
    .refresh_s = 300, .refetch_s = 10, .keep_s = 3600, .timeout_ms = 5000};

static void test_at_the_start(void **state)
{
    (void)state;
    struct refresh refresh = {.under_way = false};
    assert_true(refresh_due_ns(&refresh, &config) <= 1);
    assert_false(refresh_usable(&refresh, &config, 1000 * S));
    assert_true(refresh_want(&refresh, &config, 1000 * S));
    refresh_begin(&refresh, 1000 * S);
    assert_true(refresh_due_ns(&refresh, &config) == UINT64_MAX);
    assert_true(refresh_want(&refresh, &config, 1000 * S));
    refresh_end(&refresh, true, 1001 * S);
    assert_true(refresh_usable(&refresh, &config, 1001 * S));
    assert_true(refresh_due_ns(&refresh, &config) == 1301 * S);
}

static void test_failures_are_tried_less_and_less_often(void **state)
{
    (void)state;
    static const uint64_t pauses_s[] = {1, 2, 4, 8, 16, 30, 30, 30};
    struct refresh refresh = {.under_way = false};
    uint64_t now_ns = 1000 * S;
    for (size_t i = 0; i < sizeof pauses_s / sizeof pauses_s[0]; i++) {
        refresh_begin(&refresh, now_ns);
        refresh_end(&refresh, false, now_ns);
        assert_true(refresh_due_ns(&refresh, &config) == now_ns + pauses_s[i] * S);
        assert_false(refresh_usable(&refresh, &config, now_ns));
        now_ns += pauses_s[i] * S;
    }
    refresh_begin(&refresh, now_ns);
    refresh_end(&refresh, true, now_ns);
    assert_true(refresh_due_ns(&refresh, &config) == now_ns + 300 * S);
    refresh.failures = 4000000000u;
    assert_true(refresh_due_ns(&refresh, &config) == now_ns + 30 * S);
}

static void test_keys_that_are_not_there(void **state)
{
    (void)state;
    struct refresh refresh = {.under_way = false};
    refresh_begin(&refresh, 1000 * S);
    refresh_end(&refresh, true, 1000 * S);
    for (uint64_t s = 1000; s < 1010; s++)
        assert_false(refresh_want(&refresh, &config, s * S));
    /* Who was told so is not waited for. */
    assert_true(refresh_due_ns(&refresh, &config) == 1300 * S);
    assert_true(refresh_want(&refresh, &config, 1010 * S));
    assert_true(refresh_due_ns(&refresh, &config) == 1010 * S);
    refresh_begin(&refresh, 1010 * S);
    refresh_end(&refresh, true, 1010 * S);
    assert_false(refresh_want(&refresh, &config, 1011 * S));
    /* While the provider is down its pauses count for them too, where they are longer. */
    refresh_begin(&refresh, 1310 * S);
    refresh_end(&refresh, false, 1310 * S);
    assert_true(refresh_due_ns(&refresh, &config) == 1311 * S);
}

static void test_good_until(void **state)
{
    (void)state;
    struct refresh refresh = {.under_way = false};
    refresh_begin(&refresh, 1000 * S);
    refresh_end(&refresh, true, 1000 * S);
    refresh_begin(&refresh, 1300 * S);
    refresh_end(&refresh, false, 1300 * S);
    assert_true(refresh_usable(&refresh, &config, (1000 + 300 + 3600) * S));
    assert_true(refresh_usable(&refresh, &config, (1000 + 300 + 3600 + 10) * S));
    assert_false(refresh_usable(&refresh, &config, (1000 + 300 + 3600 + 11) * S));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_the_start),
        cmocka_unit_test(test_failures_are_tried_less_and_less_often),
        cmocka_unit_test(test_keys_that_are_not_there),
        cmocka_unit_test(test_good_until),
    };
    return cmocka_run_group_tests_name("refresh", tests, NULL, NULL);
}
