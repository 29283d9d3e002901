/*
 * A worker process's one model instance and its place in the queue. Everything here belongs to the
 * one thread that runs jobs.
 */
#ifndef WORKER_H
#define WORKER_H

#include "unetserve/model.h"
#include "unetserve/seat.h"

#include <stdbool.h>

struct worker {
    struct seat *seat;
    uint32_t model;      /* number in the model table */
    uint32_t generation; /* of that model: jobs pinned to another one are not this worker's */
    const struct unetserve_model_ops *ops;
    void *instance;
    struct unetserve_interface interface;
    struct unetserve_host host; /* opaque: this struct */
    bool device_lost;           /* predict returned -EIO: leave, and let the jobs run elsewhere */
};

/* Fill in seat, model number, generation and what models may call back. The instance comes later.
 */
void worker_init(struct worker *worker, struct seat *seat, uint32_t model, uint32_t generation);

/* The name that jobs and logs know the model by. */
const char *worker_model_name(const struct worker *worker);

#endif
