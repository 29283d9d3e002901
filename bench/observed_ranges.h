/* Ranges for precision int8 as a network's layers have them on one batch of tiles, from the lowest
 * to the highest: for measuring, where only the time counts. */
#ifndef OBSERVED_RANGES_H
#define OBSERVED_RANGES_H

#include "workers/backends/backend.h"

/* 0 (free them with quantise_ranges_free), or what the backend says. */
int observed_ranges_make(const struct network *network, const struct backend_batch *batch,
                         uint32_t threads, struct quantise_ranges *out);

#endif
