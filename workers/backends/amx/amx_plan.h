/*
 * A network made ready for batches of one shape on tiles, and how such a batch runs. A plan owns
 * neither weights nor activations.
 */
#ifndef AMX_PLAN_H
#define AMX_PLAN_H

#include "amx_bands.h"
#include "amx_conv.h"

struct amx_plan {
    struct amx_layout layout;
    struct amx_conv *convs;  /* one a layer */
    struct amx_bands *bands; /* one a group */
    size_t layer_count;
    size_t bands_a_tile; /* most bands that an image is cut into */
};

/* What a run needs besides the plan. */
struct amx_run {
    const struct network *network;
    const struct backend_options *options;
    const struct onednn_rows *rows;
    /* For estimates: called behind each group; may be NULL. */
    void (*watch)(void *opaque, const struct amx_layout *layout, size_t group);
    void *opaque;
};

/* codes: NULL, or which values are codes, for as long as the plan lives; weights: one a layer. 0,
 * -EINVAL, -ENOMEM. Free with amx_plan_free. */
int amx_plan_create(const struct network *network, const struct quantise_plan *codes,
                    const struct amx_kernels *kernels, const struct amx_weights *weights,
                    uint32_t threads, uint32_t count, uint32_t height, uint32_t width,
                    struct amx_plan *out);
void amx_plan_free(struct amx_plan *plan);

/* From now on run in this arena, of layout.arena_bytes. */
void amx_plan_bind(const struct network *network, struct amx_plan *plan, unsigned char *arena);

/* Run a batch of the plan's shape in that arena. Allocates nothing. */
void amx_plan_run(const struct amx_plan *plan, const struct amx_run *run,
                  const struct backend_batch *batch, unsigned char *arena);

#endif
