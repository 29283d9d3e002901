/*
 * One convolution as cuDNN's graph interface takes it: convolution, bias and ReLU fused into one
 * operation graph, an engine chosen for it, and the execution plan.
 *
 * What keeps it on the fast engines, as cuDNN 9 has it: images packed as N x H x W x C, channels a
 * multiple of 8, the bias of the images' type, intermediate tensors float.
 */
#ifndef GPU_CONV_H
#define GPU_CONV_H

#include "gpu_engine.h"
#include "gpu_library.h"
#include "gpu_type.h"

#include <stdint.h>

/* For which device to plan. Either handle or properties; the other is NULL. */
struct gpu_place {
    const struct gpu_cudnn *cudnn;
    cudnnHandle_t handle;                /* a device that is there */
    cudnnBackendDescriptor_t properties; /* a device as described in a file */
};

/* A zeroed one may be compared by memcmp. */
struct gpu_conv_shape {
    int64_t count;
    int64_t in_depth; /* channels in memory */
    int64_t in_height;
    int64_t in_width;
    int64_t out_depth;
    int64_t out_height;
    int64_t out_width;
    int64_t kernel;
    int64_t stride;
    int64_t padding;
    int32_t type; /* enum gpu_type: of images, weights and bias */
    int32_t relu;
};

struct gpu_conv {
    cudnnBackendDescriptor_t plan;
    struct gpu_engine engine;
    bool tensor_core;
    char notes[96]; /* "tensor_core runtime_compilation" */
    int64_t workspace_bytes;
};

/* The tensors of a plan, by number. */
enum gpu_tensor { GPU_IN = 1, GPU_WEIGHTS, GPU_BIAS, GPU_OUT };

/* Workspace beyond this is refused, and the next engine tried. */
#define GPU_MAX_WORKSPACE_BYTES ((int64_t)256 << 20)

/* The best plan: the first, in the order of cuDNN's heuristics, that can be made and runs on tensor
 * cores (float: on none, since those round its factors); if there is none, the first that can be
 * made. 0, -ENOTSUP when no engine takes it,
 * -ENOMEM; error gets a sentence. Free with gpu_conv_free. */
int gpu_conv_plan(const struct gpu_place *place, const struct gpu_conv_shape *shape,
                  struct gpu_conv *out, char *error, size_t error_size);

/* At most `room` plans to choose among by time, in the order of cuDNN's heuristics, so that the
 * first is what gpu_conv_plan chooses; each on tensor cores, or for float on none. Returns how
 * many; free each with gpu_conv_free. */
size_t gpu_conv_candidates(const struct gpu_place *place, const struct gpu_conv_shape *shape,
                           struct gpu_conv *out, size_t room);

/* The plan for an engine chosen earlier. 0, -ENOTSUP when cuDNN does not take it any more. */
int gpu_conv_plan_for(const struct gpu_place *place, const struct gpu_conv_shape *shape,
                      const struct gpu_engine *engine, struct gpu_conv *out);

void gpu_conv_free(const struct gpu_cudnn *cudnn, struct gpu_conv *conv);

/* Where a plan's tensors lie. Not owned. */
struct gpu_conv_pointers {
    void *in;
    void *weights;
    void *bias;
    void *out;
    void *workspace;
};

/* The pointers as cuDNN wants them; free with gpu_cudnn's cudnnBackendDestroyDescriptor. 0,
 * -ENOMEM. */
int gpu_conv_bind(const struct gpu_cudnn *cudnn, const struct gpu_conv_pointers *pointers,
                  cudnnBackendDescriptor_t *out);

/* Read a description of a device (JSON text, cuDNN's own form). 0, -EINVAL with a sentence. */
int gpu_place_read(const struct gpu_cudnn *cudnn, const char *text, size_t size,
                   struct gpu_place *out, char *error, size_t error_size);

#endif
