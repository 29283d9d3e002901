/*
 * A signed token (JWS in compact form, RFC 7515 and 7519) against a set of keys. The algorithm is
 * one that was configured and that the key is for; the header says which of these, and nothing
 * else: keys that a token brings along (jwk, jku, x5c, x5u) are not looked at, and one with `crit`
 * is refused. Claims are read after the signature was found right.
 */
#ifndef AUTH_JWT_H
#define AUTH_JWT_H

#include "auth/claims.h"
#include "auth/jwks.h"

#include <stdbool.h>
#include <stddef.h>

enum jwt_result {
    JWT_KNOWN,       /* the answer says what it is worth */
    JWT_UNKNOWN_KEY, /* it may be signed by a newer key than those; the answer refuses it */
};

struct jwt_rules {
    struct claims_rules claims;
    uint32_t algorithms; /* bits, by enum jwks_algorithm */
};

/* Has it the form of a signed token: three parts, of which the first can be JSON? */
bool jwt_is_one(const char *token, size_t size);

/* token need not be terminated; size is at most AUTH_TOKEN_MAX. Everything but the answer's id is
 * filled in. */
enum jwt_result jwt_check(const char *token, size_t size, const struct jwks *keys,
                          const struct jwt_rules *rules, int64_t now_s, struct auth_answer *answer);

#endif
