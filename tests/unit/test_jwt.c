/* Signed tokens: good ones, and those that are forged, stale or for somebody else. */
#include "auth/jwt.h"

#include <cjose/base64.h>
#include <cjose/jws.h>
#include <cjose/util.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW    1800000000
#define ISSUER "https://id.example.org/realms/maps"

/* A provider's keys, made once. */
static struct {
    cjose_jwk_t *rsa, *other_rsa, *ec, *ec384;
    char *set; /* of the public ones, as it is published */
    struct jwks keys;
} provider;

static const struct jwt_rules rules = {
    .claims = {.issuer = ISSUER,
               .audiences = "maps tiles",
               .leeway_s = 30,
               .cache_s = 60,
               .must_expire = true},
    .algorithms = 1u << JWKS_RS256 | 1u << JWKS_PS256 | 1u << JWKS_ES256 | 1u << JWKS_ES384,
};

static char *public_json(const cjose_jwk_t *jwk, const char *more)
{
    char *text = cjose_jwk_to_json(jwk, false, NULL);
    char *whole = NULL;
    assert_non_null(text);
    assert_true(asprintf(&whole, "{%s%s", more, text + 1) > 0);
    cjose_get_dealloc()(text);
    return whole;
}

static int setup(void **state)
{
    (void)state;
    static const uint8_t e[] = {1, 0, 1};
    provider.rsa = cjose_jwk_create_RSA_random(2048, e, sizeof e, NULL);
    provider.other_rsa = cjose_jwk_create_RSA_random(2048, e, sizeof e, NULL);
    provider.ec = cjose_jwk_create_EC_random(CJOSE_JWK_EC_P_256, NULL);
    provider.ec384 = cjose_jwk_create_EC_random(CJOSE_JWK_EC_P_384, NULL);
    assert_true(provider.rsa && provider.other_rsa && provider.ec && provider.ec384);
    char *rsa = public_json(provider.rsa, "\"kid\":\"r1\",\"use\":\"sig\",");
    char *ec = public_json(provider.ec, "\"kid\":\"e1\",\"alg\":\"ES256\",");
    char *ec384 = public_json(provider.ec384, "\"kid\":\"e3\",\"key_ops\":[\"verify\"],");
    const char *why = NULL;
    assert_true(asprintf(&provider.set, "{\"keys\":[%s,%s,%s]}", rsa, ec, ec384) > 0);
    free(rsa);
    free(ec);
    free(ec384);
    assert_int_equal(jwks_read(provider.set, strlen(provider.set), &provider.keys, &why), 0);
    assert_int_equal(provider.keys.count, 3);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    jwks_free(&provider.keys);
    cjose_jwk_release(provider.rsa);
    cjose_jwk_release(provider.other_rsa);
    cjose_jwk_release(provider.ec);
    cjose_jwk_release(provider.ec384);
    free(provider.set);
    return 0;
}

/* ---- tokens ---- */

#define GOOD                                                                                       \
    "{\"iss\":\"" ISSUER "\",\"aud\":\"maps\",\"sub\":\"ada\",\"exp\":1800000300,"                 \
    "\"scope\":\"predict read\"}"

static char *sign(const char *header, const char *claims, const cjose_jwk_t *jwk)
{
    const char *text = NULL;
    json_t *object = json_loads(header, 0, NULL);
    assert_non_null(object);
    cjose_jws_t *jws = cjose_jws_sign(jwk, object, (const uint8_t *)claims, strlen(claims), NULL);
    assert_non_null(jws);
    assert_true(cjose_jws_export(jws, &text, NULL));
    char *token = strdup(text);
    cjose_jws_release(jws);
    json_decref(object);
    assert_non_null(token);
    return token;
}

static char *encode(const char *text)
{
    char *out = NULL;
    size_t size = 0;
    assert_true(cjose_base64url_encode((const uint8_t *)text, strlen(text), &out, &size, NULL));
    return out;
}

