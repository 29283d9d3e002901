/* Applies what autoscale.h decides: starts and ends the workers above each model's minimum. */
#ifndef SCALER_H
#define SCALER_H

#include "supervisor/autoscale.h"
#include "unetserve/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct server;

/* Of one model. */
struct scaler {
    struct autoscale_state state;
    double start_s;       /* what the last worker took to be ready */
    bool short_of_memory; /* it has been said */
};

/* Workers that a model may have at most: MAX of its range, though for processors no more than there
 * are cores (or MIN). */
uint32_t scaler_most(const struct config_model *model, uint32_t cores);

/* What a process has in memory, in bytes. */
struct scaler_footprint {
    uint64_t own, shared;
    bool is_alike; /* a worker of the model that is to have one more */
};

/* Would one more worker, as large as the largest of those there are, stay within what is allowed?
 * What is shared (the queue, packed weights) counts once. */
bool scaler_memory_fits(const struct scaler_footprint *processes, size_t count, uint64_t allowed);

/* Look at every model and do what follows, once. For the loop, every AUTOSCALE_TICK_MS while the
 * server runs and does not reload. */
void scaler_look(struct server *server);

/* Does any model have a range? */
bool scaler_needed(const struct server *server);

#endif
