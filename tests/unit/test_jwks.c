/* Sets of keys: which of a provider's keys are of use, and for what; what stays when they change.
 */
#include "auth/jwks.h"

#include <cjose/util.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW 1800000000

/* One of each length, made once: they take their time. */
static cjose_jwk_t *rsa_of(size_t bits)
{
    static const uint8_t e[] = {1, 0, 1};
    static cjose_jwk_t *made[2];
    cjose_jwk_t **jwk = &made[bits == 2048];
    if (!*jwk)
        *jwk = cjose_jwk_create_RSA_random(bits, e, sizeof e, NULL);
    return *jwk;
}

static char *rsa_key(size_t bits, const char *more, bool secret)
{
    cjose_jwk_t *jwk = rsa_of(bits);
    char *text = jwk ? cjose_jwk_to_json(jwk, secret, NULL) : NULL;
    char *whole = NULL;
    assert_non_null(text);
    assert_true(asprintf(&whole, "{%s%s", more, text + 1) > 0);
    cjose_get_dealloc()(text);
    return whole;
}

static char *ec_key(cjose_jwk_ec_curve curve, const char *more)
{
    cjose_jwk_t *jwk = cjose_jwk_create_EC_random(curve, NULL);
    char *text = jwk ? cjose_jwk_to_json(jwk, false, NULL) : NULL;
    char *whole = NULL;
    assert_non_null(text);
    assert_true(asprintf(&whole, "{%s%s", more, text + 1) > 0);
    cjose_get_dealloc()(text);
    cjose_jwk_release(jwk);
    return whole;
}

static int read_set(const char *keys, struct jwks *out)
{
    char *text = NULL;
    const char *why = NULL;
    assert_true(asprintf(&text, "{\"keys\":[%s],\"more\":1}", keys) > 0);
    int error = jwks_read(text, strlen(text), out, &why);
    assert_true(!error == !why);
    free(text);
    return error;
}

/* What a single key may be used for; frees it. */
static uint32_t uses(char *key)
{
    struct jwks keys;
    uint32_t bits = 0;
    if (read_set(key, &keys) == 0) {
        assert_int_equal(keys.count, 1);
        bits = keys.keys[0].algorithms;
        jwks_free(&keys);
    }
    free(key);
    return bits;
}

static void test_what_a_key_is_for(void **state)
{
    (void)state;
    const uint32_t rsa = 1u << JWKS_RS256 | 1u << JWKS_RS384 | 1u << JWKS_RS512 | 1u << JWKS_PS256 |
                         1u << JWKS_PS384 | 1u << JWKS_PS512;
    assert_int_equal(uses(rsa_key(2048, "", false)), rsa);
    assert_int_equal(uses(rsa_key(2048, "\"alg\":\"PS384\",", false)), 1u << JWKS_PS384);
    assert_int_equal(uses(rsa_key(2048, "\"use\":\"sig\",", false)), rsa);
    assert_int_equal(uses(ec_key(CJOSE_JWK_EC_P_256, "")), 1u << JWKS_ES256);
    assert_int_equal(uses(ec_key(CJOSE_JWK_EC_P_384, "")), 1u << JWKS_ES384);
    assert_int_equal(uses(ec_key(CJOSE_JWK_EC_P_521, "")), 1u << JWKS_ES512);
    assert_int_equal(uses(ec_key(CJOSE_JWK_EC_P_256, "\"key_ops\":[\"sign\",\"verify\"],")),
                     1u << JWKS_ES256);
    /* Too short, for something else, for another kind of key, or not to be known to anybody. */
    assert_int_equal(uses(rsa_key(1024, "", false)), 0);
    assert_int_equal(uses(rsa_key(2048, "\"use\":\"enc\",", false)), 0);
    assert_int_equal(uses(rsa_key(2048, "\"use\":7,", false)), 0);
    assert_int_equal(uses(rsa_key(2048, "\"key_ops\":[\"encrypt\"],", false)), 0);
    assert_int_equal(uses(rsa_key(2048, "\"alg\":\"ES256\",", false)), 0);
    assert_int_equal(uses(rsa_key(2048, "\"alg\":\"HS256\",", false)), 0);
    assert_int_equal(uses(rsa_key(2048, "\"alg\":null,", false)), 0);
    assert_int_equal(uses(rsa_key(2048, "\"kid\":\"\",", false)), 0);
    assert_int_equal(uses(rsa_key(2048, "", true)), 0);
    assert_int_equal(uses(ec_key(CJOSE_JWK_EC_P_256, "\"alg\":\"ES384\",")), 0);
    assert_int_equal(uses(strdup("{\"kty\":\"oct\",\"k\":\"AAAA\",\"alg\":\"HS256\"}")), 0);
    assert_int_equal(uses(strdup("{\"kty\":\"oct\",\"k\":\"AAAA\",\"alg\":\"RS256\"}")), 0);
    assert_int_equal(uses(strdup("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\"}")), 0);
    /* Numbers with padding in them, which the library does not survive. */
    assert_int_equal(uses(strdup("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAAA=AA\","
                                 "\"y\":\"AAAAA=AA\"}")),
                     0);
    assert_int_equal(uses(strdup("{\"kty\":\"RSA\",\"n\":\"AAAAA=AA\",\"e\":\"AAAAA=AA\"}")), 0);
    assert_int_equal(uses(rsa_key(2048, "\"p\":\"AAAAA=AA\",", false)), 0);
    /* Not on the curve; not there. */
    assert_int_equal(
        uses(strdup("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAA\",\"y\":\"AAAA\"}")), 0);
    assert_int_equal(uses(strdup("{\"kty\":\"EC\",\"crv\":\"P-256\"}")), 0);
    assert_int_equal(uses(strdup("{\"kty\":\"RSA\"}")), 0);
    assert_int_equal(uses(strdup("7")), 0);
}