/* Parts as somebody without a key puts them together. */
static char *forge(const char *header, const char *claims, const char *signature)
{
    char *parts[2] = {encode(header), encode(claims)};
    char *token = NULL;
    assert_true(asprintf(&token, "%s.%s.%s", parts[0], parts[1], signature) > 0);
    cjose_get_dealloc()(parts[0]);
    cjose_get_dealloc()(parts[1]);
    return token;
}

static struct auth_answer last;

static enum jwt_result check(char *token)
{
    /* Of exactly its size, so that a sanitizer sees a read past its end. */
    size_t size = strlen(token);
    char *exact = malloc(size ? size : 1);
    assert_non_null(exact);
    for (size_t i = 0; i < size; i++)
        exact[i] = token[i];
    enum jwt_result result = jwt_check(exact, size, &provider.keys, &rules, NOW, &last);
    free(exact);
    free(token);
    if (last.verdict != AUTH_ACCEPTED) {
        assert_int_equal(last.verdict, AUTH_REFUSED);
        assert_true(last.reason[0] != '\0');
        assert_true(last.expires_s > NOW && last.expires_s <= NOW + 10);
        assert_string_equal(last.scopes, "");
    }
    return result;
}

static void assert_accepted(char *token)
{
    assert_int_equal(check(token), JWT_KNOWN);
    assert_string_equal(last.reason, "");
    assert_int_equal(last.verdict, AUTH_ACCEPTED);
}

static void assert_refused(char *token, const char *reason)
{
    assert_int_equal(check(token), JWT_KNOWN);
    assert_int_equal(last.verdict, AUTH_REFUSED);
    assert_non_null(strstr(last.reason, reason));
}

static void assert_claims_refused(const char *claims, const char *reason)
{
    assert_refused(sign("{\"alg\":\"RS256\",\"kid\":\"r1\"}", claims, provider.rsa), reason);
}

static void test_good_tokens(void **state)
{
    (void)state;
    unsigned char ada[AUTH_HOLDER_MAX];
    assert_accepted(sign("{\"alg\":\"RS256\",\"kid\":\"r1\",\"typ\":\"JWT\"}", GOOD, provider.rsa));
    assert_string_equal(last.scopes, "predict read");
    assert_int_equal(last.expires_s, NOW + 60);
    memcpy(ada, last.holder, sizeof ada);
    assert_accepted(
        sign("{\"alg\":\"PS256\",\"kid\":\"r1\",\"typ\":\"at+jwt\"}", GOOD, provider.rsa));
    assert_memory_equal(ada, last.holder, sizeof ada);
    assert_accepted(sign("{\"alg\":\"ES256\",\"kid\":\"e1\"}", GOOD, provider.ec));
    assert_accepted(sign("{\"alg\":\"ES384\",\"kid\":\"e3\"}", GOOD, provider.ec384));
    /* Without a key's name, where only one key can be meant. */
    assert_accepted(sign("{\"alg\":\"RS256\"}", GOOD, provider.rsa));
    assert_accepted(sign("{\"alg\":\"RS256\",\"kid\":\"r1\"}",
                         "{\"iss\":\"" ISSUER "\",\"aud\":[\"other\",\"tiles\"],\"sub\":\"bob\","
                         "\"exp\":1800000010.5,\"nbf\":1799999999,\"scp\":[\"a\",\"b\"]}",
                         provider.rsa));
    assert_int_equal(last.expires_s, NOW + 10);
    assert_string_equal(last.scopes, "a b");
    assert_memory_not_equal(ada, last.holder, sizeof ada);
}

