/* What is sent to the provider about a token, and what its answers mean; its description of itself.
 */
#include "auth/introspect.h"
#include "auth/provider.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW 1800000000

static const struct claims_rules rules = {
    .issuer = "https://id.example", .audiences = "", .leeway_s = 30, .cache_s = 60};

static void test_form(void **state)
{
    (void)state;
    static char form[INTROSPECT_FORM_MAX];
    static char worst[AUTH_TOKEN_MAX];
    introspect_form("aZ09-._~", 8, form);
    assert_string_equal(form, "token_type_hint=access_token&token=aZ09-._~");
    introspect_form("a&b=c+d %\xff\0x", 12, form);
    assert_string_equal(form, "token_type_hint=access_token&token=a%26b%3Dc%2Bd%20%25%FF%00x");
    memset(worst, '&', sizeof worst);
    introspect_form(worst, sizeof worst, form);
    assert_int_equal(strlen(form),
                     strlen("token_type_hint=access_token&token=") + 3 * sizeof worst);
}

static struct auth_answer answer_to(int status, const char *body)
{
    struct auth_answer answer = {.verdict = 77};
    struct fetch_result result = {status, body, strlen(body), "it is gone"};
    introspect_read(&result, &rules, NOW, &answer);
    assert_int_equal(auth_answer_check(&answer, auth_answer_bytes(&answer)), 0);
    return answer;
}

static void test_answers(void **state)
{
    (void)state;
    struct auth_answer answer = answer_to(200,
                                          "{\"active\":true,\"sub\":\"ada\",\"scope\":\"a b\"}");
    assert_int_equal(answer.verdict, AUTH_ACCEPTED);
    assert_string_equal(answer.scopes, "a b");
    assert_int_equal(answer.expires_s, NOW + 60);
    answer = answer_to(200, "{\"active\":true,\"exp\":1800000007,\"client_id\":\"robot\"}");
    assert_int_equal(answer.verdict, AUTH_ACCEPTED);
    assert_int_equal(answer.expires_s, NOW + 7);
    static const char *const refused[] = {
        "{\"active\":false}",
        "{\"active\":false,\"sub\":\"ada\",\"exp\":1900000000}",
        "{\"active\":true,\"exp\":1700000000}",
        "{\"active\":true,\"nbf\":1900000000}",
        "{\"active\":true,\"iss\":\"https://other.example\"}",
        "{\"active\":true,\"iss\":7}",
        "{\"active\":true,\"scope\":[[]]}",
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        assert_int_equal(answer_to(200, refused[i]).verdict, AUTH_REFUSED);
}

static void test_answers_that_say_nothing(void **state)
{
    (void)state;
    static const char *const odd[] = {"",
                                      "{}",
                                      "[]",
                                      "true",
                                      "{\"active\":1}",
                                      "{\"active\":\"true\"}",
                                      "{\"active\":null}",
                                      "{\"active\":true,\"active\":false}",
                                      "{\"active\":true",
                                      "{\"active\":true} x"};
    static const int statuses[] = {0, 201, 204, 302, 400, 401, 403, 500, 503};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        struct auth_answer answer = answer_to(200, odd[i]);
        assert_int_equal(answer.verdict, AUTH_UNAVAILABLE);
        assert_true(answer.reason[0] && answer.retry_after_s >= 1 && answer.expires_s == 0);
    }
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
        assert_int_equal(answer_to(statuses[i], "{\"active\":true,\"sub\":\"ada\"}").verdict,
                         AUTH_UNAVAILABLE);
}

static int describe(const char *text, char url[64])
{
    const char *why = NULL;
    int error = provider_read_document(text, strlen(text), "https://id.example", url, 64, &why);
    assert_true(!error == !why);
    return error;
}

static void test_descriptions(void **state)
{
    (void)state;
    char url[64] = "untouched";
    static const char *const wrong[] = {
        "",
        "{}",
        "{\"issuer\":\"https://id.example\"}",
        "{\"jwks_uri\":\"https://id.example/keys\"}",
        "{\"issuer\":\"https://id.example/\",\"jwks_uri\":\"https://id.example/keys\"}",
        "{\"issuer\":\"https://evil.example\",\"jwks_uri\":\"https://id.example/keys\"}",
        "{\"issuer\":\"https://id.example\",\"jwks_uri\":\"http://id.example/keys\"}",
        "{\"issuer\":\"https://id.example\",\"jwks_uri\":\"file:///etc/passwd\"}",
        "{\"issuer\":\"https://id.example\",\"jwks_uri\":[\"https://id.example/keys\"]}",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_not_equal(describe(wrong[i], url), 0);
        assert_string_equal(url, "untouched");
    }
    static const char text[] =
        "{\"issuer\":\"https://id.example\",\"jwks_uri\":\"https://k.example\"}";
    const char *why = NULL;
    assert_int_not_equal(
        provider_read_document(text, sizeof text - 1, "https://id.example", url, 17, &why), 0);
    assert_int_equal(
        provider_read_document(text, sizeof text - 1, "https://id.example", url, 18, &why), 0);
    assert_string_equal(url, "https://k.example");
    assert_int_equal(describe("{\"issuer\":\"https://id.example\",\"x\":[1,2],"
                              "\"jwks_uri\":\"https://keys.example:8443/k?v=1\"}",
                              url),
                     0);
    assert_string_equal(url, "https://keys.example:8443/k?v=1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_answers_that_say_nothing),
        cmocka_unit_test(test_descriptions),
    };
    return cmocka_run_group_tests_name("introspect", tests, NULL, NULL);
}
