/*
 * The engine for each convolution of the usual batches, by time on this very device: measured at
 * the first start, kept in cache_dir under a name that is made of all that decides it (device,
 * driver, cuDNN, layers), and read at later ones. What is not known there runs on what cuDNN's
 * heuristics choose.
 */
#ifndef GPU_TUNING_H
#define GPU_TUNING_H

#include "gpu_plan.h"
#include "gpu_timing.h"
#include "workers/backends/backend.h"

/* What measuring may take at a start, where the options say nothing; the rest is measured at the
 * next. */
#define GPU_TUNING_SECONDS 20

struct gpu_tuned;

struct gpu_tuning {
    struct gpu_tuned *convs;
    size_t count;
};

/* For batches of one tile of that size and, where options say how many come at once, of as many as
 * go together. Without options->cache_dir nothing is known, or measured. 0, -ENOMEM, -EIO. */
int gpu_tuning_open(struct gpu_device *device, const struct network *network, enum gpu_type type,
                    const struct backend_options *options, uint32_t size, uint32_t most_tiles,
                    struct gpu_tuning *out);
void gpu_tuning_close(struct gpu_tuning *tuning);

/* As gpu_choices has it (opaque: a gpu_tuning): of another number of tiles, what suits the nearest.
 */
bool gpu_tuning_find(void *opaque, const struct gpu_conv_shape *shape, struct gpu_engine *out);

#endif