static void test_sets_that_are_none(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",
                                        "{}",
                                        "[]",
                                        "{\"keys\":{}}",
                                        "{\"keys\":[]}",
                                        "[",
                                        "7",
                                        "<html></html>",
                                        "{\"keys\":[],\"keys\":[]}"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct jwks keys = {.count = 77};
        const char *why = NULL;
        int error = jwks_read(wrong[i], strlen(wrong[i]), &keys, &why);
        assert_true(error == -EBADMSG || error == -ENODATA);
        assert_non_null(why);
        assert_int_equal(keys.count, 77);
    }
    char *key = ec_key(CJOSE_JWK_EC_P_256, "");
    char *many = malloc((strlen(key) + 1) * (JWKS_KEYS_MAX + 1) + 1);
    struct jwks keys;
    size_t at = 0;
    for (int i = 0; i <= JWKS_KEYS_MAX; i++)
        at += (size_t)sprintf(many + at, "%s%s", i ? "," : "", key);
    assert_int_equal(read_set(many, &keys), -E2BIG);
    static char large[JWKS_BYTES_MAX + 1];
    const char *why = NULL;
    memset(large, ' ', sizeof large);
    assert_int_equal(jwks_read(large, sizeof large, &keys, &why), -E2BIG);
    free(many);
    free(key);
}

static void test_names(void **state)
{
    (void)state;
    assert_int_equal(jwks_algorithms_read("RS256"), 1u << JWKS_RS256);
    assert_int_equal(jwks_algorithms_read("RS256, ES256,PS512"),
                     1u << JWKS_RS256 | 1u << JWKS_ES256 | 1u << JWKS_PS512);
    static const char *const wrong[] = {"",      "none",         "HS256",     "EdDSA",
                                        "rs256", "RS256, HS256", "RS256RS256"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(jwks_algorithms_read(wrong[i]), 0);
}

static bool has(const struct jwks *keys, const char *kid, int64_t now_s)
{
    return jwks_find(keys, kid, JWKS_ES256, now_s) != NULL;
}

static void test_rotation(void **state)
{
    (void)state;
    char *a = ec_key(CJOSE_JWK_EC_P_256, "\"kid\":\"a\",");
    char *b = ec_key(CJOSE_JWK_EC_P_256, "\"kid\":\"b\",");
    char *c = ec_key(CJOSE_JWK_EC_P_256, "\"kid\":\"c\",");
    char *both = NULL;
    struct jwks old;
    struct jwks fresh;
    assert_true(asprintf(&both, "%s,%s", a, b) > 0);
    assert_int_equal(read_set(both, &old), 0);
    assert_true(has(&old, "a", NOW) && has(&old, "b", NOW));
    assert_false(has(&old, NULL, NOW)); /* which of the two? */
    assert_int_equal(read_set(b, &fresh), 0);
    assert_true(has(&fresh, NULL, NOW));
    jwks_carry_over(&fresh, &old, NOW, 60);
    assert_int_equal(old.count, 0);
    assert_true(has(&fresh, "a", NOW + 59) && has(&fresh, "b", NOW + 1000));
    assert_false(has(&fresh, "a", NOW + 60));
    /* Fetched again, its time does not begin anew. */
    old = fresh;
    assert_int_equal(read_set(c, &fresh), 0);
    jwks_carry_over(&fresh, &old, NOW + 30, 60);
    assert_true(has(&fresh, "a", NOW + 59) && has(&fresh, "b", NOW + 89) && has(&fresh, "c", NOW));
    assert_false(has(&fresh, "a", NOW + 60));
    assert_false(has(&fresh, "b", NOW + 90));
    /* It comes back. */
    old = fresh;
    assert_int_equal(read_set(both, &fresh), 0);
    jwks_carry_over(&fresh, &old, NOW + 40, 0);
    assert_int_equal(fresh.count, 2);
    assert_true(has(&fresh, "a", NOW + 1000));
    jwks_free(&fresh);
    free(a);
    free(b);
    free(c);
    free(both);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_key_is_for),
        cmocka_unit_test(test_sets_that_are_none),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_rotation),
    };
    return cmocka_run_group_tests_name("jwks", tests, NULL, NULL);
}
