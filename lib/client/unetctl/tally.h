/*
 * How often which values occurred in a layer's output, and the range of them that 8 bits are best
 * spent on. A tally has a bin for each bfloat16 (the upper half of a float), in their order, so
 * that it takes values of any size in one pass; bins are 0.8 % wide.
 */
#ifndef TALLY_H
#define TALLY_H

#include "workers/backends/quantise.h"

struct tally;

/* NULL: no memory. Free with free(). */
struct tally *tally_new(void);

/* Count pixels of `channels` floats, `pitch` apart. Values that are no numbers are not counted. */
void tally_add(struct tally *tally, const float *data, size_t channels, size_t pitch,
               size_t pixels);

/* All but the outermost: `percent` of the values are at most high, and as many at least low. */
struct quantise_range tally_percentile(const struct tally *tally, double percent);

/* The range whose codes are off by least, squared, on average: narrower ones cut off more, wider
 * ones are coarser. */
struct quantise_range tally_least_squares(const struct tally *tally);

#endif
