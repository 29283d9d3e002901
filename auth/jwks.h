/*
 * A set of public keys as an identity provider publishes it (RFC 7517), and what of it may verify
 * what. Of a key only what its type, its curve, its `alg`, `use` and `key_ops` agree to can be
 * used. Symmetric and private keys are never taken, whatever they are said to be for: with them a
 * public key that is sent as a secret (HS256 under an RSA key) finds nothing to be checked with.
 */
#ifndef AUTH_JWKS_H
#define AUTH_JWKS_H

#include <cjose/jwk.h>
#include <stddef.h>
#include <stdint.h>

#define JWKS_BYTES_MAX (256 << 10)
#define JWKS_KEYS_MAX  64
#define JWKS_KID_MAX   256

/* Algorithms that can be configured: name, key type, curve ("" for RSA), bytes of a signature (0:
 * as many as the modulus). */
#define JWKS_ALGORITHMS(X)                                                                         \
    X(RS256, "RSA", "", 0)                                                                         \
    X(RS384, "RSA", "", 0)                                                                         \
    X(RS512, "RSA", "", 0)                                                                         \
    X(PS256, "RSA", "", 0)                                                                         \
    X(PS384, "RSA", "", 0)                                                                         \
    X(PS512, "RSA", "", 0)                                                                         \
    X(ES256, "EC", "P-256", 64)                                                                    \
    X(ES384, "EC", "P-384", 96)                                                                    \
    X(ES512, "EC", "P-521", 132)

enum jwks_algorithm {
#define JWKS_ENUM(name, type, curve, size) JWKS_##name,
    JWKS_ALGORITHMS(JWKS_ENUM) JWKS_ALGORITHM_COUNT
#undef JWKS_ENUM
};

struct jwks_key {
    char kid[JWKS_KID_MAX]; /* "": it has none */
    uint32_t algorithms;    /* bits, by enum jwks_algorithm */
    size_t rsa_bytes;       /* of the modulus, and so of every signature; 0: no RSA key */
    int64_t until_s; /* it is gone from the provider's set: used until then; 0: it is there */
    cjose_jwk_t *jwk;
};

struct jwks {
    unsigned count;
    struct jwks_key keys[JWKS_KEYS_MAX];
};

/* The algorithm of that name, or -1. */
int jwks_algorithm_find(const char *name);

/* How many bytes the key's signatures by that algorithm have, all of them. */
size_t jwks_signature_bytes(const struct jwks_key *key, enum jwks_algorithm algorithm);

/* "RS256, ES256" as bits; 0: a word in it is no algorithm, or there is none. */
uint32_t jwks_algorithms_read(const char *list);

/* Read a set. Keys that are of no use here are passed over. 0 with *out, to be freed; -EBADMSG: it
 * is no set, -ENODATA: no key of it can be used, -E2BIG: it is too large; with *why, a static
 * sentence. */
int jwks_read(const char *text, size_t size, struct jwks *out, const char **why);

/* Keys of `old` that are not in `fresh` are kept there for grace_s more seconds, as far as there is
 * room; those whose time is over are not. `old` is empty afterwards. */
void jwks_carry_over(struct jwks *fresh, struct jwks *old, int64_t now_s, int64_t grace_s);

/* The key for a token: of that kid and algorithm, or where kid is NULL the only one for the
 * algorithm. NULL: there is none. */
const struct jwks_key *jwks_find(const struct jwks *keys, const char *kid,
                                 enum jwks_algorithm algorithm, int64_t now_s);

void jwks_free(struct jwks *keys);

#endif
