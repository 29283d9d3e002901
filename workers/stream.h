/* The worker's end of a stream: what a model emits goes into the ring that its gateway empties. */
#ifndef STREAM_H
#define STREAM_H

#include "workers/worker.h"

/* Append an item to a job's stream and wake its gateway. Waits for room, with signs of progress, as
 * long as somebody wants the job; not for a pending one. 0, -EAGAIN, -ECANCELED, -EMSGSIZE, -EINVAL
 * (the model does not stream), -EBADMSG. */
int stream_emit(struct worker *worker, struct job *job, const void *bytes, size_t size);

#endif
