/*
 * What a request's header fields ask for, as pure functions of their text (NULL: the field is
 * absent).
 */
#ifndef GATEWAY_NEGOTIATE_H
#define GATEWAY_NEGOTIATE_H

#include "gateway/jobs.h"

#define NEGOTIATE_TIMEOUT_MAX_MS (24u * 3600 * 1000)

/* How a body is to be read. 0 with *format, or -1 with *problem (415, listing what is taken). */
int negotiate_format(const struct unetserve_interface *interface, const char *content_type,
                     enum body_format *format, struct problem *problem);

/* The answer's form by Accept: highest q first, then the more specific range, then the one named
 * first. Models that answer with documents of their own have one form, and Accept is not asked;
 * streaming models have two, and what fits neither gets lines. 0
 * with *form, or -1 with *problem (406). */
int negotiate_form(const struct unetserve_interface *interface, const char *accept,
                   enum job_form *form, struct problem *problem);

/* X-Unetserve-Timeout-Ms: 1 to 86400000. 0 with *timeout_ms (0 if absent), or -1 with *problem
 * (400). */
int negotiate_timeout(const char *text, uint64_t *timeout_ms, struct problem *problem);

/* X-Unetserve-Priority: -9 to 9. 0 with *priority (0 if absent), or -1 with *problem: 400, or 403
 * for more than most. */
int negotiate_priority(const char *text, int32_t most, int32_t *priority, struct problem *problem);

/* The client's X-Request-Id if it is 1 to 63 letters, digits or ._-:/+=@~, else a random one of 32
 * hexadecimal digits. */
void negotiate_request_id(const char *given, char id[64]);

#endif
