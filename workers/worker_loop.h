/*
 * The worker's life after setup: sleep until there is a job, run it, and leave in good order.
 */
#ifndef WORKER_LOOP_H
#define WORKER_LOOP_H

#include "workers/worker.h"

/* Serve until SIGTERM (which must be blocked) or worker->retire_fd, then until nothing is leased to
 * this worker; or until the supervisor is gone, then until no job of this model is on its way, at
 * most drain_timeout_ms. 0; -EIO: the device was lost (jobs may be left in RUN) or the model's
 * health call failed; or another negative errno. */
int worker_loop(struct worker *worker, uint32_t drain_timeout_ms);

#endif
