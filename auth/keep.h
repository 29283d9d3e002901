/*
 * The last good set of keys, as it was fetched, for the process that takes this one's seat: in
 * memory that the supervisor makes and that auth alone is given. It is no more than a hint: what is
 * read from it is checked as if it had just been fetched, and is as old as it was.
 *
 * There are two places; a set is written into the one that does not count, and then that one
 * counts. Who is killed in the middle leaves the set before.
 */
#ifndef AUTH_KEEP_H
#define AUTH_KEEP_H

#include "auth/jwks.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct keep_set {
    uint64_t mark;       /* config_oauth_mark: by which configuration it was fetched */
    uint64_t fetched_ns; /* CLOCK_MONOTONIC; 0: there is none */
    uint32_t size;
    char text[JWKS_BYTES_MAX];
};

struct keep_area {
    _Atomic uint32_t version; /* sets[version & 1] counts */
    struct keep_set sets[2];
};

/* Map that memory. NULL where there is none, or too little: then nothing is kept. */
struct keep_area *keep_open(int fd);

/* area may be NULL, here and below. */
void keep_close(struct keep_area *area);

/* What does not fit is not kept; what was there is. */
void keep_store(struct keep_area *area, uint64_t mark, const char *text, size_t size,
                uint64_t fetched_ns);

/* The keys that were fetched under that mark. 0 with *keys and when that was; -ENODATA: none,
 * -EBADMSG: what lies there is no set of keys. */
int keep_read(const struct keep_area *area, uint64_t mark, uint64_t now_ns, struct jwks *keys,
              uint64_t *fetched_ns);

#endif
