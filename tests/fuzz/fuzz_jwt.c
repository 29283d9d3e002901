/* A token against a fixed set of keys, and the same bytes as a provider's claims: whatever comes,
 * the answer is whole, and what is accepted has a holder's digest and ends in time. */
#include "auth/jwt.h"

#include <stdlib.h>
#include <string.h>

#define NOW 1800000000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The seeds are signed by their other halves, which nobody has any more. */
static const char set[] =
    "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"e\","
    "\"x\":\"WXUtLExAVC0hSVJEezyrOVL8LSamyhnC4aruAjonIhY\","
    "\"y\":\"QMOQpb_D0VwbCkadpVKDSQrOWFhfIFsRmZ-03VFBD9c\"},"
    "{\"kty\":\"RSA\",\"kid\":\"r\",\"use\":\"sig\",\"e\":\"AQAB\",\"n\":\""
    "ugXjoq7GEehq7JgrjEwOg5euJLnmM-vCsTklwyaU7ksuyvmur4G9G1PDyTtaSJLkfcvGss5hYhb_"
    "7XKCOzHMiOo1-NLhSR6HW96jaauOLtZW_a-tY6ofBlpfGFrWluuB9AhPZVSl4SwQ2VA3R4CsZbBL"
    "SC2MP2SKxLV5GIiFUpmFj05goz6yHk-XxXPghytUsq4tqbDS9fxNqDjjGtuxu3jexWng47jh7Zdg"
    "X8zBZMXyaglkN1BfezBVFuTjPSppORQ3vEW7hGesczg9eJkYdMHkuZW-M5aHbLkcsjbCt_g0tzmC"
    "c0IAp6dIuxxvMlASoMF2czjrbpkxDNpI8-zAHw"
    "\"}]}";

static const struct jwt_rules rules = {
    .claims = {.issuer = "https://id.example",
               .audiences = "maps",
               .leeway_s = 30,
               .cache_s = 60,
               .must_expire = true},
    .algorithms = 1u << JWKS_RS256 | 1u << JWKS_PS256 | 1u << JWKS_ES256,
};

static void check(int condition)
{
    if (!condition)
        abort();
}

static void check_answer(struct auth_answer *answer)
{
    static const unsigned char nobody[AUTH_HOLDER_MAX];
    check(memchr(answer->reason, 0, sizeof answer->reason) != NULL);
    check(memchr(answer->scopes, 0, sizeof answer->scopes) != NULL);
    check(answer->expires_s <= NOW + 60);
    if (answer->verdict == AUTH_ACCEPTED)
        check(!answer->reason[0] && memcmp(answer->holder, nobody, sizeof nobody) != 0);
    else
        check(answer->verdict == AUTH_REFUSED && answer->reason[0]);
    check(auth_answer_check(answer, auth_answer_bytes(answer)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct jwks keys;
    const char *why;
    struct auth_answer answer = {.id = 0};
    if (!keys.count)
        check(jwks_read(set, sizeof set - 1, &keys, &why) == 0);
    if (size > AUTH_TOKEN_MAX)
        return 0;
    jwt_is_one((const char *)data, size);
    enum jwt_result result = jwt_check((const char *)data, size, &keys, &rules, NOW, &answer);
    check_answer(&answer);
    check(result == JWT_KNOWN || answer.verdict == AUTH_REFUSED);

    struct claims_rules asked = rules.claims;
    asked.must_expire = false;
    json_t *claims = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    claims_check(claims, &asked, NOW, &answer);
    check_answer(&answer);
    json_decref(claims);
    return 0;
}
