/* A set of keys: refused with a sentence, or every key of it is for something, and is found. */
#include "auth/jwks.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct jwks keys;
    struct jwks none = {.count = 0};
    const char *why = NULL;
    int error = jwks_read((const char *)data, size, &keys, &why);
    check(!error == !why);
    if (error)
        return 0;
    check(keys.count > 0 && keys.count <= JWKS_KEYS_MAX);
    for (unsigned i = 0; i < keys.count; i++) {
        const struct jwks_key *key = &keys.keys[i];
        check(key->algorithms && key->algorithms < 1u << JWKS_ALGORITHM_COUNT && key->jwk);
        enum jwks_algorithm first = (enum jwks_algorithm)__builtin_ctz(key->algorithms);
        check(jwks_signature_bytes(key, first) >= 64);
        check(!key->kid[0] || jwks_find(&keys, key->kid, first, 0));
    }
    jwks_carry_over(&none, &keys, 0, 60);
    check(none.count > 0 && keys.count == 0);
    jwks_free(&none);
    return 0;
}
