#include "amx.h"

#include "workers/backends/backends.h"
#include "workers/backends/onednn/onednn_packed.h"
#include "workers/backends/onednn/onednn_parallel.h"
#include "workers/backends/packed_share.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Raise it with every change of what packing makes of the same weights. */
#define AMX_FORMAT 1u
/* How much room for activations a thread may ask for: with more, a batch is run in parts. */
#define ARENA_BYTES_A_THREAD ((size_t)50 << 20)
#define MOST_TILES           65536u
/* Windows and strides that are taken. */
#define MOST_KERNEL 16u

struct instance {
    struct network network; /* a copy without weights, biases */
    bool integer;
    struct quantise_plan codes; /* where integer */
    struct backend_options options;
    const struct amx_kernels *kernels;
    const struct onednn_rows *rows;
    struct amx_weights *weights; /* one a layer */
    struct packed_map packed;    /* what they lie in, if they are shared */
    struct amx_plan plan;        /* layout.count 0: none */
    unsigned char *arena;
    size_t arena_bytes;
};

static bool is_conv(enum network_op op)
{
    return op == NETWORK_CONV || op == NETWORK_CONV_UP;
}

static int probe(char *error, size_t error_size)
{
    return amx_kernels_here(error, error_size) != NULL ? 0 : -ENODEV;
}

static bool suits(const struct network *network, const char *precision)
{
    static const char *const taken[] = {"auto", "bf16", "int8"};
    bool takes = false;
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        takes = takes || strcmp(precision, taken[i]) == 0;
    }
    if (!takes) {
        return false;
    }
    for (size_t i = 0; i < network->layer_count; i++) {
        const struct network_layer *layer = &network->layers[i];
        bool wide = layer->kernel > MOST_KERNEL || layer->stride > MOST_KERNEL ||
                    layer->padding > MOST_KERNEL;
        if (layer->op == NETWORK_CONV && wide) {
            return false;
        }
    }
    return network->classes <= AMX_MOST_CLASSES;
}

/* ---- making ---- */

static void destroy(void *opaque)
{
    struct instance *instance = (struct instance *)opaque;
    for (size_t i = 0; instance->weights != NULL && i < instance->network.layer_count; i++) {
        amx_weights_free(&instance->weights[i]);
    }
    amx_plan_free(&instance->plan);
    quantise_plan_free(&instance->codes);
    packed_cache_unmap(&instance->packed);
    free(instance->weights);
    free(instance->network.layers);
    free(instance->arena);
    free(instance);
}

static const struct quantise_plan *codes_of(const struct instance *instance)
{
    return instance->integer ? &instance->codes : NULL;
}

/* What create works with. */
struct making {
    const struct network *network; /* perhaps without weights */
    const struct backend_options *options;
    char *error;
    size_t error_size;
};

static int take_weights(const struct network *network, struct instance *instance)
{
    const struct packed_view *file = &instance->packed.view;
    for (size_t i = 0; i < network->layer_count; i++) {
        if (!is_conv(network->layers[i].op)) {
            continue;
        }
        const struct quantise_plan *codes = codes_of(instance);
        struct amx_weights *weights = &instance->weights[i];
        int error = file->data != NULL
                        ? amx_weights_adopt(network, codes, i, file, weights)
                        : amx_weights_create(network, codes, i, instance->options.threads,
                                             instance->rows, weights);
        if (error != 0) {
            return error;
        }
    }
    return 0;
}

static bool wants_int8(const struct backend_options *options)
{
    return strcmp(options->precision, "int8") == 0;
}

/* An instance with weights of its own, or, if packed is not NULL, with those; on success they are
 * the instance's to unmap. */
