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
 * the model's max_batch tiles, or fewer if the worker likes fewer. That way it has its next batch
 * at hand when it finishes, and nothing more is stuck behind it than it runs at once;
 *  - a job may be held back for others of its shape, never longer than its model's window, counted
 * from the acceptance of the oldest of them, and not when they fill a batch, nor when the window
 * would use up one's deadline. By the rule `always`: held from the start to the end of the window,
 * and then they go to one worker. Else only by the last idle worker, and only for bodies that are
 * coming in and will be whole within the window if they go on as they do: nobody waits for somebody
 * who is not in sight, nor while another worker is idle for whoever comes;
 *  - jobs that are held keep no worker from jobs of other shapes;
 *  - a job on which a worker has died runs alone, so nothing is leased together with it;
 *  - what waits at a worker that runs something is taken back for a worker that has nothing in
 * hand, when no job in READY is there for it: in the same order, by the same rules for batches,
 * spread over all who are idle. Not from a worker that runs nothing, since it is about to run it,
 * nor from one that has begun something within HANDOVER_PATIENCE_NS (handover.h). As many workers
 * stay idle as there are shapes held for them;
 *  - a job whose deadline has passed is left to its gateway, which frees it.
 */
#ifndef PLACEMENT_H
#define PLACEMENT_H

#include "unetserve/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How much later than expected a body may be whole. */
#define PLACEMENT_GRACE_NS UINT64_C(1000000)

/* What a job that was held needs to reach its worker before its deadline. */
#define PLACEMENT_MARGIN_NS UINT64_C(5000000)

/* A job in READY, or one in LEASED that could be taken back. */
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
    bool settled;         /* by placement_decide: leased, or held */
    bool held;            /* by placement_decide: the first of a shape that is held */
    uint16_t holder;      /* in LEASED: its worker's place among the scene's */
    struct unetserve_shape shape;
};

/* A body that is coming in. */
struct placement_upload {
    uint32_t model;
    uint32_t generation;
    uint64_t shape_key; /* queue_shape_key; 0: not known yet, so it may be any */
    uint64_t ends_ns;   /* when it will be whole, by its speed so far */
};

/* How a model's jobs are put together. */
struct placement_rule {
    uint32_t max_batch; /* tiles; 0 counts as 1 */
    bool always;        /* jobs are held even when nobody is in sight */
    uint64_t window_ns; /* 0: no job is held */
};

/* A worker process and what the slot table says about it. */
struct placement_worker {
    uint16_t index; /* in the process table */
    uint32_t model;
    uint32_t generation;
    bool usable;            /* live and ready, neither draining nor condemned */
    uint32_t max_batch;     /* tiles that it likes to run together; 0: as the model's rule says */
    uint32_t running_tiles; /* in RUN and STREAM */
    uint64_t begun_ns;      /* when the last of these was; meaningless when there are none */
    uint32_t leased_jobs;   /* in LEASED */
    uint32_t leased_tiles;
    bool leased_alone; /* one of them runs alone */
    bool spare;        /* by placement_take_back: idle, and nobody is held for it */
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

/* What a decision is made of. */
struct placement_scene {
    struct placement_job *jobs; /* sorted and marked by the decision */
    size_t job_count;
    struct placement_worker *workers; /* updated as jobs are handed out */
    size_t worker_count;
    struct placement_job *leased; /* for placement_take_back, which sorts them */
    size_t leased_count;
    const struct placement_upload
        *uploads; /* in any order; those that are late count for nothing */
    size_t upload_count;
    const struct placement_rule *rules; /* for each model number that occurs */
    uint64_t now_ns;
};

/* Decide. leases has room for job_count entries. Returns the number of leases. *look_ns: when to
 * decide again for the sake of those that are held, although nothing else happens; 0: none is. */
size_t placement_decide(const struct placement_scene *scene, struct placement_lease *leases,
                        uint64_t *look_ns);

/* Then, on the same scene: which jobs are taken back from a worker that is busy, and to which idle
 * one each goes. moves has room for leased_count entries; `word` in them is that of LEASED. Returns
 * the number of moves. */
size_t placement_take_back(const struct placement_scene *scene, struct placement_lease *moves);

#endif
