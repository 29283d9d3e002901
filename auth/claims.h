/*
 * What is said of a token's holder, by the token itself or by the provider that was asked
 * (RFC 7519, RFC 7662), and whether it is good enough here. Pure.
 */
#ifndef AUTH_CLAIMS_H
#define AUTH_CLAIMS_H

#include "lib/auth_wire.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct claims_rules {
    const char *issuer;    /* "": any, or none */
    const char *audiences; /* one of these words; "": any, or none */
    int64_t leeway_s;      /* for clocks that differ */
    int64_t cache_s;       /* how long the answer may be believed */
    bool must_expire;      /* and have a subject and an issuer: a token that speaks for itself */
};

/* A fresh answer that refuses, with that sentence; it may be believed for a moment. */
void claims_refuse(struct auth_answer *answer, int64_t now_s, const char *reason);

/* Fill in the answer (but its id) as the claims are. They come from a document without duplicate
 * names; any kind of value may stand anywhere. */
void claims_check(const json_t *claims, const struct claims_rules *rules, int64_t now_s,
                  struct auth_answer *answer);

#endif
