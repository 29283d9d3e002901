#include "auth/jwks.h"

#include "auth/base64url.h"

#include <cjose/base64.h>
#include <cjose/util.h>
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Below it a modulus can be factored; above it a check takes too long. */
#define RSA_BYTES_LEAST         256
#define RSA_BYTES_MOST          1024
#define RSA_EXPONENT_BYTES_MOST 8

static const struct {
    const char *name, *type, *curve;
    size_t signature_bytes;
} algorithms[] = {
#define JWKS_ROW(name, type, curve, size) {#name, type, curve, size},
    JWKS_ALGORITHMS(JWKS_ROW)
#undef JWKS_ROW
};

int jwks_algorithm_find(const char *name)
{
    for (int i = 0; i < JWKS_ALGORITHM_COUNT; i++)
        if (strcmp(algorithms[i].name, name) == 0)
            return i;
    return -1;
}

size_t jwks_signature_bytes(const struct jwks_key *key, enum jwks_algorithm algorithm)
{
    return key->rsa_bytes ? key->rsa_bytes : algorithms[algorithm].signature_bytes;
}

uint32_t jwks_algorithms_read(const char *list)
{
    uint32_t bits = 0;
    for (;;) {
        char name[8];
        list += strspn(list, ", ");
        size_t size = strcspn(list, ", ");
        if (size == 0)
            return bits;
        if (size >= sizeof name)
            return 0;
        memcpy(name, list, size);
        name[size] = '\0';
        int algorithm = jwks_algorithm_find(name);
        if (algorithm < 0)
            return 0;
        bits |= 1u << algorithm;
        list += size;
    }
}

/* ---- one key ---- */

static const char *member(const json_t *key, const char *name)
{
    const char *text = json_string_value(json_object_get(key, name));
    return text ? text : "";
}

static bool has(const json_t *key, const char *name)
{
    return json_object_get(key, name) != NULL;
}

/* For signatures, and not for anything else? */
static bool is_for_verifying(const json_t *key)
{
    if (has(key, "use") && strcmp(member(key, "use"), "sig") != 0)
        return false;
    const json_t *uses = json_object_get(key, "key_ops");
    if (!uses)
        return true;
    for (size_t i = 0; i < json_array_size(uses); i++) {
        const char *use = json_string_value(json_array_get(uses, i));
        if (use && strcmp(use, "verify") == 0)
            return true;
    }
    return false;
}

/* A number's bytes without leading zeros; 0: it is none. */
static size_t number_bytes(const json_t *key, const char *name)
{
    const char *text = member(key, name);
    uint8_t *bytes = NULL;
    size_t size = 0;
    if (!base64url_fits(text, strlen(text)) ||
        !cjose_base64url_decode(text, strlen(text), &bytes, &size, NULL))
        return 0;
    size_t zeros = 0;
    while (zeros < size && bytes[zeros] == 0)
        zeros++;
    cjose_get_dealloc()(bytes);
    return size - zeros;
}

static bool rsa_fits(const json_t *key)
{
    size_t modulus = number_bytes(key, "n");
    size_t exponent = number_bytes(key, "e");
    return modulus >= RSA_BYTES_LEAST && modulus <= RSA_BYTES_MOST && exponent > 0 &&
           exponent <= RSA_EXPONENT_BYTES_MOST;
}

static bool ec_fits(const json_t *key)
{
    return number_bytes(key, "x") > 0 && number_bytes(key, "y") > 0;
}

