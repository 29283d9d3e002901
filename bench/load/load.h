/*
 * Asks one server the same questions again and again over connections that stay open, and counts
 * what came back. One thread, one epoll.
 *
 * Closed loop (per_second 0): each connection asks as soon as it was answered. Latency counts from
 * then. Open loop: requests are due at times that no answer moves. One that finds no free
 * connection waits for one, and its latency counts from when it was due: a server that stalls is
 * charged for all who came meanwhile.
 */
#ifndef BENCH_LOAD_LOAD_H
#define BENCH_LOAD_LOAD_H

#include "histogram.h"
#include "target.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOAD_CLIENTS_MAX  20000
#define LOAD_REQUESTS_MAX 16

struct load_settings {
    const struct target *target;
    const struct target_request *requests; /* asked in turns */
    uint32_t request_count;                /* 1 to LOAD_REQUESTS_MAX */
    uint32_t clients;                      /* connections, 1 to LOAD_CLIENTS_MAX */
    double per_second;                     /* 0: closed loop */
    bool poisson;
    uint64_t seed;
    uint64_t count;   /* requests at most */
    double seconds;   /* no new ones after that */
    double timeout_s; /* how long to wait for answers after that */
};

struct load_result {
    uint64_t sent;             /* requests begun; in an open loop all that were due */
    uint64_t answers;          /* whole ones */
    uint64_t right;            /* 200 with the expected body */
    uint64_t wrong;            /* 200 with another body */
    uint64_t malformed;        /* not an HTTP/1.1 answer with a length */
    uint64_t broken;           /* the connection ended first */
    uint64_t unanswered;       /* given up; each is in the histogram with what it had waited */
    uint64_t in_time;          /* right ones that came before the end */
    int64_t first_ns, last_ns; /* when the first and the last of these came; since the start */
    uint64_t reconnects;
    uint64_t statuses[600]; /* of all answers */
    uint64_t bytes_in, bytes_out;
    double seconds; /* from the start to the end: the time that was asked for, or the last answer */
    double connect_s;            /* for opening all connections, before the start */
    double cpu_seconds;          /* of this process since the start */
    struct histogram latency_ns; /* of whole answers and of what was given up */
};

/* 0 with the result in *out, which may be all zero or partly filled before; else a negative errno
 * and a sentence: no memory, too few descriptors, a server that does not take the connections. A
 * server that goes away under way is no error: see broken and unanswered. Blocks until the end,
 * which is bounded. */
int load_run(const struct load_settings *settings, struct load_result *out, char *reason,
             size_t reason_size);

#endif
