/*
 * The batch shapes that an instance is ready for, at most GPU_SHAPES of them: each with its plan,
 * bound to the one arena that all share, and, from its second use on, captured as a graph that one
 * call launches. The arena is as large as the neediest of them wants.
 */
#ifndef GPU_SHAPES_H
#define GPU_SHAPES_H

#include "gpu_steps.h"

#define GPU_SHAPES 16

struct gpu_shape {
    struct gpu_plan plan;   /* layout.count is 0: unused */
    struct gpu_bound bound; /* packs is NULL: not bound */
    CUgraphExec graph;      /* NULL: not captured */
    uint64_t uses;          /* of the present binding */
    uint64_t used;          /* when last */
};

struct gpu_shapes {
    struct gpu_device *device;
    const struct network *network; /* layers without weights will do */
    const struct gpu_weights *weights;
    enum gpu_type type;
    const struct gpu_choices *choices;
    void (*tick)(void *opaque);
    void *opaque;
    CUdeviceptr arena;
    size_t arena_bytes;
    uint64_t clock;
    struct gpu_shape shapes[GPU_SHAPES];
};

/* Is it ready at once? Otherwise nothing may be running on the arena when gpu_shapes_get is called.
 */
bool gpu_shapes_ready(const struct gpu_shapes *shapes, uint32_t count, uint32_t height,
                      uint32_t width);

/* The shape, made and bound if need be; valid until the next call. 0; -EINVAL, -ENOTSUP, -ENOMEM,
 * -EIO with a sentence. */
int gpu_shapes_get(struct gpu_shapes *shapes, uint32_t count, uint32_t height, uint32_t width,
                   struct gpu_shape **out, char *error, size_t error_size);

/* Put its steps on the stream. 0, -EIO, -ENOMEM. */
int gpu_shapes_run(struct gpu_shapes *shapes, struct gpu_shape *shape, CUstream stream);

/* Free all; nothing is running. */
void gpu_shapes_clear(struct gpu_shapes *shapes);

#endif
