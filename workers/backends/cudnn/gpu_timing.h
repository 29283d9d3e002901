/*
 * Which of cuDNN's proposals for a convolution is fastest on this device: each is run a few times
 * on zeros, and the median counts.
 */
#ifndef GPU_TIMING_H
#define GPU_TIMING_H

#include "gpu_device.h"

#define GPU_TIMING_CANDIDATES 8 /* at most, of a convolution */

struct gpu_timing {
    struct gpu_device *device;
    CUstream stream;
    CUevent begin;
    CUevent end;
    CUdeviceptr scratch; /* a convolution's tensors and workspace */
    size_t scratch_bytes;
    uint32_t plans;   /* timed so far */
    uint32_t dropped; /* that failed, so are no candidates */
};

/* 0, -ENOMEM, -EIO. */
int gpu_timing_open(struct gpu_device *device, struct gpu_timing *out);
void gpu_timing_close(struct gpu_timing *timing);

/* The fastest engine. *first: it is also the heuristics' first choice. A candidate that fails, or
 * for which there is no memory, is dropped. 0; -ENOENT: none is left, so there is nothing to know
 * better; -EIO: the device failed. */
int gpu_timing_best(struct gpu_timing *timing, const struct gpu_conv_shape *shape,
                    struct gpu_engine *out, bool *first);

#endif
