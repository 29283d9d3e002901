/*
 * The worker's work: find the jobs leased to it, run them through the model, hand the answers back.
 */
#ifndef RUN_H
#define RUN_H

#include "workers/worker.h"

#define RUN_MAX_JOBS WORKER_MAX_JOBS

struct run_result {
    unsigned jobs;    /* taken out of LEASED, whatever became of them, and those answered later */
    uint64_t look_ns; /* look again then, though nobody calls; 0: that is not needed */
    bool waiting;     /* the queue held jobs of this model that are the broker's to lease */
};

/* First those that the model has completed by now; then one batch: the job of highest priority (the
 * oldest among equals) of those leased to this worker, or else of those that it may take without
 * the broker (handover.h), and with it all others of equal shape that fit the model's max_batch, or
 * what the model likes to run together (model.h); a job on which somebody has died, alone, also of
 * those that are pending. Of a model on a device (flight.h) the batch first, so that the device
 * need not wait. Blocks as long as the model takes. Each gateway concerned is woken as soon as its
 * job has an outcome; the broker is woken when jobs wait for it, or when there is nothing to do
 * here while jobs are stuck at other workers. With worker->device_lost set afterwards, jobs are
 * left in RUN and the process has to end. */
struct run_result run_next(struct worker *worker);

#endif
