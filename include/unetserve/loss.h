/*
 * Why a worker has lost its device (model.h: enum unetserve_loss), as its exit status tells the
 * supervisor and as logs and metrics name it; and for how long such a device is left alone at
 * first.
 */
#ifndef LOSS_H
#define LOSS_H

#include "unetserve/model.h"

/* reason, exit status, name, milliseconds. The statuses behind sysexits.h's are ours. */
#define LOSSES(X)                                                                                  \
    X(OTHER, 74, "other", 1000)                                                                    \
    X(ECC, 80, "ecc", 10000)                                                                       \
    X(GONE, 81, "gone", 30000)                                                                     \
    X(MEMORY, 82, "memory", 1000)                                                                  \
    X(FAULT, 83, "fault", 1000)

#define LOSS_NONE (-1)

/* All of these take any number: what is no reason counts as OTHER. */
int loss_status(uint32_t why);
const char *loss_name(uint32_t why);
uint32_t loss_rest_ms(uint32_t why);

/* The reason that a worker's exit status tells, or LOSS_NONE. */
int loss_of_status(int status);

#endif
