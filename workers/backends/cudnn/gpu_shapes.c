#include "gpu_shapes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The first run of a shape goes step by step: it may be the only one, and cuDNN loads its kernels
 * then, which a capture would not survive. */
#define USES_BEFORE_GRAPH 1

static struct gpu_shape *find(const struct gpu_shapes *shapes, uint32_t count, uint32_t height,
                              uint32_t width)
{
    for (size_t i = 0; i < GPU_SHAPES; i++) {
        const struct gpu_layout *layout = &shapes->shapes[i].plan.layout;
        if (layout->count == count && layout->height == height && layout->width == width) {
            return (struct gpu_shape *)&shapes->shapes[i];
        }
    }
    return NULL;
}

bool gpu_shapes_ready(const struct gpu_shapes *shapes, uint32_t count, uint32_t height,
                      uint32_t width)
{
    const struct gpu_shape *shape = find(shapes, count, height, width);
    return shape != NULL && shape->bound.packs != NULL;
}

static void unbind(const struct gpu_shapes *shapes, struct gpu_shape *shape)
{
    if (shape->graph != NULL) {
        shapes->device->driver->cuGraphExecDestroy(shape->graph);
    }
    shape->graph = NULL;
    shape->uses = 0;
    gpu_steps_unbind(shapes->device->place.cudnn, &shape->bound);
}

static void drop(const struct gpu_shapes *shapes, struct gpu_shape *shape)
{
    unbind(shapes, shape);
    gpu_plan_free(shapes->device->place.cudnn, &shape->plan);
    shape->used = 0;
}

static struct gpu_shape *oldest(struct gpu_shapes *shapes)
{
    struct gpu_shape *oldest = &shapes->shapes[0];
    for (size_t i = 1; i < GPU_SHAPES; i++) {
        if (shapes->shapes[i].used < oldest->used) {
            oldest = &shapes->shapes[i];
        }
    }
    return oldest;
}

/* cuDNN has no word of its own for a device that is gone while it plans. */
static bool is_lost(struct gpu_device *device)
{
    size_t available = 0;
    size_t total = 0;
    return gpu_call(device, cuMemGetInfo, &available, &total) != 0;
}

static int make(struct gpu_shapes *shapes, uint32_t count, uint32_t height, uint32_t width,
                struct gpu_shape **out, char *error, size_t error_size)
{
    struct gpu_layout layout;
    struct gpu_shape *shape = oldest(shapes);
    drop(shapes, shape);
    int code = gpu_layout_create(shapes->network, shapes->type, count, height, width, &layout);
    if (code != 0) {
        snprintf(error, error_size, "%u tiles of %u x %u do not go together: %s", count, height,
                 width, strerror(-code));
        return code;
    }
    code = gpu_plan_create(&shapes->device->place, shapes->network, &layout, shapes->choices,
                           shapes->tick, shapes->opaque, &shape->plan, error, error_size);
    if (code != 0) {
        gpu_layout_free(&layout);
        return is_lost(shapes->device) ? -EIO : code;
    }
    *out = shape;
    return 0;
}

static size_t needed_bytes(const struct gpu_shapes *shapes)
{
    size_t needed = 0;
    for (size_t i = 0; i < GPU_SHAPES; i++) {
        const struct gpu_plan *plan = &shapes->shapes[i].plan;
        size_t bytes = plan->layout.count > 0 ? gpu_steps_arena_bytes(plan) : 0;
        needed = bytes > needed ? bytes : needed;
    }
    return needed;
}

/* Large enough for every shape there is, and not much larger: one huge image must not cost its
 * memory for ever. */
static int fit_arena(struct gpu_shapes *shapes)
{
    size_t needed = needed_bytes(shapes);
    if (shapes->arena != 0 && shapes->arena_bytes >= needed && shapes->arena_bytes / 2 <= needed) {
        return 0;
    }
    for (size_t i = 0; i < GPU_SHAPES; i++) {
        unbind(shapes, &shapes->shapes[i]);
    }
    CUdeviceptr old = shapes->arena;
    shapes->arena = 0;
    shapes->arena_bytes = 0;
    int code = old != 0 ? gpu_call(shapes->device, cuMemFree, old) : 0;
    if (code == 0) {
        code = gpu_call(shapes->device, cuMemAlloc, &shapes->arena, needed);
    }
    shapes->arena_bytes = code == 0 ? needed : 0;
    return code;
}

int gpu_shapes_get(struct gpu_shapes *shapes, uint32_t count, uint32_t height, uint32_t width,
                   struct gpu_shape **out, char *error, size_t error_size)
{
    struct gpu_shape *shape = find(shapes, count, height, width);
    int code = 0;
    if (shape == NULL) {
        code = make(shapes, count, height, width, &shape, error, error_size);
        if (code != 0) {
            return code;
        }
    }
    if (shape->bound.packs == NULL) {
        code = fit_arena(shapes);
        if (code == 0) {
            code = gpu_steps_bind(shapes->device, shapes->network, &shape->plan, shapes->weights,
                                  shapes->arena, &shape->bound);
        }
        if (code != 0) {
            drop(shapes, shape);
            snprintf(error, error_size, "no room for %u tiles of %u x %u: %s", count, height, width,
                     shapes->device->failure);
            return code;
        }
    }
    shape->used = ++shapes->clock;
    *out = shape;
    return 0;
}

static int capture(struct gpu_shapes *shapes, struct gpu_shape *shape, CUstream stream)
{
    struct gpu_device *device = shapes->device;
    CUgraph graph = NULL;
    int code = gpu_call(device, cuStreamBeginCapture, stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    if (code != 0) {
        return code;
    }
    code = gpu_steps_run(device, &shape->bound, stream);
    int ended = gpu_call(device, cuStreamEndCapture, stream, &graph);
    code = code == 0 ? ended : code;
    if (code == 0) {
        code = gpu_call(device, cuGraphInstantiateWithFlags, &shape->graph, graph, 0);
    }
    if (graph != NULL) {
        device->driver->cuGraphDestroy(graph);
    }
    return code;
}

int gpu_shapes_run(struct gpu_shapes *shapes, struct gpu_shape *shape, CUstream stream)
{
    if (shape->uses++ < USES_BEFORE_GRAPH) {
        return gpu_steps_run(shapes->device, &shape->bound, stream);
    }
    int code = shape->graph == NULL ? capture(shapes, shape, stream) : 0;
    return code == 0 ? gpu_call(shapes->device, cuGraphLaunch, shape->graph, stream) : code;
}

void gpu_shapes_clear(struct gpu_shapes *shapes)
{
    for (size_t i = 0; i < GPU_SHAPES; i++) {
        drop(shapes, &shapes->shapes[i]);
    }
    if (shapes->arena != 0) {
        shapes->device->driver->cuMemFree(shapes->arena);
    }
    shapes->arena = 0;
    shapes->arena_bytes = 0;
}