static void test_forged_algorithms(void **state)
{
    (void)state;
    assert_refused(forge("{\"alg\":\"none\"}", GOOD, ""), "malformed");
    assert_refused(forge("{\"alg\":\"none\"}", GOOD, "AAAA"), "algorithm");
    assert_refused(forge("{\"alg\":\"NONE\",\"kid\":\"r1\"}", GOOD, "AAAA"), "algorithm");
    assert_refused(forge("{\"alg\":\"nOnE\",\"kid\":\"r1\"}", GOOD, "AAAA"), "algorithm");
    assert_refused(forge("{\"kid\":\"r1\"}", GOOD, "AAAA"), "algorithm");
    assert_refused(forge("{\"alg\":[\"RS256\"],\"kid\":\"r1\"}", GOOD, "AAAA"), "algorithm");
    assert_refused(forge("[\"RS256\"]", GOOD, "AAAA"), "object");
    assert_refused(forge("{\"alg\":\"RS256\",\"alg\":\"none\"}", GOOD, "AAAA"), "malformed");
    /* Known, but not configured. */
    assert_refused(sign("{\"alg\":\"RS512\",\"kid\":\"r1\"}", GOOD, provider.rsa), "algorithm");
    /* The set that everybody can read as a secret that only the provider knows. */
    cjose_jwk_t *secret = cjose_jwk_create_oct_spec((const uint8_t *)provider.set,
                                                    strlen(provider.set), NULL);
    assert_non_null(secret);
    assert_refused(sign("{\"alg\":\"HS256\",\"kid\":\"r1\"}", GOOD, secret), "algorithm");
    cjose_jwk_release(secret);
}

static void test_other_keys(void **state)
{
    (void)state;
    assert_refused(sign("{\"alg\":\"RS256\",\"kid\":\"r1\"}", GOOD, provider.other_rsa),
                   "signature");
    assert_int_equal(check(sign("{\"alg\":\"RS256\",\"kid\":\"r2\"}", GOOD, provider.rsa)),
                     JWT_UNKNOWN_KEY);
    /* A key's name with another key's algorithm. */
    assert_int_equal(check(sign("{\"alg\":\"ES256\",\"kid\":\"r1\"}", GOOD, provider.ec)),
                     JWT_UNKNOWN_KEY);
    assert_int_equal(check(sign("{\"alg\":\"RS256\",\"kid\":\"e1\"}", GOOD, provider.rsa)),
                     JWT_UNKNOWN_KEY);
    assert_int_equal(check(sign("{\"alg\":\"ES384\",\"kid\":\"e1\"}", GOOD, provider.ec384)),
                     JWT_UNKNOWN_KEY);
    assert_refused(forge("{\"alg\":\"RS256\",\"kid\":7}", GOOD, "AAAA"), "key id");
    /* A key that the token brings along is nobody's. */
    char *jwk = public_json(provider.other_rsa, "");
    char *header = NULL;
    assert_true(
        asprintf(&header,
                 "{\"alg\":\"RS256\",\"kid\":\"r1\",\"jwk\":%s,\"jku\":\"https://evil.example"
                 "/\",\"x5u\":\"https://evil.example/\",\"x5c\":[\"MIIB\"]}",
                 jwk) > 0);
    assert_refused(sign(header, GOOD, provider.other_rsa), "signature");
    assert_accepted(sign(header, GOOD, provider.rsa));
    free(header);
    free(jwk);
}

static void test_headers_that_ask_for_more(void **state)
{
    (void)state;
    assert_refused(
        sign("{\"alg\":\"RS256\",\"kid\":\"r1\",\"crit\":[\"exp\"]}", GOOD, provider.rsa),
        "not known");
    assert_refused(sign("{\"alg\":\"RS256\",\"kid\":\"r1\",\"crit\":[]}", GOOD, provider.rsa),
                   "not known");
    assert_refused(sign("{\"alg\":\"RS256\",\"kid\":\"r1\",\"b64\":false}", GOOD, provider.rsa),
                   "not known");
    assert_refused(
        sign("{\"alg\":\"RS256\",\"kid\":\"r1\",\"typ\":\"logout+jwt\"}", GOOD, provider.rsa),
        "type");
    assert_refused(sign("{\"alg\":\"RS256\",\"kid\":\"r1\",\"typ\":1}", GOOD, provider.rsa),
                   "type");
}

