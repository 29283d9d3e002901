/*
 * A parallel loop on the threads that oneDNN itself runs on (Debian's build: libgomp's pool), so
 * that a forward pass has one pool and not two that take turns spinning. Where oneDNN came with
 * another threading library the loop runs on one thread.
 *
 * libgomp's idle threads spin for some milliseconds and then sleep, unless OMP_WAIT_POLICY=active
 * is in the environment when the library is loaded: a worker must not set that. Where other
 * processes want the same cores, spinning threads keep them from the very thread that is waited
 * for: GOMP_SPINCOUNT=0 then about halves the time of a small network's forward pass. On idle cores
 * it costs such a network 15 %, a large one nothing. A worker sets it, or not, before it loads the
 * model plugin.
 */
#ifndef ONEDNN_PARALLEL_H
#define ONEDNN_PARALLEL_H

#include <stddef.h>
#include <stdint.h>

/* Work on [begin, end). Called at the same time from several threads with ranges that do not
 * overlap. */
typedef void onednn_parallel_body(void *context, size_t begin, size_t end);

/* How many threads oneDNN and onednn_parallel_for use when called from this thread from now on. */
void onednn_parallel_set_threads(uint32_t threads);

/* Call body on at most `threads` contiguous parts of [0, count); return when all are done. */
void onednn_parallel_for(uint32_t threads, size_t count, onednn_parallel_body *body, void *context);

#endif
