/*
 * When requests are due in an open loop: at even distances, or as strangers come, with
 * exponentially distributed gaps (Poisson). A pure function of the rate and the seed: no answer
 * moves it, which is what avoids coordinated omission.
 */
#ifndef BENCH_LOAD_ARRIVALS_H
#define BENCH_LOAD_ARRIVALS_H

#include <stdbool.h>
#include <stdint.h>

struct arrivals {
    double gap_ns; /* on average */
    bool poisson;
    uint64_t random;
    double next_ns; /* after the start */
};

/* per_second > 0. The first one is due at 0 where they come evenly, else after the first gap. */
void arrivals_begin(struct arrivals *arrivals, double per_second, bool poisson, uint64_t seed);

/* When the next one is due, nanoseconds after the start. */
int64_t arrivals_due_ns(const struct arrivals *arrivals);

/* That one has been taken. */
void arrivals_advance(struct arrivals *arrivals);

#endif
