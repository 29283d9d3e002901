/*
 * A plan bound to memory of the device: cuDNN's packs of pointers, and each step as a launch on a
 * stream.
 */
#ifndef GPU_STEPS_H
#define GPU_STEPS_H

#include "gpu_plan.h"
#include "gpu_weights.h"

struct gpu_bound {
    const struct network *network;
    const struct gpu_plan *plan;
    CUdeviceptr arena;
    cudnnBackendDescriptor_t *packs; /* one a step; NULL where it is no convolution */
};

/* Bind: arena holds layout.arena_bytes and, behind them, the workspace. Nothing is run. 0, -ENOMEM.
 * Free with gpu_steps_unbind. */
int gpu_steps_bind(struct gpu_device *device, const struct network *network,
                   const struct gpu_plan *plan, const struct gpu_weights *weights,
                   CUdeviceptr arena, struct gpu_bound *out);
void gpu_steps_unbind(const struct gpu_cudnn *cudnn, struct gpu_bound *bound);

/* Bytes of arena for a plan, workspace included. */
size_t gpu_steps_arena_bytes(const struct gpu_plan *plan);

/* An image in the arena, as kernels take it. */
struct gpu_image gpu_steps_image(const struct gpu_bound *bound, const struct gpu_view *view);

/* Put every step on the stream, in order. 0, -EIO, -ENOMEM. */
int gpu_steps_run(struct gpu_device *device, const struct gpu_bound *bound, CUstream stream);

#endif
