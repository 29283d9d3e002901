/* The oauth_ keys: URLs, words, and what tells one configuration from another. */
#include "lib/config_oauth.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void assert_url(const char *text, bool tls, const char *host, unsigned port)
{
    struct config_url url;
    assert_int_equal(config_url_read(text, &url), 0);
    assert_int_equal(url.tls, tls);
    assert_string_equal(url.host, host);
    assert_int_equal(url.port, port);
}

static void test_urls(void **state)
{
    (void)state;
    assert_url("https://id.example.org", true, "id.example.org", 443);
    assert_url("https://id.example.org:8443/realms/maps?x=1&y=%20", true, "id.example.org", 8443);
    assert_url("https://192.0.2.1/", true, "192.0.2.1", 443);
    assert_url("https://[2001:db8::1]:1/", true, "2001:db8::1", 1);
    assert_url("http://localhost:65535", false, "localhost", 65535);
    assert_url("http://127.1.2.3/x", false, "127.1.2.3", 80);
    assert_url("http://[::1]:8080", false, "::1", 8080);
    static const char *const wrong[] = {
        "",
        "https://",
        "https:///x",
        "HTTPS://id.example.org",
        "ftp://id.example.org",
        "file:///etc/passwd",
        "id.example.org",
        "http://id.example.org",
        "http://192.0.2.1",
        "http://localhost.example.org",
        "http://127.0.0.1.example.org",
        "http://127.0.0.1@id.example.org",
        "https://user@id.example.org",
        "https://user:password@id.example.org",
        "https://id.example.org:0",
        "https://id.example.org:65536",
        "https://id.example.org:",
        "https://id.example.org:443x",
        "https://id.example.org#x",
        "https://id.example.org/#x",
        "https://id.example.org/a b",
        "https://id.example.org/\\x",
        "https://id.example.org/\"",
        "https://id.example.org\\@localhost/",
        "https://[::1",
        "https://[x]",
        "https://id_example.org",
        "http://[::2]/",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct config_url url = {.port = 77};
        assert_int_equal(config_url_read(wrong[i], &url), -EINVAL);
        assert_int_equal(url.port, 77);
    }
    char longest[CONFIG_URL_HOST_MAX + 16] = "https://";
    memset(longest + 8, 'a', CONFIG_URL_HOST_MAX);
    struct config_url url;
    assert_int_equal(config_url_read(longest, &url), -EINVAL);
    longest[8 + CONFIG_URL_HOST_MAX - 1] = '\0';
    assert_int_equal(config_url_read(longest, &url), 0);
}

static void test_words(void **state)
{
    (void)state;
    assert_true(config_words_fit("a"));
    assert_true(config_words_fit("https://api.example.org/read:x a.b"));
    static const char *const wrong[] = {"",     " ",    " a",   "a ",  "a  b",
                                        "a\tb", "a\"b", "a\\b", "\x7f"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_false(config_words_fit(wrong[i]));
    assert_true(config_words_have_all("a b c", "c a"));
    assert_true(config_words_have_all("a", ""));
    assert_true(config_words_have_all("", ""));
    assert_false(config_words_have_all("", "a"));
    assert_false(config_words_have_all("ab c", "a"));
    assert_false(config_words_have_all("a", "ab"));
    assert_false(config_words_have_all("a b", "a c"));
}

static void test_marks(void **state)
{
    (void)state;
    static struct config a;
    static struct config b;
    config_init(&a);
    config_init(&b);
    assert_false(config_has_oauth(&a));
    uint64_t mark = config_oauth_mark(&a);
    b.gateways = 7;
    assert_true(config_oauth_mark(&b) == mark);
    snprintf(b.oauth.issuer, sizeof b.oauth.issuer, "https://a");
    assert_true(config_has_oauth(&b));
    assert_true(config_oauth_mark(&b) != mark);
    mark = config_oauth_mark(&b);
    /* The same text under another key is another configuration. */
    b.oauth.issuer[0] = '\0';
    snprintf(b.oauth.audience, sizeof b.oauth.audience, "https://a");
    assert_true(config_oauth_mark(&b) != mark);
    b = a;
    b.oauth.cache_s++;
    assert_true(config_oauth_mark(&b) != config_oauth_mark(&a));
    /* What lies behind a text's end is no part of it. */
    b = a;
    b.oauth.scope[5] = 'x';
    assert_true(config_oauth_mark(&b) == config_oauth_mark(&a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_marks),
    };
    return cmocka_run_group_tests_name("config_oauth", tests, NULL, NULL);
}
