/*
 * GPUs that fail. A worker that its device has failed under ends; then nothing is started on that
 * device for a while, which doubles with every failure in a row, and after that one worker tries it
 * alone. Workers on other devices go on, and get the jobs. The rest shows in counters_device.
 */
#ifndef DEVICE_REST_H
#define DEVICE_REST_H

#include "supervisor/server.h"

#include <signal.h>

#define DEVICE_LONGEST_REST_MS 300000u
/* A device that worked so long between two failures begins anew. */
#define DEVICE_STEADY_MS 60000u

/* After so many failures in a row, at least one, where the first costs that much (loss.h). */
uint32_t device_rest_ms(uint32_t first_ms, uint64_t failures);

/* Write the devices' names down, before any process. */
void device_rest_begin(struct server *server);

/* How long a worker's seat must wait before it may be started; 0: not at all, and if its device is
 * to be tried by one alone, then by this one. */
uint64_t device_rest_left_ms(struct tree_seat *seat);

/* A worker has come up. */
void device_rest_up(const struct tree_seat *seat);

/* A worker is gone, and why its device had failed under it, or LOSS_NONE. */
void device_rest_end(const struct tree_seat *seat, int loss);

/* What an end says of the device: enum unetserve_loss or LOSS_NONE. Of a worker that never came up
 * it may be anything. */
int device_rest_cause(const struct tree_seat *seat, const siginfo_t *end);

#endif
