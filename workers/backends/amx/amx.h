/*
 * The AMX backend: UNets on processors with tiles (Sapphire Rapids and later), in bfloat16 or int8.
 * The vtable is in backend.h; this is what an estimate of time asks besides.
 *
 * It takes every network in precision "auto" (which is bf16), "bf16" or "int8"; what it does not
 * suit (f32, convolutions with windows or strides that no UNet has) is left to oneDNN. Memory of an
 * instance: the packed weights, in a file that all instances map where there is a cache_dir, and
 * one arena for the activations of the batch shape that ran last.
 */
#ifndef AMX_H
#define AMX_H

#include "amx_plan.h"

extern const struct backend backend_amx;

/* As backend_amx.forward for one part of a batch, calling `watch` behind each group of layers. */
int amx_forward_watched(void *opaque, const struct backend_batch *batch,
                        void (*watch)(void *opaque, const struct amx_layout *layout, size_t group),
                        void *watcher);

/* The plan that ran last. */
const struct amx_plan *amx_last_plan(const void *instance);

#endif
