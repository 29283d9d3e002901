/*
 * How often which values occurred in a layer's output, and the range of them that 8 bits are best
 * spent on. A tally has a bin for each bfloat16 (the upper half of a float), in their order, so
 * that it takes values of any size in one pass; bins are 0.8 % wide.
 */
#ifndef TALLY_H
#define TALLY_H

#include "workers/backends/backend.h"

struct tally;

/* Of so many channels. NULL: no memory. Free with free(). */
struct tally *tally_new(size_t channels);

/* Count what a layer of so many channels put out. Values that are no numbers are not counted. */
void tally_add(struct tally *tally, const struct backend_sight *sight);

/* All but the outermost: `percent` of the values are at most high, and as many at least low. */
struct quantise_range tally_percentile(const struct tally *tally, double percent);

/* Of a channel: its range and its mean. Each end lies half way (in their ratio) between what was
 * seen there and the farthest of all channels, and a quarter beyond. A narrow channel gets finer
 * steps by that, but a convolution's weights, into which the steps go, do not become so unequal
 * that their own rounding suffers. */
struct quantise_channel tally_channel(const struct tally *tally, size_t channel);

/* Only the mean is the channel's own, the range is the one given. */
struct quantise_channel tally_mean(const struct tally *tally, size_t channel,
                                   const struct quantise_range *range);

/* The range whose codes are off by least, squared, on average: narrower ones cut off more, wider
 * ones are coarser. */
struct quantise_range tally_least_squares(const struct tally *tally);

#endif
