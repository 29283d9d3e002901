#include "gpu_steps.h"

#include <errno.h>
#include <stdlib.h>

size_t gpu_steps_arena_bytes(const struct gpu_plan *plan)
{
    return plan->layout.arena_bytes + plan->workspace_bytes;
}

/* The driver's addresses are numbers, cuDNN's and the kernels' are pointers. */
static void *pointer(CUdeviceptr address)
{
    return (void *)(uintptr_t)address; /* NOLINT(performance-no-int-to-ptr) */
}

struct gpu_image gpu_steps_image(const struct gpu_bound *bound, const struct gpu_view *view)
{
    return (struct gpu_image){.data = pointer(bound->arena + view->offset),
                              .pitch = view->pitch,
                              .depth = view->depth,
                              .height = view->height,
                              .width = view->width};
}

int gpu_steps_bind(struct gpu_device *device, const struct network *network,
                   const struct gpu_plan *plan, const struct gpu_weights *weights,
                   CUdeviceptr arena, struct gpu_bound *out)
{
    const struct gpu_layout *layout = &plan->layout;
    struct gpu_bound bound = {.network = network, .plan = plan, .arena = arena};
    bound.packs = (cudnnBackendDescriptor_t *)calloc(layout->step_count,
                                                     sizeof(cudnnBackendDescriptor_t));
    int code = bound.packs != NULL ? 0 : -ENOMEM;
    for (size_t i = 0; i < layout->step_count && code == 0; i++) {
        const struct gpu_step *step = &layout->steps[i];
        const struct gpu_layer_weights *held = &weights->layers[step->layer];
        if (step->kind == GPU_STEP_CONV) {
            const struct gpu_conv_pointers pointers = {
                .in = pointer(arena + step->in.offset),
                .weights = pointer(held->weights),
                .bias = pointer(held->bias),
                .out = pointer(arena + step->out.offset),
                .workspace = pointer(arena + layout->arena_bytes),
            };
            code = gpu_conv_bind(device->place.cudnn, &pointers, &bound.packs[i]);
        }
    }
    if (code != 0) {
        gpu_steps_unbind(device->place.cudnn, &bound);
        return code;
    }
    *out = bound;
    return 0;
}

void gpu_steps_unbind(const struct gpu_cudnn *cudnn, struct gpu_bound *bound)
{
    for (size_t i = 0; bound->packs != NULL && i < bound->plan->layout.step_count; i++) {
        if (bound->packs[i] != NULL) {
            cudnn->cudnnBackendDestroyDescriptor(bound->packs[i]);
        }
    }
    free((void *)bound->packs);
    *bound = (struct gpu_bound){.network = NULL};
}

/* ---- running ---- */

struct runner {
    struct gpu_device *device;
    const struct gpu_bound *bound;
    CUstream stream;
};

static int launch(const struct runner *r, enum gpu_kernel kernel, const void *args)
{
    return gpu_launch(r->device, r->stream, kernel, r->bound->plan->layout.type, args);
}

/* Groups of 8 channels in a grid of pixels. */
static uint32_t items_of(const struct runner *r, uint32_t depth, uint32_t height, uint32_t width)
{
    return r->bound->plan->layout.count * height * width * (depth / 8);
}

static uint32_t items_out(const struct runner *r, const struct gpu_step *step)
{
    return items_of(r, step->out.depth, step->out.height, step->out.width);
}

static int run_pool(const struct runner *r, const struct gpu_step *step,
                    const struct network_layer *layer)
{
    struct gpu_image in = gpu_steps_image(r->bound, &step->in);
    struct gpu_image out = gpu_steps_image(r->bound, &step->out);
    if (step->copy.depth > 0) {
        const struct gpu_halve_args args = {
            .items = items_of(r, in.depth, (in.height + 1) / 2, (in.width + 1) / 2),
            .in = in,
            .out = out,
            .copy = gpu_steps_image(r->bound, &step->copy)};
        return launch(r, GPU_KERNEL_halve, &args);
    }
    const struct gpu_pool_args args = {.items = items_out(r, step),
                                       .kernel = layer->kernel,
                                       .stride = layer->stride,
                                       .padding = layer->padding,
                                       .in = in,
                                       .out = out};
    return launch(r, GPU_KERNEL_pool, &args);
}

