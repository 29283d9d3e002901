/*
 * Which waiting job goes to which worker: a pure function over a snapshot of the slot table, so
 * that tests and simulators can call it without a queue. broker/survey.c makes the snapshot and
 * carries the leases out.
 *
 * The policy:
 *  - the highest priority first, among equals the job accepted first;
 *  - a job goes to the worker of its model and generation that has the least on its hands (running
 * and leased tiles), so an idle one always comes before a busy one, and a burst spreads over idle
 * workers before it is batched;
 *  - besides what it runs, a worker holds at most one batch that waits: jobs of equal shape, up to
 * the model's max_batch tiles. That way it has its next batch at hand when it finishes, and nothing
 * more is stuck behind it than it runs at once;
 *  - a job on which a worker has died runs alone, so nothing is leased together with it;
 *  - a job whose deadline has passed is left to its gateway, which frees it.
 */
#ifndef PLACEMENT_H
#define PLACEMENT_H

#include "unetserve/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A job in READY. */
struct placement_job {
    uint32_t slot;
    uint64_t word; /* handed through to the lease */
    uint32_t model;
    uint32_t generation; /* of the model */
    int32_t priority;
    uint64_t accepted_ns;
    uint64_t deadline_ns; /* 0: none */
    uint32_t tiles;       /* at least 1 */
    bool alone;           /* somebody has died on it */
    struct unetserve_shape shape;
};

/* A worker process and what the slot table says about it. */
struct placement_worker {
    uint16_t index; /* in the process table */
    uint32_t model;
    uint32_t generation;
    bool usable;            /* live and ready, neither draining nor condemned */
    uint32_t running_tiles; /* in RUN and STREAM */
    uint32_t leased_jobs;   /* in LEASED */
    uint32_t leased_tiles;
    bool leased_alone;                   /* one of them runs alone */
    struct unetserve_shape leased_shape; /* of all of them; meaningless when leased_jobs is 0 */
};

struct placement_lease {
    uint32_t slot;
    uint64_t word;
    uint16_t worker; /* index in the process table */
};

/* Add a job to what a worker holds in LEASED. Also used while a snapshot is made. */
void placement_add_lease(struct placement_worker *worker, const struct unetserve_shape *shape,
                         uint32_t tiles, bool alone);

/* Tiles that a job of this shape counts for: N of N x C x H x W, else 1. */
uint32_t placement_tiles(const struct unetserve_shape *shape);

/* Decide. Sorts jobs and updates workers as it hands out. max_batch: tiles, for each model number
 * that occurs (0 counts as 1). leases has room for job_count entries. Returns the number of leases.
 */
size_t placement_decide(struct placement_job *jobs, size_t job_count,
                        struct placement_worker *workers, size_t worker_count,
                        const uint32_t *max_batch, uint64_t now_ns, struct placement_lease *leases);

#endif
