/*
 * A network made ready for batches of one shape: oneDNN's primitives, and where every value lies. A
 * plan owns no weights and no activations: it is bound to an arena that all plans of an instance
 * share.
 */
#ifndef ONEDNN_PLAN_H
#define ONEDNN_PLAN_H

#include "onednn_layout.h"
#include "onednn_weights.h"

/* One layer's convolution. Without primitive and winograd the layer has none. */
struct onednn_step {
    dnnl_primitive_t primitive;
    const struct onednn_weights *winograd; /* not owned; not NULL: our own kernel, with these */
    dnnl_memory_t in;
    dnnl_memory_t out;
    dnnl_memory_t scratch; /* NULL if it needs none */
    dnnl_memory_t weights; /* not owned, as the next */
    dnnl_memory_t bias;
    size_t in_offset; /* in the arena */
    size_t out_offset;
    char implementation[48];
};

struct onednn_plan {
    struct onednn_layout layout;
    struct onednn_step *steps; /* one a layer */
    size_t layer_count;
    size_t scratch_bytes; /* behind the arena's values */
    unsigned char *arena; /* that it is bound to; NULL: none */
};

/* What a layer took: for the benchmark. */
struct onednn_time {
    uint64_t convolution_ns;
    uint64_t own_ns; /* our kernels: copies, shuffle, pooling ... */
};

/* What a run needs besides the plan. */
struct onednn_run {
    const struct network *network;
    const struct onednn_machine *machine;
    const struct backend_options *options;
    const struct onednn_rows *rows;
    struct onednn_time *times; /* layer_count + 2: loading, layers, storing; NULL: not wanted */
};

/* Prepare; type and codes as in onednn_layout.h. weights: one a layer of the network. Makes packed
 * forms of them as needed; -EBUSY when one has no room for the form wanted, which *busy then names.
 * 0, -EINVAL, -ENOMEM, -EIO. Free with onednn_plan_free. */
int onednn_plan_create(const struct network *network, const struct onednn_machine *machine,
                       enum onednn_type type, const struct quantise_plan *codes,
                       struct onednn_weights *weights, uint32_t threads, uint32_t count,
                       uint32_t height, uint32_t width, size_t *busy, struct onednn_plan *out);
void onednn_plan_free(struct onednn_plan *plan);

/* Bytes of arena that it needs. */
size_t onednn_plan_arena_bytes(const struct onednn_plan *plan);

/* From now on run in this arena. 0, -EIO. */
int onednn_plan_bind(struct onednn_plan *plan, unsigned char *arena);

/* Run a batch of the plan's shape. Allocates nothing. 0, -EIO. */
int onednn_plan_run(const struct onednn_plan *plan, const struct onednn_run *run,
                    const struct backend_batch *batch);

#endif