#define CLAIMS(rest) "{\"iss\":\"" ISSUER "\",\"aud\":\"maps\",\"sub\":\"ada\"" rest "}"

static void test_claims(void **state)
{
    (void)state;
    assert_claims_refused(CLAIMS(""), "expires");
    assert_claims_refused(CLAIMS(",\"exp\":1799999970"), "expired");
    assert_claims_refused(CLAIMS(",\"exp\":\"1800000300\""), "times");
    assert_claims_refused(CLAIMS(",\"exp\":-1"), "times");
    assert_claims_refused(CLAIMS(",\"exp\":1e300"), "times");
    assert_claims_refused(CLAIMS(",\"exp\":99999999999999999999"), "object");
    assert_claims_refused(CLAIMS(",\"exp\":null"), "times");
    assert_claims_refused(CLAIMS(",\"exp\":1800000300,\"nbf\":1800000031"), "not valid yet");
    assert_claims_refused(CLAIMS(",\"exp\":1800000300,\"exp\":1800000301"), "object");
    assert_claims_refused(CLAIMS(",\"exp\":1800000300,\"aud\":\"maps\""), "object");
    assert_claims_refused(CLAIMS(",\"exp\":1800000300,\"scope\":7"), "scopes");
    assert_claims_refused(CLAIMS(",\"exp\":1800000300,\"scope\":\"a\\tb\""), "scopes");
    assert_claims_refused(CLAIMS(",\"exp\":1800000300,\"scope\":\"a\\\"b\""), "scopes");
    assert_claims_refused(CLAIMS(",\"exp\":1800000300,\"scp\":[1]"), "scopes");
    assert_claims_refused("[]", "object");
    assert_claims_refused("not json", "object");
    assert_claims_refused(
        "{\"iss\":\"" ISSUER "/\",\"aud\":\"maps\",\"sub\":\"a\",\"exp\":1800000300}", "issuer");
    assert_claims_refused(
        "{\"iss\":[\"" ISSUER "\"],\"aud\":\"maps\",\"sub\":\"a\",\"exp\":1800000300}", "issuer");
    assert_claims_refused("{\"aud\":\"maps\",\"sub\":\"a\",\"exp\":1800000300}", "issuer");
    static const char *const audiences[] = {
        "\"map\"",     "\"maps tiles\"", "\"\"",         "[]",
        "[\"other\"]", "[\"maps\",1]",   "{\"maps\":1}", "null"};
    for (size_t i = 0; i < sizeof audiences / sizeof audiences[0]; i++) {
        char claims[256];
        snprintf(claims, sizeof claims,
                 "{\"iss\":\"" ISSUER "\",\"aud\":%s,\"sub\":\"a\",\"exp\":1800000300}",
                 audiences[i]);
        assert_claims_refused(claims, "audience");
    }
    assert_claims_refused("{\"iss\":\"" ISSUER "\",\"sub\":\"a\",\"exp\":1800000300}", "audience");
    assert_claims_refused("{\"iss\":\"" ISSUER "\",\"aud\":\"maps\",\"exp\":1800000300}", "whose");
    /* Within the leeway, on either side; not to be believed longer than it says. */
    assert_accepted(sign("{\"alg\":\"RS256\",\"kid\":\"r1\"}",
                         CLAIMS(",\"exp\":1799999971,\"nbf\":1800000030"), provider.rsa));
    assert_int_equal(last.expires_s, 1799999971);
}

