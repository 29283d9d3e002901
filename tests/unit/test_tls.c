/* Identities: what cannot be read is refused with a sentence. What can is
 * tests/system/test_tls.py's. */
#include "gateway/tls.h"

#include "lib/config_address.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_files_that_are_none(void **state)
{
    (void)state;
    static struct config config;
    static const char *const paths[] = {"/nonexistent", "/dev/null", "Makefile"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        struct tls_identity *identity = NULL;
        char error[512] = "";
        snprintf(config.tls_certificate, sizeof config.tls_certificate, "%s", paths[i]);
        snprintf(config.tls_key, sizeof config.tls_key, "%s", paths[i]);
        assert_int_equal(tls_identity_read(&config, &identity, error, sizeof error),
                         i == 0 ? -EIO : -EINVAL);
        assert_null(identity);
        assert_memory_equal(error, paths[i], strlen(paths[i]));
    }
    tls_identity_drop(NULL);
}

static void test_addresses(void **state)
{
    (void)state;
    struct sockaddr_storage address;
    socklen_t length;
    static const char *const good[] = {"https://127.0.0.1:443", "https://[::1]:443",
                                       "https://unix:/run/x"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char text[64];
        assert_true(config_address_is_tls(good[i]));
        assert_int_equal(config_address_parse(good[i], &address, &length), 0);
        assert_int_equal(config_address_format(&address, length, text, sizeof text), 0);
        assert_string_equal(text, config_address_bare(good[i]));
        assert_false(config_address_is_tls(text));
    }
    static const char *const bad[] = {"https://", "https:127.0.0.1:443", "HTTPS://127.0.0.1:443",
                                      "https://https://127.0.0.1:443", "http://127.0.0.1:80"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(config_address_parse(bad[i], &address, &length), -EINVAL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_that_are_none),
        cmocka_unit_test(test_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
