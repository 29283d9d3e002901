#include "gpu_plan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first devices with bfloat16 in their tensor cores. */
#define BF16_CAPABILITY  80
#define LEAST_CAPABILITY 75

const char *gpu_type_name(enum gpu_type type)
{
    return type == GPU_BF16 ? "bf16" : type == GPU_F16 ? "f16" : "f32";
}

int gpu_type_choose(const char *precision, int capability, enum gpu_type *out, char *error,
                    size_t error_size)
{
    if (capability < LEAST_CAPABILITY) {
        snprintf(error, error_size, "a device of compute capability %d.%d, needed is %d.%d",
                 capability / 10, capability % 10, LEAST_CAPABILITY / 10, LEAST_CAPABILITY % 10);
        return -EINVAL;
    }
    if (strcmp(precision, "auto") == 0) {
        *out = capability >= BF16_CAPABILITY ? GPU_BF16 : GPU_F16;
        return 0;
    }
    for (enum gpu_type type = GPU_F32; type <= GPU_BF16; type++) {
        if (strcmp(precision, gpu_type_name(type)) != 0) {
            continue;
        }
        if (type == GPU_BF16 && capability < BF16_CAPABILITY) {
            snprintf(error, error_size,
                     "precision bf16: this device, of compute capability %d.%d, has f16 and f32",
                     capability / 10, capability % 10);
            return -EINVAL;
        }
        *out = type;
        return 0;
    }
    snprintf(error, error_size, "the cudnn backend computes in bf16, f16 and f32, not in %s",
             precision);
    return -EINVAL;
}

struct gpu_conv_shape gpu_plan_shape(const struct network *network, const struct gpu_layout *layout,
                                     const struct gpu_step *step)
{
    const struct network_layer *layer = &network->layers[step->layer];
    bool up = layer->op == NETWORK_CONV_UP; /* as a 1 x 1 convolution, before the shuffle */
    struct gpu_conv_shape shape;
    memset(&shape, 0, sizeof shape); /* compared as bytes */
    shape.count = layout->count;
    shape.in_depth = step->in.depth;
    shape.in_height = step->in.height;
    shape.in_width = step->in.width;
    shape.out_depth = step->out.depth;
    shape.out_height = step->out.height;
    shape.out_width = step->out.width;
    shape.kernel = up ? 1 : layer->kernel;
    shape.stride = up ? 1 : layer->stride;
    shape.padding = up ? 0 : layer->padding;
    shape.type = (int32_t)layout->type;
    shape.relu = layer->relu;
    return shape;
}

static int plan_step(const struct gpu_place *place, const struct gpu_conv_shape *shape,
                     const struct gpu_choices *choices, struct gpu_conv *out, char *error,
                     size_t error_size)
{
    struct gpu_engine engine;
    if (choices != NULL && choices->find(choices->opaque, shape, &engine) &&
        gpu_conv_plan_for(place, shape, &engine, out) == 0) {
        return 0;
    }
    return gpu_conv_plan(place, shape, out, error, error_size);
}

int gpu_plan_create(const struct gpu_place *place, const struct network *network,
                    const struct gpu_layout *layout, const struct gpu_choices *choices,
                    void (*tick)(void *opaque), void *opaque, struct gpu_plan *out, char *error,
                    size_t error_size)
{
    struct gpu_plan plan = {.layout = *layout};
    plan.convs = (struct gpu_conv *)calloc(layout->step_count, sizeof *plan.convs);
    int code = plan.convs != NULL ? 0 : -ENOMEM;
    for (size_t i = 0; i < layout->step_count && code == 0; i++) {
        const struct gpu_step *step = &layout->steps[i];
        if (step->kind != GPU_STEP_CONV) {
            continue;
        }
        char reason[300] = "";
        const struct gpu_conv_shape shape = gpu_plan_shape(network, layout, step);
        code = plan_step(place, &shape, choices, &plan.convs[i], reason, sizeof reason);
        if (code != 0) {
            snprintf(error, error_size, "layer %s in %s: %s", network->layers[step->layer].name,
                     gpu_type_name(layout->type), reason);
        } else if ((size_t)plan.convs[i].workspace_bytes > plan.workspace_bytes) {
            plan.workspace_bytes = (size_t)plan.convs[i].workspace_bytes;
        }
        if (tick != NULL) {
            tick(opaque);
        }
    }
    if (code != 0) {
        plan.layout = (struct gpu_layout){.step_count = layout->step_count};
        gpu_plan_free(place->cudnn, &plan);
        return code;
    }
    *out = plan;
    return 0;
}

void gpu_plan_free(const struct gpu_cudnn *cudnn, struct gpu_plan *plan)
{
    for (size_t i = 0; plan->convs != NULL && i < plan->layout.step_count; i++) {
        gpu_conv_free(cudnn, &plan->convs[i]);
    }
    free(plan->convs);
    gpu_layout_free(&plan->layout);
    *plan = (struct gpu_plan){0};
}
