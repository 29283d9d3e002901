/*
 * Whom to ask, and what. Only this machine's own loopback addresses: a load generator that could be
 * pointed at somebody else's server would be a weapon.
 */
#ifndef BENCH_LOAD_TARGET_H
#define BENCH_LOAD_TARGET_H

#include "answer.h"

#include <netinet/in.h>

#define TARGET_PATH_MAX 256

struct target {
    struct sockaddr_storage address;
    socklen_t address_size;
    char host[64]; /* as the Host field says it */
    char path[TARGET_PATH_MAX];
};

/* http://ADDRESS:PORT/PATH, the address numeric (or localhost) and on loopback. 0; -EINVAL: not
 * such an URL; -EACCES: not a loopback address. */
int target_parse(const char *url, struct target *out);

/* A whole request, and what its answer must be. */
struct target_request {
    char *bytes;
    size_t size;
    struct answer_expected expected;
};

/* POST with a body, GET without one (body NULL). fields: each a line "Name: value". 0 with bytes
 * that the caller frees; -EINVAL: a field that is none, or has a line break in it; -ENOMEM. */
int target_request_make(const struct target *target, const char *const *fields, size_t field_count,
                        const void *body, size_t body_size, struct target_request *out);

#endif