/* floor(difference / 2) before, negative where it crops. */
static int32_t fit_before(uint32_t from, uint32_t to)
{
    int32_t difference = (int32_t)to - (int32_t)from;
    return difference >= 0 ? difference / 2 : -((1 - difference) / 2);
}

static int run_fit(const struct runner *r, const struct gpu_step *step)
{
    const struct gpu_fit_args args = {.items = items_out(r, step),
                                      .top = fit_before(step->in.height, step->out.height),
                                      .left = fit_before(step->in.width, step->out.width),
                                      .in = gpu_steps_image(r->bound, &step->in),
                                      .out = gpu_steps_image(r->bound, &step->out)};
    return launch(r, GPU_KERNEL_fit, &args);
}

static int run_shuffle(const struct runner *r, const struct gpu_step *step)
{
    const struct gpu_shuffle_args args = {.items = items_out(r, step),
                                          .in = gpu_steps_image(r->bound, &step->in),
                                          .out = gpu_steps_image(r->bound, &step->out)};
    return launch(r, GPU_KERNEL_shuffle, &args);
}

static int run_upsample(const struct runner *r, const struct gpu_step *step,
                        const struct network_layer *layer)
{
    const struct gpu_upsample_args args = {.items = items_out(r, step),
                                           .mode = (uint32_t)layer->upsample,
                                           .in = gpu_steps_image(r->bound, &step->in),
                                           .out = gpu_steps_image(r->bound, &step->out)};
    return launch(r, GPU_KERNEL_upsample, &args);
}

static int run_add(const struct runner *r, const struct gpu_step *step,
                   const struct network_layer *layer)
{
    const struct gpu_add_args args = {.items = items_out(r, step),
                                      .relu = layer->relu,
                                      .in = gpu_steps_image(r->bound, &step->in),
                                      .second = gpu_steps_image(r->bound, &step->second),
                                      .out = gpu_steps_image(r->bound, &step->out)};
    return launch(r, GPU_KERNEL_add, &args);
}

static int run_conv(const struct runner *r, size_t index)
{
    const struct gpu_place *place = &r->device->place;
    return gpu_check_cudnn(r->device,
                           place->cudnn->cudnnBackendExecute(place->handle,
                                                             r->bound->plan->convs[index].plan,
                                                             r->bound->packs[index]),
                           "cudnnBackendExecute");
}

static int run_step(const struct runner *r, size_t index)
{
    const struct gpu_step *step = &r->bound->plan->layout.steps[index];
    const struct network_layer *layer = &r->bound->network->layers[step->layer];
    switch (step->kind) {
    case GPU_STEP_CONV: return run_conv(r, index);
    case GPU_STEP_SHUFFLE: return run_shuffle(r, step);
    case GPU_STEP_POOL: return run_pool(r, step, layer);
    case GPU_STEP_UPSAMPLE: return run_upsample(r, step, layer);
    case GPU_STEP_FIT: return run_fit(r, step);
    case GPU_STEP_ADD: return run_add(r, step, layer);
    }
    return -EINVAL;
}

int gpu_steps_run(struct gpu_device *device, const struct gpu_bound *bound, CUstream stream)
{
    const struct gpu_place *place = &device->place;
    const struct runner r = {.device = device, .bound = bound, .stream = stream};
    int code = gpu_check_cudnn(device, place->cudnn->cudnnSetStream(place->handle, stream),
                               "cudnnSetStream");
    for (size_t i = 0; i < bound->plan->layout.step_count && code == 0; i++) {
        code = run_step(&r, i);
    }
    return code;
}
