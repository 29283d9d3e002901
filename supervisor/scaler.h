/* Applies what autoscale.h decides: starts and ends the workers above each model's minimum. */
#ifndef SCALER_H
#define SCALER_H

#include "supervisor/autoscale.h"
#include "unetserve/config.h"

#include <stdbool.h>
#include <stdint.h>

struct server;

/* Of one model. */
struct scaler {
    struct autoscale_state state;
    bool short_of_memory; /* it has been said */
};

/* Workers that a model may have at most: MAX of its range, though for processors no more than there
 * are cores (or MIN). */
uint32_t scaler_most(const struct config_model *model, uint32_t cores);

/* Look at every model and do what follows, once. For the loop, every AUTOSCALE_TICK_MS while the
 * server runs and does not reload. */
void scaler_look(struct server *server);

/* Does any model have a range? */
bool scaler_needed(const struct server *server);

#endif