/* Secrets have no place in what is published. */
static bool is_secret(const json_t *key)
{
    static const char *const names[] = {"d", "k", "p", "q", "dp", "dq", "qi", "oth"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (has(key, names[i]))
            return true;
    return false;
}

/* What the key may verify, as bits. */
static uint32_t key_algorithms(const json_t *key)
{
    const char *type = member(key, "kty");
    bool rsa = strcmp(type, "RSA") == 0;
    uint32_t bits = 0;
    if (is_secret(key) || !is_for_verifying(key) || !(rsa ? rsa_fits(key) : ec_fits(key)))
        return 0;
    for (int i = 0; i < JWKS_ALGORITHM_COUNT; i++) {
        if (strcmp(algorithms[i].type, type) != 0 ||
            (!rsa && strcmp(algorithms[i].curve, member(key, "crv")) != 0))
            continue;
        if (!has(key, "alg") || strcmp(member(key, "alg"), algorithms[i].name) == 0)
            bits |= 1u << i;
    }
    return bits;
}

/* False: it is of no use here. */
static bool key_read(json_t *key, struct jwks_key *out)
{
    const char *kid = member(key, "kid");
    uint32_t bits = json_is_object(key) ? key_algorithms(key) : 0;
    if (!bits || strlen(kid) >= JWKS_KID_MAX || (has(key, "kid") && !kid[0]))
        return false;
    /* Of itself the library reads what it knows: kty, kid and the numbers. */
    cjose_jwk_t *jwk = cjose_jwk_import_json(key, NULL);
    if (!jwk)
        return false;
    bool rsa = strcmp(member(key, "kty"), "RSA") == 0;
    *out = (struct jwks_key){
        .algorithms = bits, .rsa_bytes = rsa ? number_bytes(key, "n") : 0, .jwk = jwk};
    memcpy(out->kid, kid, strlen(kid) + 1);
    return true;
}

/* ---- the set ---- */

int jwks_read(const char *text, size_t size, struct jwks *out, const char **why)
{
    if (size > JWKS_BYTES_MAX) {
        *why = "the set of keys is too large";
        return -E2BIG;
    }
    json_t *document = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    json_t *list = json_object_get(document, "keys");
    struct jwks fresh = {.count = 0};
    int error = 0;
    if (!json_is_array(list)) {
        *why = "this is no set of keys: an object with an array \"keys\"";
        error = -EBADMSG;
    }
    for (size_t i = 0; !error && i < json_array_size(list); i++) {
        if (fresh.count == JWKS_KEYS_MAX) {
            *why = "the set has too many keys";
            error = -E2BIG;
        } else if (key_read(json_array_get(list, i), &fresh.keys[fresh.count])) {
            fresh.count++;
        }
    }
    json_decref(document);
    if (!error && fresh.count == 0) {
        *why = "no key of the set is for verifying signatures";
        error = -ENODATA;
    }
    if (error)
        jwks_free(&fresh);
    else
        *out = fresh;
    return error;
}

/* Is that very key in the set? One that has another number under the same name is another one. */
static bool set_has(const struct jwks *keys, const struct jwks_key *key)
{
    char *text = cjose_jwk_to_json(key->jwk, false, NULL);
    bool found = false;
    for (unsigned i = 0; text && !found && i < keys->count; i++) {
        char *other = cjose_jwk_to_json(keys->keys[i].jwk, false, NULL);
        found = other && strcmp(text, other) == 0;
        cjose_get_dealloc()(other);
    }
    cjose_get_dealloc()(text);
    return found;
}

void jwks_carry_over(struct jwks *fresh, struct jwks *old, int64_t now_s, int64_t grace_s)
{
    unsigned provided = fresh->count;
    struct jwks those = *fresh;
    those.count = provided;
    for (unsigned i = 0; i < old->count; i++) {
        struct jwks_key *key = &old->keys[i];
        int64_t until_s = key->until_s ? key->until_s : now_s + grace_s;
        if (until_s <= now_s || fresh->count == JWKS_KEYS_MAX || set_has(&those, key))
            continue;
        fresh->keys[fresh->count] = *key;
        fresh->keys[fresh->count++].until_s = until_s;
        key->jwk = NULL;
    }
    jwks_free(old);
}

const struct jwks_key *jwks_find(const struct jwks *keys, const char *kid,
                                 enum jwks_algorithm algorithm, int64_t now_s)
{
    const struct jwks_key *found = NULL;
    for (unsigned i = 0; i < keys->count; i++) {
        const struct jwks_key *key = &keys->keys[i];
        if (!(key->algorithms & 1u << algorithm) || (key->until_s && key->until_s <= now_s))
            continue;
        if (kid && strcmp(kid, key->kid) == 0)
            return key;
        if (!kid && found)
            return NULL;
        found = kid ? NULL : key;
    }
    return found;
}

void jwks_free(struct jwks *keys)
{
    for (unsigned i = 0; i < keys->count; i++)
        if (keys->keys[i].jwk)
            cjose_jwk_release(keys->keys[i].jwk);
    keys->count = 0;
}
