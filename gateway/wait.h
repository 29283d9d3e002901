/*
 * How long would a job that came now wait for a worker? A pure estimate from what the workers of
 * its model did lately and from what is before it in the queue.
 *
 * It refuses work, so it must not be able to talk itself into refusing for ever:
 *
 * - No prediction (0) without data, without a ready worker, and where a worker has nothing to do.
 *   So the first jobs of a cold server, and any job that finds an idle worker, are let in however
 *   slow the last ones were, and what they take is the next data.
 * - Data that is old counts no more (WAIT_KEEP_NS, or as long as a few jobs take).
 * - It tells the time until a job starts, not until it ends.
 */
#ifndef GATEWAY_WAIT_H
#define GATEWAY_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#define WAIT_SAMPLE_NS UINT64_C(100000000)   /* not more often than that is it worth sampling */
#define WAIT_HALF_NS   UINT64_C(2000000000)  /* half of what counts is younger than that */
#define WAIT_KEEP_NS   UINT64_C(10000000000) /* older than that it does not count */

/* What a model's workers have done since they were started, all together. Falls when one ends. */
struct wait_work {
    uint64_t jobs;
    uint64_t busy_ns;
};

struct wait_estimate {
    bool begun;
    struct wait_work seen; /* at seen_ns */
    uint64_t seen_ns, looked_ns, measured_ns;
    uint64_t service_ns; /* of a worker's time, for one job (a batch's is shared); 0: not known */
};

/* Is it time to look again? */
bool wait_due(const struct wait_estimate *estimate, uint64_t now_ns);

/* Take in what the workers have done until now. */
void wait_observe(struct wait_estimate *estimate, const struct wait_work *work, uint64_t now_ns);

struct wait_queue {
    uint32_t waiting; /* jobs that are accepted and not started */
    uint32_t running;
    uint32_t workers; /* that are ready */
};

/* Nanoseconds; 0: none, or nothing is known. */
uint64_t wait_predict(const struct wait_estimate *estimate, const struct wait_queue *queue,
                      uint64_t now_ns);

#endif
