/*
 * The oneDNN backend: UNets on a CPU. The vtable is in backend.h; this is what the benchmark asks
 * besides.
 *
 * Memory of an instance: the weights, packed once (twice at most, see onednn_weights.h), in a file
 * that all instances map where there is a cache_dir; one arena for activations, as large as the
 * largest batch shape needs among the ONEDNN_PLANS used last, but those that did not run in the
 * last ONEDNN_LATELY forwards; and those shapes' primitives. A forward of such a shape allocates
 * nothing. Batches that would want more than 50 MiB of activations a thread are run in parts, down
 * to a tile at a time.
 *
 * In f32, wide 3 x 3 convolutions may be Winograd's (onednn_winograd.h), whose weights are four
 * times as large and whose scratch lies in the arena; options->convolution says whether.
 *
 * Environment: OMP_WAIT_POLICY must not be "active", GOMP_SPINCOUNT=0 may help (see
 * onednn_parallel.h). oneDNN's own DNNL_MAX_CPU_ISA is honoured: "auto" is bf16 only where both the
 * processor and oneDNN have it.
 */
#ifndef ONEDNN_H
#define ONEDNN_H

#include "onednn_plan.h"

#define ONEDNN_PLANS  16
#define ONEDNN_LATELY 64

extern const struct backend backend_onednn;

/* As backend_onednn.forward, and the time that loading, each layer and storing took: times has
 * layer_count + 2 of them. */
int onednn_forward_timed(void *instance, const struct backend_batch *batch,
                         struct onednn_time *times);

/* Room for activations that it has now. */
size_t onednn_arena_bytes(const void *instance);

/* What oneDNN runs a layer with, for the shape that ran last ("brgconv:avx512_core_bf16"); "" for a
 * layer of our own. */
const char *onednn_implementation(const void *instance, size_t layer);

#endif
