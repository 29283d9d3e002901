/*
 * What is decided about a prediction when its head is in and before it holds anything, the same for
 * all fronts: may this client ask now, would the job run in time, and is there a slot to spare for
 * a body that is yet to come?
 */
#ifndef GATEWAY_ADMIT_H
#define GATEWAY_ADMIT_H

#include "gateway/client.h"
#include "gateway/wait.h"

#include "lib/api_key_line.h"

#include "unetserve/problem.h"
#include "unetserve/queue.h"

struct admit {
    const struct queue *queue;
    const struct config *config;
    struct admission_rate rate; /* the usual one */
    struct wait_estimate waits[QUEUE_MAX_MODELS];
};

void admit_init(struct admit *admit, const struct queue *queue, const struct config *config);

/* The configuration has changed. */
void admit_reconfigure(struct admit *admit);

/* Take one of the client's tokens: 0, or -1 with *problem (429, counted). key: what it was let in
 * by, which may have a rate of its own; or NULL. */
int admit_rate(const struct admit *admit, const struct client *client, const struct api_key *key,
               struct problem *problem);

/* What the slots are taken by, at a moment that is not quite one. */
struct admit_load {
    uint32_t receiving;        /* that wait for bodies, of any model and gateway */
    uint32_t waiting, running; /* jobs of the model; waiting: those that come first */
};

/* Before a job of that model and priority. */
void admit_look(const struct admit *admit, uint32_t model, int32_t priority,
                struct admit_load *out);

/* Would a job of that model be started before its time is over? timeout_ms: the client's own, 0:
 * none. 0, or -1 with *problem (503, counted). */
int admit_wait(struct admit *admit, uint32_t model, const struct admit_load *load,
               uint64_t timeout_ms, struct problem *problem);

/* May one more slot wait for a body? Exact but for requests that come to several gateways at once.
 */
bool admit_body(const struct admit *admit, const struct admit_load *load);

#endif
