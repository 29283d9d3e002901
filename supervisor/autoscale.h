/*
 * How many workers a model should have now. Pure: no clock, no process, no table. The supervisor
 * (scaler.c) and the simulator (tests/unit/test_autoscale.c) call the same function.
 *
 * The law, at every call:
 *
 *     free   = present - held
 *     excess = max(0, waiting x service - free x target / 2)
 *     wanted = held + round(rate x service + margin + excess / (target / 2))
 *
 * within the limits. A worker is held while its run lasts longer than a request may wait, and than
 * three times what a request has taken lately: what the law knows of service comes from requests
 * that have ended, and says nothing of such a run, nor of when that worker will be there again. It
 * is left out of reckoning, neither counted on nor given up. Beside such workers one is wanted at
 * least, if somebody comes within the target or has waited for half of it.
 *
 * The first term keeps up with what arrives, just so: a queue that takes half of
 * the target to work off is no reason for more workers. The last takes away what is more than
 * that in half of the target. It rises at once. It falls to the largest value that the law has
 * given within the last hold-down, so that a worker is given up only when it was not needed for
 * that long.
 *
 * Where a worker takes long to start, a queue that could be answered in time by starting one is
 * late by then. So what arrives is rounded up instead (the margin grows from nothing at a start of
 * 0.3 s to half a worker at 1 s), and what is there is kept for at least 1.25 starts. A jump of the
 * load that needs workers which nobody could know of stays late for as long as they start.
 */
#ifndef AUTOSCALE_H
#define AUTOSCALE_H

#include <stdint.h>

#define AUTOSCALE_TICK_MS 100 /* how often it is meant to be called */
#define AUTOSCALE_HOLD    32  /* parts of the hold-down that are remembered */

struct autoscale_limits {
    uint32_t least, most; /* workers; least <= most */
    double target_s;      /* how long a request may wait for a worker */
    double hold_s;        /* how long a worker is kept after it was last needed */
    double start_s;       /* what a worker takes to be ready; 0: not known */
};

/* What is seen at one moment. */
struct autoscale_metrics {
    uint64_t arrivals; /* requests since the start, those refused for want of a slot or of time
                          included, those over a client's rate not */
    uint64_t busy_ns;  /* time that workers have spent on requests, since the start */
    uint64_t served;   /* requests that workers have finished, since the start */
    uint32_t waiting;  /* accepted requests that no worker has started */
    uint32_t present;  /* workers that are ready or starting, draining ones not */
    double waited_s;   /* how long the oldest of those that wait has waited */
    /* Of each of those present that runs requests: how long its latest run has lasted by now, for
     * each of the requests that it holds. */
    const double *runs;
    uint32_t run_count;
};

/* One for each model; all zero at the start. */
struct autoscale_state {
    double now_s;     /* of the last call */
    double rate;      /* requests a second */
    double service_s; /* of a worker for one request; 0: not known yet */
    struct autoscale_metrics last;
    uint64_t part; /* number of the part of the hold-down that now_s lies in */
    uint32_t held[AUTOSCALE_HOLD];
    uint32_t asked; /* what the law alone said */
};

/* now_s: any clock that does not go back. The counts in metrics may fall for a moment; they then
 * count for nothing until they have risen again. Returns the number of workers that the model
 * should have. */
uint32_t autoscale_decide(const struct autoscale_metrics *metrics,
                          const struct autoscale_limits *limits, double now_s,
                          struct autoscale_state *state);

#endif
