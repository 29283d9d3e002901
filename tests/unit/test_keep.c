/* The provider's keys that one process leaves to the next: what comes back, and what does not. */
#include "auth/keep.h"
#include "auth/provider.h"
#include "lib/auth_wire.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define MARK   UINT64_C(77)
#define SECOND UINT64_C(1000000000)
#define NOW    (UINT64_C(100000) * SECOND)

static const char set[] = "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"a\","
                          "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
                          "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}]}";

static int memory_of(size_t size)
{
    int fd = memfd_create("keys", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static void test_round(void **state)
{
    (void)state;
    int fd = memory_of(AUTH_KEEP_BYTES);
    struct keep_area *area = keep_open(fd);
    struct jwks keys;
    uint64_t fetched_ns = 0;
    assert_non_null(area);
    assert_int_equal(keep_read(area, 0, NOW, &keys, &fetched_ns), -ENODATA);
    keep_store(area, MARK, set, strlen(set), NOW - 5);
    keep_close(area);
    area = keep_open(fd);
    assert_int_equal(keep_read(area, MARK, NOW, &keys, &fetched_ns), 0);
    assert_int_equal(keys.count, 1);
    assert_string_equal(keys.keys[0].kid, "a");
    assert_true(fetched_ns == NOW - 5);
    jwks_free(&keys);
    /* Another configuration's, or from a time that has not come. */
    assert_int_equal(keep_read(area, MARK + 1, NOW, &keys, &fetched_ns), -ENODATA);
    assert_int_equal(keep_read(area, MARK, NOW - 6, &keys, &fetched_ns), -ENODATA);
    keep_close(area);
    close(fd);
}

/* A process that is killed while it writes has written into the place that does not count. */
static void test_half_written(void **state)
{
    (void)state;
    int fd = memory_of(AUTH_KEEP_BYTES);
    struct keep_area *area = keep_open(fd);
    struct jwks keys;
    uint64_t fetched_ns = 0;
    for (int i = 0; i < 3; i++) {
        keep_store(area, MARK, set, strlen(set), NOW);
        uint32_t version = atomic_load(&area->version);
        memset(&area->sets[(version + 1) & 1], 'x', sizeof area->sets[0]);
        assert_int_equal(keep_read(area, MARK, NOW, &keys, &fetched_ns), 0);
        jwks_free(&keys);
    }
    keep_close(area);
    close(fd);
}

static void test_rubbish(void **state)
{
    (void)state;
    static char large[JWKS_BYTES_MAX + 1];
    int fd = memory_of(AUTH_KEEP_BYTES);
    struct keep_area *area = keep_open(fd);
    struct jwks keys;
    uint64_t fetched_ns = 0;
    keep_store(area, MARK, set, strlen(set), NOW);
    keep_store(area, MARK, large, sizeof large, NOW + 1); /* not kept */
    assert_int_equal(keep_read(area, MARK, NOW, &keys, &fetched_ns), 0);
    jwks_free(&keys);
    keep_store(area, MARK, "{\"keys\":[]}", 11, NOW);
    assert_int_equal(keep_read(area, MARK, NOW, &keys, &fetched_ns), -EBADMSG);
    keep_store(area, MARK, set, strlen(set), NOW);
    area->sets[atomic_load(&area->version) & 1].size = UINT32_MAX;
    assert_int_equal(keep_read(area, MARK, NOW, &keys, &fetched_ns), -EBADMSG);
    memset(area, 0xff, sizeof *area);
    assert_int_not_equal(keep_read(area, UINT64_MAX, NOW, &keys, &fetched_ns), 0);
    keep_close(area);
    close(fd);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct jwks keys;
    uint64_t fetched_ns = 0;
    int fd = memory_of(4096);
    assert_null(keep_open(fd));
    assert_null(keep_open(-1));
    keep_store(NULL, MARK, set, strlen(set), NOW);
    assert_int_equal(keep_read(NULL, MARK, NOW, &keys, &fetched_ns), -ENODATA);
    keep_close(NULL);
    close(fd);
}

static bool inherits(struct keep_area *area, uint64_t fetched_ns)
{
    static const struct config_oauth config = {.refresh_s = 300, .keep_s = 3600};
    struct provider provider;
    provider_init(&provider, &config, NULL, NULL, NULL);
    keep_store(area, MARK, set, strlen(set), fetched_ns);
    provider_inherit(&provider, area, MARK, NOW);
    bool usable = refresh_usable(&provider.refresh, &config, NOW);
    assert_int_equal(provider.keys.count, usable);
    assert_true(provider.inherited == usable);
    /* The provider is asked at once all the same. */
    assert_true(refresh_due_ns(&provider.refresh, &config) <= NOW);
    provider.kept = NULL;
    provider_close(&provider);
    return usable;
}

/* They grow no younger by changing hands. */
static void test_age(void **state)
{
    (void)state;
    int fd = memory_of(AUTH_KEEP_BYTES);
    struct keep_area *area = keep_open(fd);
    assert_true(inherits(area, NOW));
    assert_true(inherits(area, NOW - 3900 * SECOND));
    assert_false(inherits(area, NOW - 3901 * SECOND));
    keep_close(area);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round),   cmocka_unit_test(test_half_written),
        cmocka_unit_test(test_rubbish), cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_age),
    };
    return cmocka_run_group_tests_name("keep", tests, NULL, NULL);
}
