/*
 * Batches that a model's device works on by itself (UNETSERVE_ON_DEVICE): their jobs are pending.
 */
#ifndef FLIGHT_H
#define FLIGHT_H

#include "workers/worker.h"

#define FLIGHT_MOST 2 /* on the device at once */

/* Batches that the device has not ended, or not told of; 0 for a model that is not on one. */
unsigned flight_count(const struct worker *worker);

/* May a batch of those jobs be put on the device now? The first of them begins it, and at most that
 * many tiles go together. Where the device is free any, behind a batch that it works on a full one:
 * another may still grow until the device is free. */
bool flight_may_begin(const struct worker *worker, uint32_t most, const struct job *jobs,
                      size_t count);

/* A worker is busy while it predicts and while its device works, and both at once count once. From
 * then to now; goes_on: and from now on. */
void flight_count_busy(struct worker *worker, uint64_t from_ns, bool goes_on);

/* What its device has worked and was not counted yet. */
void flight_count_device(struct worker *worker);

#endif
