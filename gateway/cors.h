/*
 * Cross-origin requests: what answers tell browsers about who else may read them. The keys cors_*
 * of the configuration mean what the options of starlette's CORSMiddleware mean. Off while
 * cors_allow_origins is empty.
 */
#ifndef GATEWAY_CORS_H
#define GATEWAY_CORS_H

#include "unetserve/config.h"
#include "unetserve/problem.h"

#include <stdbool.h>

#define CORS_ORIGIN_MAX  256
#define CORS_HEADERS_MAX 512

/* What one request is granted; all zero: nothing, and so for answers to heads that nobody read. */
struct cors_grant {
    char origin[CORS_ORIGIN_MAX]; /* the request's, if it is allowed; "" if not, or if there is none
                                   */
    bool preflight;
    char headers[CORS_HEADERS_MAX]; /* of a preflight: the request headers that it asks for */
};

/* From here on for all answers of the process. The configuration is kept by reference; NULL: off.
 */
void cors_configure(const struct config *config);

/* Does an OPTIONS request with these header values (NULL: absent) ask on behalf of another, for
 * cross-origin requests at all? */
bool cors_is_preflight(const char *method, const char *origin, const char *asked_method);

/* Fill *grant for any other request. */
void cors_grant(const char *origin, struct cors_grant *grant);

/* The same for a preflight: 0; or -1 with *problem (400, naming what is not allowed), and the
 * origin is granted if that is. asked_headers may be NULL. */
int cors_grant_preflight(const char *origin, const char *asked_method, const char *asked_headers,
                         struct cors_grant *grant, struct problem *problem);

/* The answer's headers but Vary, which has to name Origin if cors_varies. */
typedef void cors_emit(void *out, const char *name, const char *value);
void cors_write(const struct cors_grant *grant, cors_emit *emit, void *out);
bool cors_varies(void);

#endif