static int make_instance(const struct making *making, const struct network *network,
                         const struct packed_map *packed, void **out)
{
    struct instance *made = (struct instance *)calloc(1, sizeof *made);
    int code = made != NULL ? 0 : -ENOMEM;
    if (code == 0) {
        made->options = *making->options;
        made->integer = wants_int8(making->options);
        made->options.precision = NULL; /* the caller's strings need not live on */
        made->options.cache_dir = NULL;
        made->options.ranges = NULL;
        made->kernels = amx_kernels_here(making->error, making->error_size);
        made->rows = onednn_rows_select(onednn_isa_detect().vector);
        made->packed = packed != NULL ? *packed : made->packed;
        made->weights = (struct amx_weights *)calloc(network->layer_count, sizeof *made->weights);
        code = made->kernels != NULL ? backend_copy_network(network, &made->network) : -ENODEV;
        code = made->weights == NULL ? -ENOMEM : code;
    }
    if (code == 0 && made->integer) {
        code = quantise_plan_create(network, making->options->ranges, &made->codes);
    }
    if (code == 0) {
        code = take_weights(network, made);
    }
    if (code == -ENOMEM) {
        snprintf(making->error, making->error_size,
                 "not enough memory for the network's %llu parameters",
                 (unsigned long long)network->parameters);
    } else if (code == -EINVAL) {
        snprintf(making->error, making->error_size, "the ranges for int8 are of another network");
    }
    if (code != 0 && made != NULL) {
        made->packed = (struct packed_map){0};
        destroy(made);
        return code;
    }
    *out = made;
    return code;
}

static int adopt_shared(void *opaque, const struct packed_map *packed, void **out)
{
    const struct making *making = (const struct making *)opaque;
    return make_instance(making, making->network, packed, out);
}

static int pack_own(void *opaque, void **out)
{
    const struct making *making = (const struct making *)opaque;
    const struct network *network = NULL;
    int code = backend_load(making->network, making->options, &network, making->error,
                            making->error_size);
    return code == 0 ? make_instance(making, network, NULL, out) : code;
}

static int write_shared(void *opaque, void *made, struct packed_draft *draft, char *note,
                        size_t note_size)
{
    const struct instance *instance = (const struct instance *)made;
    struct packed_collection all;
    (void)opaque;
    packed_collection_begin(&all, 3 * instance->network.layer_count);
    for (size_t i = 0; i < instance->network.layer_count; i++) {
        static const struct packed_hash plain = {0, 0};
        const struct amx_weights *own = &instance->weights[i];
        if (own->packed != NULL) {
            packed_collect(&all, (uint32_t)i, PACKED_WEIGHTS, plain, own->packed,
                           amx_packed_bytes(&own->shape));
            packed_collect(&all, (uint32_t)i, PACKED_BIAS, plain, own->bias,
                           amx_bias_bytes(&own->shape));
        }
        if (own->scales != NULL) {
            packed_collect(&all, (uint32_t)i, PACKED_SCALES, plain, own->scales,
                           amx_scales_bytes(&own->shape));
        }
    }
    return packed_collection_commit(&all, draft, note, note_size);
}

/* Files of ours and of oneDNN's are never taken for each other. */
static struct packed_hash key_of(const struct network *network,
                                 const struct backend_options *options)
{
    struct {
        struct packed_hash plan;
        char backend[8];
        uint32_t format;
        uint32_t integer;
    } key = {onednn_packed_key(network, options, ONEDNN_BF16, NULL, 0), "amx", AMX_FORMAT,
             wants_int8(options) ? 1 : 0};
    return packed_hash_of(&key, sizeof key);
}

static int create(const struct network *network, const struct backend_options *options,
                  void **instance, char *error, size_t error_size)
{
    struct making making = {network, options, error, error_size};
    if (network->layer_count == 0 || options->threads == 0) {
        snprintf(error, error_size, "a network needs a layer, and a backend a thread");
        return -EINVAL;
    }
    if (!suits(network, options->precision)) {
        snprintf(error, error_size,
                 "the amx backend has precisions auto, bf16 and int8 only, and windows of at most "
                 "%u pixels: backend onednn takes the others",
                 MOST_KERNEL);
        return -EINVAL;
    }
    if (wants_int8(options) && backend_check_ranges(network, options, error, error_size) != 0) {
        return -EINVAL;
    }
    struct packed_hash key = key_of(network, options);
    struct packed_maker maker = {&making, adopt_shared, pack_own, write_shared, destroy};
    void *made = NULL;
    int code = packed_share(options, &key, &maker, &made);
    if (code == 0) {
        *instance = made;
    }
    return code;
}

