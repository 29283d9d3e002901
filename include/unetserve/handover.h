/*
 * The short way: a job goes from its gateway to a worker, READY -> RUN, without the broker. The
 * gateway wakes the worker instead of the broker; the worker looks at the table, as it does
 * whenever it is woken, and takes what is there if it may. Nothing says whose the job is: the swap
 * of the word decides between workers and the broker.
 *
 * The short way decides nothing that is the broker's to decide. It is open only for jobs on which
 * nobody has died, in time, of a model that holds no jobs back for others, and only
 *  - to the only worker that the model has: there is no other to choose, and it takes the jobs in
 *    the broker's own order, as many as fit one batch;
 *  - where there are several, for a job that is alone in the line, and a worker that has nothing in
 *    its hands: the broker would lease it to such a one at once.
 */
#ifndef HANDOVER_H
#define HANDOVER_H

#include "unetserve/queue.h"

/* Does that model never hold a job back for others? */
bool handover_is_open(const struct queue *queue, uint32_t model);

/* Gateway: the worker to wake for that job of its own, which it has just moved to READY: the only
 * one, or an idle one if the job is alone. 0: neither is there, or its model holds jobs back: the
 * job is the broker's. */
uint16_t handover_find(const struct queue *queue, uint32_t slot);

/* Worker: may it take jobs that nobody has given to it? Not when it drains, is condemned or not
 * ready. */
bool handover_may_take(const struct queue *queue, uint16_t self);

/* Is that worker, and no other, there for its model's jobs of its generation? */
bool handover_is_only(const struct queue *queue, uint16_t self);

/* So long a worker has begun nothing when the broker takes back what waits at it, for an idle one:
 * where jobs are short it is through with them sooner than another worker is awake. */
#define HANDOVER_PATIENCE_NS UINT64_C(1000000)

/* When a worker that has last begun something at that time may lose what waits at it. 0, or a time
 * that is yet to come: it has begun just now, and not said when. */
static inline uint64_t handover_patient_until(uint64_t begun_ns, uint64_t now_ns)
{
    return (begun_ns && begun_ns <= now_ns ? begun_ns : now_ns) + HANDOVER_PATIENCE_NS;
}

/* Worker that has nothing in hand: a job of its model and generation waits at another one, which
 * runs something. When the broker may take it back, by CLOCK_MONOTONIC; 0: there is none. */
uint64_t handover_find_stuck(const struct queue *queue, uint16_t self, uint64_t now_ns);

#endif
