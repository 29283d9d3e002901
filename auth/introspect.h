/*
 * Asking the provider about a token (RFC 7662): what is sent, and what its answer means. The
 * request itself is auth/fetch.h's.
 */
#ifndef AUTH_INTROSPECT_H
#define AUTH_INTROSPECT_H

#include "auth/claims.h"
#include "auth/fetch.h"

#define INTROSPECT_BYTES_MAX (64 << 10)
#define INTROSPECT_FORM_MAX  (3 * AUTH_TOKEN_MAX + 64)

/* The form to post, whatever bytes the token has. form has INTROSPECT_FORM_MAX bytes. */
void introspect_form(const char *token, size_t size, char *form);

/* Fill in the answer (but its id) as the provider's is. Anything but a whole 200 with
 * {"active": true or false, ...} says nothing about the token: AUTH_UNAVAILABLE. */
void introspect_read(const struct fetch_result *result, const struct claims_rules *rules,
                     int64_t now_s, struct auth_answer *answer);

#endif
