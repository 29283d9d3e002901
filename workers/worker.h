/*
 * A worker process's one model instance and its place in the queue. Everything here belongs to the
 * one thread that runs jobs.
 */
#ifndef WORKER_H
#define WORKER_H

#include "unetserve/model.h"
#include "unetserve/seat.h"
#include "workers/job.h"

#include <stdbool.h>

#define WORKER_MAX_JOBS 64 /* in RUN at once, and leases looked at in one go */

struct sd_event;
struct watch;

struct worker {
    struct seat *seat;
    uint32_t model;      /* number in the model table */
    uint32_t generation; /* of that model: jobs pinned to another one are not this worker's */
    const struct unetserve_model_ops *ops;
    void *instance;
    struct unetserve_interface interface;
    struct unetserve_host host;       /* opaque: this struct */
    struct job jobs[WORKER_MAX_JOBS]; /* those that are held */
    int completed_fd; /* an eventfd: some item was completed; -1: there is none, the rescan finds it
                       */
    int retire_fd;    /* readable: as SIGTERM; -1: the loop waits for that signal */
    uint64_t flights; /* batches put on the device, in all */
    uint64_t busy_from_ns;  /* the device works, and since then it is not counted; 0: it does not */
    struct watch *watches;  /* workers/watch.h */
    struct sd_event *event; /* the loop, once it runs */
    uint32_t loss;          /* why, as far as the model says: enum unetserve_loss */
    bool device_lost;       /* predict returned -EIO: leave, and let the jobs run elsewhere */
    bool orphaned;          /* the supervisor is gone, and perhaps the broker: nobody replaces it */
};

/* Fill in seat, model number, generation and what models may call back. The instance comes later.
 */
void worker_init(struct worker *worker, struct seat *seat, uint32_t model, uint32_t generation);

/* How many jobs the model keeps to answer later. */
unsigned worker_pending(const struct worker *worker);

/* The name that jobs and logs know the model by. */
const char *worker_model_name(const struct worker *worker);

#endif
