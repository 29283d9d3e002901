/*
 * A network made ready for batches of one shape: the steps with an execution plan for each
 * convolution. Owns no weights and no memory of the device.
 */
#ifndef GPU_PLAN_H
#define GPU_PLAN_H

#include "gpu_conv.h"
#include "gpu_layout.h"

struct gpu_plan {
    struct gpu_layout layout;
    struct gpu_conv *convs; /* one a step; plan is NULL where the step is no convolution */
    size_t workspace_bytes; /* of the convolution that wants most */
};

/* A convolution's step as cuDNN sees it. */
struct gpu_conv_shape gpu_plan_shape(const struct network *network, const struct gpu_layout *layout,
                                     const struct gpu_step *step);

/* Engines chosen earlier: find says whether it knows one for a shape. */
struct gpu_choices {
    bool (*find)(void *opaque, const struct gpu_conv_shape *shape, struct gpu_engine *out);
    void *opaque;
};

/* Plan, and on success take the layout over. choices: NULL for none; tick, called between layers:
 * NULL for none. 0; -EINVAL as gpu_layout_create; -ENOTSUP when cuDNN has no engine for a layer;
 * -ENOMEM. error gets a sentence. Free with gpu_plan_free. */
int gpu_plan_create(const struct gpu_place *place, const struct network *network,
                    const struct gpu_layout *layout, const struct gpu_choices *choices,
                    void (*tick)(void *opaque), void *opaque, struct gpu_plan *out, char *error,
                    size_t error_size);
void gpu_plan_free(const struct gpu_cudnn *cudnn, struct gpu_plan *plan);

/* "bf16", "f16", "f32". */
const char *gpu_type_name(enum gpu_type type);

/* The type for a wish ("auto", "bf16", "f16", "f32") on a device of that compute capability
 * (75: 7.5). 0, -EINVAL with a sentence. */
int gpu_type_choose(const char *precision, int capability, enum gpu_type *out, char *error,
                    size_t error_size);

#endif
