/*
 * What is decided about a prediction when its head is in and before it holds anything, the same for
 * all fronts: may this client ask now?
 */
#ifndef GATEWAY_ADMIT_H
#define GATEWAY_ADMIT_H

#include "gateway/client.h"

#include "unetserve/problem.h"
#include "unetserve/queue.h"

struct admit {
    const struct queue *queue;
    const struct config *config;
    struct admission_rate rate;
};

void admit_init(struct admit *admit, const struct queue *queue, const struct config *config);

/* Take one of the client's tokens: 0, or -1 with *problem (429, counted). */
int admit_rate(const struct admit *admit, const struct client *client, struct problem *problem);

#endif