/* What is no claim of ours may be whatever it wants, but all scopes have to fit. */
static void test_sizes(void **state)
{
    (void)state;
    static char claims[AUTH_TOKEN_MAX];
    int length = snprintf(claims, sizeof claims, "%s",
                          "{\"iss\":\"" ISSUER
                          "\",\"aud\":\"maps\",\"sub\":\"a\",\"exp\":1800000300,"
                          "\"scope\":\"");
    for (int i = 0; i < 300; i++)
        length += snprintf(claims + length, sizeof claims - (size_t)length, "scope%03d ", i);
    snprintf(claims + length, sizeof claims - (size_t)length, "\"}");
    assert_claims_refused(claims, "scopes");
    char header[3000];
    length = snprintf(header, sizeof header, "{\"alg\":\"RS256\",\"kid\":\"r1\",\"x\":\"");
    memset(header + length, 'x', 2000);
    snprintf(header + length + 2000, sizeof header - (size_t)length - 2000, "\"}");
    assert_refused(sign(header, GOOD, provider.rsa), "malformed");
    /* Brackets without end. */
    static char deep[6000];
    memset(deep, '[', sizeof deep - 1);
    assert_refused(forge("{\"alg\":\"RS256\",\"kid\":\"r1\"}", deep, "AAAA"), "signature");
    assert_claims_refused(deep, "object");
    deep[1500] = '\0';
    assert_refused(forge(deep, GOOD, "AAAA"), "malformed");
}

static void test_damaged_tokens(void **state)
{
    (void)state;
    char *token = sign("{\"alg\":\"ES256\",\"kid\":\"e1\"}", GOOD, provider.ec);
    char *rsa = sign("{\"alg\":\"PS256\",\"kid\":\"r1\"}", GOOD, provider.rsa);
    size_t size = strlen(token);
    /* Cut anywhere: no shorter one is good. */
    for (size_t i = 0; i < size; i++) {
        check(strndup(token, i));
        assert_int_equal(last.verdict, AUTH_REFUSED);
    }
    for (size_t i = strlen(rsa) - 40; i < strlen(rsa); i++) {
        check(strndup(rsa, i));
        assert_int_equal(last.verdict, AUTH_REFUSED);
    }
    /* Another letter in each place. The very last one has bits that count for nothing. */
    for (size_t i = 0; i + 1 < size; i++) {
        char *other = strdup(token);
        assert_non_null(other);
        other[i] = other[i] == 'A' ? 'B' : 'A';
        check(other);
        assert_int_equal(last.verdict, AUTH_REFUSED);
    }
    static const char *const tails[] = {"A", "AA", "AAAA", ".",  ".AAAA",
                                        "=", " ",  "\n",   "+/", "%00"};
    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        char *longer = NULL;
        assert_true(asprintf(&longer, "%s%s", token, tails[i]) > 0);
        check(longer);
        assert_int_equal(last.verdict, AUTH_REFUSED);
    }
    free(token);
    free(rsa);
}

/* Numbers of an elliptic signature that are none: zeros, and too many of them. */
static void test_malformed_elliptic_signatures(void **state)
{
    (void)state;
    for (size_t bytes = 1; bytes <= 200; bytes++) {
        char signature[400] = "";
        size_t letters = (bytes * 4 + 2) / 3;
        memset(signature, 'A', letters);
        assert_refused(forge("{\"alg\":\"ES256\",\"kid\":\"e1\"}", GOOD, signature), "signature");
        memset(signature, '_', letters);
        signature[letters - 1] = 'A';
        assert_refused(forge("{\"alg\":\"ES256\",\"kid\":\"e1\"}", GOOD, signature), "signature");
    }
}

static void test_form(void **state)
{
    (void)state;
    char *token = sign("{\"alg\":\"RS256\"}", GOOD, provider.rsa);
    assert_true(jwt_is_one(token, strlen(token)));
    assert_false(jwt_is_one(token, 20));
    assert_false(jwt_is_one("opaque", 6));
    assert_false(jwt_is_one("a.b.c", 5));
    assert_false(jwt_is_one("", 0));
    assert_false(jwt_is_one("..", 2));
    free(token);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_tokens),    cmocka_unit_test(test_forged_algorithms),
        cmocka_unit_test(test_other_keys),     cmocka_unit_test(test_headers_that_ask_for_more),
        cmocka_unit_test(test_claims),         cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_damaged_tokens), cmocka_unit_test(test_malformed_elliptic_signatures),
        cmocka_unit_test(test_form),
    };
    return cmocka_run_group_tests_name("jwt", tests, setup, teardown);
}
