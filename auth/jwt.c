#include "auth/jwt.h"

#include "auth/base64url.h"

#include <cjose/base64.h>
#include <cjose/jws.h>
#include <cjose/util.h>
#include <string.h>
#include <strings.h>

#define HEADER_MAX 2048 /* bytes of its base64 */

struct parts {
    const char *header, *claims, *signature;
    size_t header_size, claims_size, signature_size;
};

/* Exactly three parts, none of them empty. */
static bool parts_split(const char *token, size_t size, struct parts *parts)
{
    const char *end = token + size;
    const char *first = memchr(token, '.', size);
    const char *second = first ? memchr(first + 1, '.', (size_t)(end - first - 1)) : NULL;
    if (!second)
        return false;
    *parts = (struct parts){token,
                            first + 1,
                            second + 1,
                            (size_t)(first - token),
                            (size_t)(second - first - 1),
                            (size_t)(end - second - 1)};
    return base64url_fits(parts->header, parts->header_size) &&
           base64url_fits(parts->claims, parts->claims_size) &&
           base64url_fits(parts->signature, parts->signature_size);
}

bool jwt_is_one(const char *token, size_t size)
{
    struct parts parts;
    /* '{' and what may follow it in an object. */
    return parts_split(token, size, &parts) && parts.header[0] == 'e';
}

static json_t *header_read(const struct parts *parts)
{
    uint8_t *text = NULL;
    size_t size = 0;
    if (parts->header_size > HEADER_MAX ||
        !cjose_base64url_decode(parts->header, parts->header_size, &text, &size, NULL))
        return NULL;
    json_t *header = json_loadb((const char *)text, size, JSON_REJECT_DUPLICATES, NULL);
    cjose_get_dealloc()(text);
    return header;
}

/* "JWT", "at+jwt" and these as media types; other tokens of the same issuer (logout tokens, say)
 * are none for us. Not there: taken. */
static bool type_fits(const json_t *header)
{
    static const char *const types[] = {"JWT", "at+jwt", "application/jwt", "application/at+jwt"};
    const json_t *value = json_object_get(header, "typ");
    const char *type = json_string_value(value);
    for (size_t i = 0; type && i < sizeof types / sizeof types[0]; i++)
        if (strcasecmp(type, types[i]) == 0)
            return true;
    return !value;
}

/* What is wrong with the header, or NULL with *algorithm and *kid (NULL: none). */
static const char *header_check(const json_t *header, uint32_t allowed, int *algorithm,
                                const char **kid)
{
    const char *name = json_string_value(json_object_get(header, "alg"));
    const json_t *key_id = json_object_get(header, "kid");
    if (!json_is_object(header))
        return "The token's header is no JSON object";
    *algorithm = name ? jwks_algorithm_find(name) : -1;
    if (*algorithm < 0 || !(allowed & 1u << *algorithm))
        return "The token's algorithm is not allowed";
    if (json_object_get(header, "crit") || json_object_get(header, "b64"))
        return "The token asks for what is not known here";
    if (!type_fits(header))
        return "The token is of another type";
    *kid = json_string_value(key_id);
    if (key_id && (!*kid || strlen(*kid) >= JWKS_KID_MAX))
        return "The token's key id is malformed";
    return NULL;
}

/* Decoded, its size is known beforehand: what is shorter or longer never gets to the library. */
static bool signature_fits(const struct parts *parts, const struct jwks_key *key,
                           enum jwks_algorithm algorithm)
{
    return parts->signature_size * 3 / 4 == jwks_signature_bytes(key, algorithm);
}

/* The claims of a token that the key has signed, or NULL. */
static json_t *claims_of_signed(const char *token, size_t size, const struct jwks_key *key)
{
    uint8_t *text = NULL;
    size_t text_size = 0;
    json_t *claims = NULL;
    cjose_jws_t *jws = cjose_jws_import(token, size, NULL);
    if (jws && cjose_jws_verify(jws, key->jwk, NULL) &&
        cjose_jws_get_plaintext(jws, &text, &text_size, NULL))
        claims = json_loadb((const char *)text, text_size, JSON_REJECT_DUPLICATES, NULL);
    /* Signed, and not JSON, or with a name twice. */
    if (!claims && text)
        claims = json_null();
    cjose_jws_release(jws);
    return claims;
}

enum jwt_result jwt_check(const char *token, size_t size, const struct jwks *keys,
                          const struct jwt_rules *rules, int64_t now_s, struct auth_answer *answer)
{
    struct parts parts;
    int algorithm = -1;
    const char *kid = NULL;
    enum jwt_result result = JWT_KNOWN;
    json_t *header = parts_split(token, size, &parts) ? header_read(&parts) : NULL;
    const char *wrong = header ? header_check(header, rules->algorithms, &algorithm, &kid)
                               : "The token is malformed";
    const struct jwks_key *key = wrong
                                     ? NULL
                                     : jwks_find(keys, kid, (enum jwks_algorithm)algorithm, now_s);
    if (!wrong && !key) {
        wrong = "The token is signed by a key that is not known";
        result = JWT_UNKNOWN_KEY;
    }
    json_t *claims = key && signature_fits(&parts, key, (enum jwks_algorithm)algorithm)
                         ? claims_of_signed(token, size, key)
                         : NULL;
    if (!wrong && !claims)
        wrong = "The token's signature is wrong";
    if (wrong)
        claims_refuse(answer, now_s, wrong);
    else
        claims_check(claims, &rules->claims, now_s, answer);
    json_decref(claims);
    json_decref(header);
    return result;
}
