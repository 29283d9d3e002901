/*
 * The short way: a lone job goes from its gateway to an idle worker, READY -> RUN, without the
 * broker. The gateway wakes the worker instead of the broker; the worker looks at the table, as it
 * does whenever it is woken, and takes what is there if it is a lone job. Nothing says whose the
 * job is: the swap of the word decides between workers and the broker.
 *
 * The short way decides nothing that is the broker's to decide. It is open only where the broker
 * would do the same at once: a job that is alone in the line, on which nobody has died, in time, of
 * a model that holds no jobs back for others, and a worker that has nothing in its hands.
 */
#ifndef HANDOVER_H
#define HANDOVER_H

#include "unetserve/queue.h"

/* Does that model never hold a job back for others? */
bool handover_is_open(const struct queue *queue, uint32_t model);

/* Gateway: the idle worker to wake for that job of its own, which it has just moved to READY; 0: it
 * is not alone, or there is none, or its model holds jobs back: the job is the broker's. */
uint16_t handover_find(const struct queue *queue, uint32_t slot);

/* Worker with nothing in its hands: may it take jobs that nobody has given to it? Not when it
 * drains, is condemned or not ready. */
bool handover_may_take(const struct queue *queue, uint16_t self);

#endif
