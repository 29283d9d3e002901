/*
 * base64url as JOSE has it (RFC 7515): no padding, no other letters, no length that cannot be. What
 * does not fit must not get to cjose, which stops the process over some of it (0.6.2, over padding
 * in the middle).
 */
#ifndef AUTH_BASE64URL_H
#define AUTH_BASE64URL_H

#include <stdbool.h>
#include <stddef.h>

/* Is it that, and not empty? */
bool base64url_fits(const char *text, size_t size);

#endif
