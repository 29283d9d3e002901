/*
 * Latencies in a log-linear histogram: 512 steps to each doubling, so that what it says of a value
 * is at most 0.2 % too high, from a nanosecond to more than an hour, in memory that does not grow.
 */
#ifndef BENCH_LOAD_HISTOGRAM_H
#define BENCH_LOAD_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEP_BITS 9 /* 512 steps a doubling */
#define HISTOGRAM_TOP_BITS  42
#define HISTOGRAM_MOST      ((INT64_C(1) << HISTOGRAM_TOP_BITS) - 1) /* 73 minutes */
#define HISTOGRAM_BUCKETS   ((HISTOGRAM_TOP_BITS - HISTOGRAM_STEP_BITS + 1) << HISTOGRAM_STEP_BITS)

/* All zero is an empty one. */
struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t count;
    int64_t least, most; /* as recorded, not rounded */
    double sum;
};

/* What lies outside 0 to HISTOGRAM_MOST counts as the nearest of them. */
void histogram_record(struct histogram *histogram, int64_t value);

/* The least value that this part (0 to 1) of all values does not exceed, rounded up to the end of
 * its bucket but never above the largest value. 0 of an empty one. */
int64_t histogram_percentile(const struct histogram *histogram, double part);

double histogram_mean(const struct histogram *histogram);

#endif