/* ---- running ---- */

/* The arena: as large as the plan needs, and not much larger. */
static int fit_arena(struct instance *instance)
{
    size_t needed = instance->plan.layout.arena_bytes;
    if (instance->arena == NULL || instance->arena_bytes < needed ||
        instance->arena_bytes / 2 > needed) {
        free(instance->arena);
        instance->arena = (unsigned char *)onednn_buffer_create(needed);
        instance->arena_bytes = instance->arena != NULL ? needed : 0;
    }
    return instance->arena != NULL ? 0 : -ENOMEM;
}

static int ready_plan(struct instance *instance, uint32_t count, uint32_t height, uint32_t width)
{
    struct amx_plan *plan = &instance->plan;
    const struct amx_layout *layout = &plan->layout;
    if (layout->count == count && layout->height == height && layout->width == width) {
        return 0;
    }
    amx_plan_free(plan);
    int error = amx_plan_create(&instance->network, codes_of(instance), instance->kernels,
                                instance->weights, instance->options.threads, count, height, width,
                                plan);
    if (error == 0) {
        error = fit_arena(instance);
    }
    if (error != 0) {
        amx_plan_free(plan);
        return error;
    }
    amx_plan_bind(&instance->network, plan, instance->arena);
    return 0;
}

int amx_forward_watched(void *opaque, const struct backend_batch *batch,
                        void (*watch)(void *opaque, const struct amx_layout *layout, size_t group),
                        void *watcher)
{
    struct instance *instance = (struct instance *)opaque;
    if (!backend_batch_fits(&instance->network, batch)) {
        return -EINVAL;
    }
    onednn_parallel_set_threads(instance->options.threads);
    int error = ready_plan(instance, batch->count, batch->height, batch->width);
    if (error != 0) {
        return error;
    }
    struct amx_run run = {.network = &instance->network,
                          .options = &instance->options,
                          .rows = instance->rows,
                          .watch = watch,
                          .opaque = watcher};
    amx_plan_run(&instance->plan, &run, batch, instance->arena);
    return 0;
}

const struct amx_plan *amx_last_plan(const void *opaque)
{
    return &((const struct instance *)opaque)->plan;
}

/* How many tiles of a batch run together. */
static int choose_part(const struct instance *instance, const struct backend_batch *batch,
                       uint32_t *out)
{
    struct amx_layout layout;
    *out = batch->count;
    if (batch->count < 2) {
        return 0;
    }
    int error = amx_layout_create(&instance->network, codes_of(instance), instance->options.threads,
                                  1, batch->height, batch->width, &layout);
    if (error == 0) {
        size_t fit = instance->options.threads * ARENA_BYTES_A_THREAD / layout.arena_bytes;
        *out = fit < 1 ? 1 : fit < batch->count ? (uint32_t)fit : batch->count;
        amx_layout_free(&layout);
    }
    return error;
}

static int forward(void *opaque, const struct backend_batch *batch)
{
    const struct instance *instance = (const struct instance *)opaque;
    uint32_t most = 0;
    bool fits = backend_batch_fits(&instance->network, batch) && batch->count <= MOST_TILES;
    int error = fits ? choose_part(instance, batch, &most) : -EINVAL;
    for (uint32_t done = 0; error == 0 && done < batch->count; done += most) {
        uint32_t left = batch->count - done;
        struct backend_batch part = backend_part(batch, done, left < most ? left : most);
        error = amx_forward_watched(opaque, &part, NULL, NULL);
    }
    return error;
}

static const char *precision_name(const void *opaque)
{
    return ((const struct instance *)opaque)->integer ? "int8" : "bf16";
}

const struct backend backend_amx = {
    .abi = BACKEND_ABI,
    .name = "amx",
    .probe = probe,
    .suits = suits,
    .create = create,
    .forward = forward,
    .precision = precision_name,
    .destroy = destroy,
};
