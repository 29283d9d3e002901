/* Who may read answers across origins: a pure function of the configuration and of header values.
 */
#include "gateway/cors.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct config config;

static void set(const char *key, const char *value)
{
    struct config_error error;
    assert_int_equal(config_set(&config, "server", key, value, &error), 0);
}

static int fresh(void **state)
{
    (void)state;
    config_init(&config);
    set("cors_allow_origins", "https://a.example, http://localhost:3000");
    cors_configure(&config);
    return 0;
}

static void write_text(void *out, const char *name, const char *value)
{
    char *text = out;
    size_t used = strlen(text);
    snprintf(text + used, 4096 - used, "%s: %s\n", name, value);
}

static void assert_headers(const struct cors_grant *grant, const char *expected)
{
    char text[4096] = "";
    cors_write(grant, write_text, text);
    assert_string_equal(text, expected);
}

static void test_off(void **state)
{
    (void)state;
    struct cors_grant grant;
    config_init(&config);
    cors_configure(&config);
    assert_false(cors_is_preflight("OPTIONS", "https://a.example", "POST"));
    cors_grant("https://a.example", &grant);
    assert_headers(&grant, "");
    assert_false(cors_varies());
}

static void test_list_of_origins(void **state)
{
    (void)state;
    static const struct {
        const char *origin;
        bool allowed;
    } cases[] = {
        {"https://a.example", true},
        {"http://localhost:3000", true},
        {"https://a.example \t", true},
        {NULL, false},
        {"", false},
        {"https://A.example", false},
        {"https://a.example.evil", false},
        {"https://a.exampl", false},
        {"http://a.example", false},
        {"null", false},
        {"https://a.example, http://localhost:3000", false},
        {"*", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cors_grant grant;
        cors_grant(cases[i].origin, &grant);
        assert_int_equal(grant.origin[0] != '\0', cases[i].allowed);
        if (!cases[i].allowed)
            assert_headers(&grant, "");
    }
    struct cors_grant grant;
    cors_grant("http://localhost:3000", &grant);
    assert_headers(&grant, "Access-Control-Allow-Origin: http://localhost:3000\n");
    assert_true(cors_varies());
}

static void test_any_origin(void **state)
{
    (void)state;
    struct cors_grant grant;
    set("cors_allow_origins", "*");
    cors_grant("null", &grant);
    assert_headers(&grant, "Access-Control-Allow-Origin: *\n");
    assert_false(cors_varies());
    set("cors_allow_credentials", "on");
    assert_headers(&grant, "Access-Control-Allow-Origin: null\n"
                           "Access-Control-Allow-Credentials: true\n");
    assert_true(cors_varies());
    cors_grant(NULL, &grant);
    assert_headers(&grant, "");
    char longest[CORS_ORIGIN_MAX + 1];
    memset(longest, 'a', sizeof longest);
    longest[CORS_ORIGIN_MAX] = '\0';
    cors_grant(longest, &grant);
    assert_headers(&grant, "");
    longest[CORS_ORIGIN_MAX - 1] = '\0';
    cors_grant(longest, &grant);
    assert_string_equal(grant.origin, longest);
}

static void test_preflight(void **state)
{
    (void)state;
    struct cors_grant grant;
    struct problem problem;
    assert_true(cors_is_preflight("OPTIONS", "https://a.example", "POST"));
    assert_false(cors_is_preflight("OPTIONS", "https://a.example", NULL));
    assert_false(cors_is_preflight("OPTIONS", NULL, "POST"));
    assert_false(cors_is_preflight("POST", "https://a.example", "POST"));
    set("cors_allow_headers", "X-API-Key");
    set("cors_max_age", "5");
    assert_int_equal(cors_grant_preflight("https://a.example", "POST", "content-type,x-api-key",
                                          &grant, &problem),
                     0);
    assert_headers(&grant, "Access-Control-Allow-Origin: https://a.example\n"
                           "Access-Control-Allow-Methods: GET, POST\n"
                           "Access-Control-Allow-Headers: Accept, Accept-Language, "
                           "Content-Language, Content-Type, X-API-Key\n"
                           "Access-Control-Max-Age: 5\n");
}

static void test_preflight_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *origin, *method, *headers, *detail;
    } cases[] = {
        {"https://b.example", "POST", NULL, "Disallowed CORS origin"},
        {"https://a.example", "PUT", NULL, "Disallowed CORS method"},
        {"https://a.example", "post", NULL, "Disallowed CORS method"},
        {"https://a.example", "", NULL, "Disallowed CORS method"},
        {"https://a.example", "POST", "x-other", "Disallowed CORS headers"},
        {"https://a.example", "PUT", "x-other", "Disallowed CORS method, headers"},
        {"https://b.example", "PUT", "x-other", "Disallowed CORS origin, method, headers"},
        {"https://b.example", "POST", "x-other", "Disallowed CORS origin, headers"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cors_grant grant;
        struct problem problem;
        char body[128];
        assert_int_equal(cors_grant_preflight(cases[i].origin, cases[i].method, cases[i].headers,
                                              &grant, &problem),
                         -1);
        assert_int_equal(problem.status, 400);
        snprintf(body, sizeof body, "{\"detail\":\"%s\"}", cases[i].detail);
        assert_string_equal(problem.body, body);
    }
}

static void test_preflight_of_anything(void **state)
{
    (void)state;
    struct cors_grant grant;
    struct problem problem;
    set("cors_allow_origins", "*");
    set("cors_allow_methods", "*");
    set("cors_allow_headers", "*");
    assert_int_equal(
        cors_grant_preflight("https://b.example", "PUT", "x-one, x-two", &grant, &problem), 0);
    assert_headers(&grant,
                   "Access-Control-Allow-Origin: *\n"
                   "Access-Control-Allow-Methods: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT\n"
                   "Access-Control-Allow-Headers: x-one, x-two\n"
                   "Access-Control-Max-Age: 600\n");
    char many[CORS_HEADERS_MAX + 1];
    memset(many, 'x', sizeof many);
    many[CORS_HEADERS_MAX] = '\0';
    assert_int_equal(cors_grant_preflight("https://b.example", "PUT", many, &grant, &problem), -1);
    many[CORS_HEADERS_MAX - 1] = '\0';
    assert_int_equal(cors_grant_preflight("https://b.example", "PUT", many, &grant, &problem), 0);
    assert_string_equal(grant.headers, many);
}

static void test_configuration(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "https://a.example/",
        "a.example",
        "https://A.example",
        "https://a.example,",
        ",",
        "://x",
        "https://",
        "https://a.example http://b.example",
        "https://a.example/x",
    };
    struct config_error error;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(config_set(&config, "server", "cors_allow_origins", bad[i], &error),
                         -EINVAL);
    static const char *const good[] = {"*", "null", "https://[::1]:8443", "app://x,https://y"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        set("cors_allow_origins", good[i]);
    assert_int_equal(config_set(&config, "server", "cors_allow_methods", "GET POST", &error),
                     -EINVAL);
    assert_int_equal(config_set(&config, "server", "cors_allow_headers", "X:Y", &error), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_off, fresh),
        cmocka_unit_test_setup(test_list_of_origins, fresh),
        cmocka_unit_test_setup(test_any_origin, fresh),
        cmocka_unit_test_setup(test_preflight, fresh),
        cmocka_unit_test_setup(test_preflight_refusals, fresh),
        cmocka_unit_test_setup(test_preflight_of_anything, fresh),
        cmocka_unit_test_setup(test_configuration, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
