#include "onednn.h"

#include "onednn_packed.h"
#include "onednn_parallel.h"
#include "onednn_precision.h"
#include "workers/backends/packed_share.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The tile that primitives and weights are prepared for at create: the usual one. */
#define USUAL_TILE 256u
/* oneDNN keeps primitives of its own accord (1024 by default), whatever we free. Plans hold what is
 * in use, so this many, enough for a plan to share the layers that repeat. */
#define KEPT_PRIMITIVES 64
/* How much room for activations a thread may ask for: with more, a batch is run in parts. Two tiles
 * of the 31M-parameter network on two threads; more tiles at once make neither of them busier. */
#define ARENA_BYTES_A_THREAD ((size_t)50 << 20)
/* More tiles than any caller can mean. */
#define MOST_TILES 65536u

struct cached_plan {
    struct onednn_plan plan; /* layout.count 0: empty */
    uint64_t used;           /* when, in forwards */
};

struct instance {
    struct network network; /* a copy without weights, biases */
    struct backend_options options;
    enum onednn_type type;                         /* of floats */
    bool integer;                                  /* precision int8, and then codes */
    const struct onednn_winograd_kernel *winograd; /* NULL: all convolutions are direct */
    struct quantise_plan codes;
    struct onednn_machine machine;
    const struct onednn_rows *rows;
    struct onednn_weights *weights; /* one a layer */
    struct packed_map packed;       /* what they lie in, if they are shared */
    struct cached_plan plans[ONEDNN_PLANS];
    const struct onednn_plan *last;
    uint64_t forwards;
    unsigned char *arena;
    size_t arena_bytes;
};

static int probe(char *error, size_t error_size)
{
    if (dnnl_engine_get_count(dnnl_cpu) == 0) {
        snprintf(error, error_size, "oneDNN has no CPU engine on this machine");
        return -ENODEV;
    }
    return 0;
}

/* ---- making ---- */

static dnnl_status_t add_relu(dnnl_primitive_attr_t attr)
{
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t status = dnnl_post_ops_create(&ops);
    if (status == dnnl_success) {
        status = dnnl_post_ops_append_eltwise(ops, 1.0F, dnnl_eltwise_relu, 0.0F, 0.0F);
        if (status == dnnl_success) {
            status = dnnl_primitive_attr_set_post_ops(attr, ops);
        }
        dnnl_post_ops_destroy(ops);
    }
    return status;
}

static dnnl_status_t attr_create(bool relu, dnnl_primitive_attr_t *out)
{
    dnnl_status_t status = dnnl_primitive_attr_create(out);
    if (status == dnnl_success) {
        status = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    }
    return status == dnnl_success && relu ? add_relu(*out) : status;
}

static dnnl_status_t machine_start(struct onednn_machine *machine)
{
    dnnl_status_t status = dnnl_engine_create(&machine->engine, dnnl_cpu, 0);
    if (status == dnnl_success) {
        status = dnnl_stream_create(&machine->stream, machine->engine, dnnl_stream_default_flags);
    }
    if (status == dnnl_success) {
        status = attr_create(false, &machine->plain);
    }
    if (status == dnnl_success) {
        status = attr_create(true, &machine->relu);
    }
    return status;
}

static void machine_stop(struct onednn_machine *machine)
{
    if (machine->relu != NULL) {
        dnnl_primitive_attr_destroy(machine->relu);
    }
    if (machine->plain != NULL) {
        dnnl_primitive_attr_destroy(machine->plain);
    }
    if (machine->stream != NULL) {
        dnnl_stream_destroy(machine->stream);
    }
    if (machine->engine != NULL) {
        dnnl_engine_destroy(machine->engine);
    }
}

static void destroy(void *opaque)
{
    struct instance *instance = (struct instance *)opaque;
    for (size_t i = 0; i < ONEDNN_PLANS; i++) {
        onednn_plan_free(&instance->plans[i].plan);
    }
    for (size_t i = 0; instance->weights != NULL && i < instance->network.layer_count; i++) {
        onednn_weights_free(&instance->weights[i]);
    }
    packed_cache_unmap(&instance->packed);
    free(instance->weights);
    free(instance->network.layers);
    quantise_plan_free(&instance->codes);
    free(instance->arena);
    machine_stop(&instance->machine);
    free(instance);
}

static uint32_t channels_of(const struct network *network, uint32_t value)
{
    return value == 0 ? network->in_channels : network->layers[value - 1].channels;
}

static uint32_t usual_size(const struct network *network)
{
    uint32_t multiple = network->size_multiple > 0 ? network->size_multiple : 1;
    uint32_t size = USUAL_TILE > network->size_min ? USUAL_TILE : network->size_min;
    return (size + multiple - 1) / multiple * multiple;
}

static int take_integers(const struct network *network, size_t index, struct instance *instance)
{
    const struct network_layer *layer = &network->layers[index];
    struct quantise_conv integers;
    int error = quantise_conv_create(network, &instance->codes, index, &integers);
    return error != 0 ? error
                      : onednn_weights_create_integer(&instance->machine, layer,
                                                      channels_of(network, layer->inputs[0]),
                                                      &integers, &instance->weights[index]);
}

/* The kernel that is to run a layer, whatever size its images have; NULL: oneDNN. */
static const struct onednn_winograd_kernel *winograd_of(const struct network *network, size_t index,
                                                        const struct instance *instance)
{
    const struct network_layer *layer = &network->layers[index];
    uint32_t size = usual_size(network);
    uint32_t channels = 0;
    uint32_t height = 0;
    uint32_t width = 0;
    bool fits = layer->op == NETWORK_CONV && layer->kernel == 3 && layer->stride == 1 &&
                layer->padding == 1 &&
                network_value_shape(network, (uint32_t)index + 1, size, size, &channels, &height,
                                    &width) == 0;
    return fits && onednn_winograd_pays(channels_of(network, layer->inputs[0]), channels, height,
                                        width)
               ? instance->winograd
               : NULL;
}

static int take_layer(const struct network *network, size_t index, struct instance *instance)
{
    const struct network_layer *layer = &network->layers[index];
    const struct onednn_machine *machine = &instance->machine;
    struct onednn_weights *weights = &instance->weights[index];
    uint32_t from = channels_of(network, layer->inputs[0]);
    bool integer = instance->integer && quantise_layer_is_integer(network, &instance->codes, index);
    const struct onednn_winograd_kernel *winograd = winograd_of(network, index, instance);
    if (instance->packed.view.data != NULL) {
        enum onednn_type type = integer ? ONEDNN_S8 : instance->type;
        return onednn_weights_adopt(machine, layer, type, winograd, from, &instance->packed.view,
                                    (uint32_t)index, weights);
    }
    if (winograd != NULL) {
        return onednn_weights_create_winograd(machine, layer, winograd, from,
                                              instance->options.threads, weights);
    }
    return integer ? take_integers(network, index, instance)
                   : onednn_weights_create(machine, layer, instance->type, from, weights);
}

static int take_weights(const struct network *network, struct instance *instance)
{
    for (size_t i = 0; i < network->layer_count; i++) {
        enum network_op op = network->layers[i].op;
        int error = op == NETWORK_CONV || op == NETWORK_CONV_UP ? take_layer(network, i, instance)
                                                                : 0;
        if (error != 0) {
            return error;
        }
    }
    return 0;
}

/* ---- plans ---- */

static struct cached_plan *oldest_plan(struct instance *instance)
{
    struct cached_plan *oldest = &instance->plans[0];
    for (size_t i = 1; i < ONEDNN_PLANS; i++) {
        if (instance->plans[i].used < oldest->used) {
            oldest = &instance->plans[i];
        }
    }
    return oldest;
}

static void drop_plan(struct instance *instance, struct cached_plan *cached)
{
    if (instance->last == &cached->plan) {
        instance->last = NULL;
    }
    onednn_plan_free(&cached->plan);
    cached->used = 0;
}

/* A third form of some layer's weights is wanted: all plans go, since they may name the second. */
static void make_room(struct instance *instance, size_t layer)
{
    for (size_t i = 0; i < ONEDNN_PLANS; i++) {
        drop_plan(instance, &instance->plans[i]);
    }
    onednn_weights_drop_second(&instance->weights[layer]);
}

static int make_plan(struct instance *instance, uint32_t count, uint32_t height, uint32_t width,
                     struct cached_plan **out)
{
    struct cached_plan *cached = oldest_plan(instance);
    drop_plan(instance, cached);
    size_t busy = 0;
    int error = -EBUSY;
    for (size_t i = 0; i <= instance->network.layer_count && error == -EBUSY; i++) {
        error = onednn_plan_create(&instance->network, &instance->machine, instance->type,
                                   instance->integer ? &instance->codes : NULL, instance->weights,
                                   instance->options.threads, count, height, width, &busy,
                                   &cached->plan);
        if (error == -EBUSY) {
            make_room(instance, busy);
        }
    }
    if (error != 0) {
        return error == -EBUSY ? -EIO : error;
    }
    *out = cached;
    return 0;
}

static int find_plan(struct instance *instance, uint32_t count, uint32_t height, uint32_t width,
                     struct cached_plan **out)
{
    for (size_t i = 0; i < ONEDNN_PLANS; i++) {
        const struct onednn_layout *layout = &instance->plans[i].plan.layout;
        if (layout->count == count && layout->height == height && layout->width == width) {
            *out = &instance->plans[i];
            return 0;
        }
    }
    return make_plan(instance, count, height, width, out);
}

/* What the arena must hold: whatever ran lately. */
static size_t arena_needed(const struct instance *instance)
{
    size_t needed = 0;
    for (size_t i = 0; i < ONEDNN_PLANS; i++) {
        const struct cached_plan *cached = &instance->plans[i];
        bool lately = instance->forwards - cached->used < ONEDNN_LATELY;
        if (cached->plan.layout.count > 0 && lately) {
            size_t bytes = onednn_plan_arena_bytes(&cached->plan);
            needed = bytes > needed ? bytes : needed;
        }
    }
    return needed;
}

/* Make the arena large enough for every plan that ran lately, and not much larger: a single huge
 * image must not cost its memory for ever. All plans are bound anew when it moves; those that it
 * does not hold go. */
static int fit_arena(struct instance *instance)
{
    size_t needed = arena_needed(instance);
    if (instance->arena != NULL && instance->arena_bytes >= needed &&
        instance->arena_bytes / 2 <= needed) {
        return 0;
    }
    free(instance->arena);
    for (size_t i = 0; i < ONEDNN_PLANS; i++) {
        struct cached_plan *cached = &instance->plans[i];
        cached->plan.arena = NULL;
        if (cached->plan.layout.count > 0 && onednn_plan_arena_bytes(&cached->plan) > needed) {
            drop_plan(instance, cached);
        }
    }
    instance->arena = (unsigned char *)onednn_buffer_create(needed);
    instance->arena_bytes = instance->arena != NULL ? needed : 0;
    return instance->arena != NULL ? 0 : -ENOMEM;
}

static int ready_plan(struct instance *instance, uint32_t count, uint32_t height, uint32_t width,
                      struct onednn_plan **out)
{
    struct cached_plan *cached = NULL;
    int error = find_plan(instance, count, height, width, &cached);
    if (error != 0) {
        return error;
    }
    cached->used = ++instance->forwards;
    error = fit_arena(instance);
    if (error == -ENOMEM) {
        drop_plan(instance, cached);
        return error;
    }
    if (cached->plan.arena == NULL) {
        error = onednn_plan_bind(&cached->plan, instance->arena);
        if (error != 0) {
            return error;
        }
    }
    *out = &cached->plan;
    return 0;
}

static int prepare_usual(struct instance *instance)
{
    uint32_t size = usual_size(&instance->network);
    struct onednn_plan *plan = NULL;
    return ready_plan(instance, 1, size, size, &plan);
}

/* What create works with. */
struct making {
    const struct network *network; /* perhaps without weights */
    const struct backend_options *options;
    enum onednn_type type;
    bool integer;
    const struct onednn_winograd_kernel *winograd;
    char *error;
    size_t error_size;
};

static int fill_instance(struct instance *instance, const struct network *network,
                         const struct making *making)
{
    dnnl_status_t status = machine_start(&instance->machine);
    if (status != dnnl_success) {
        snprintf(making->error, making->error_size, "oneDNN did not start (status %d)",
                 (int)status);
        return status == dnnl_out_of_memory ? -ENOMEM : -ENODEV;
    }
    (void)dnnl_set_primitive_cache_capacity(KEPT_PRIMITIVES);
    int code = backend_copy_network(network, &instance->network);
    instance->weights = (struct onednn_weights *)calloc(network->layer_count,
                                                        sizeof *instance->weights);
    code = instance->weights == NULL ? -ENOMEM : code;
    if (code == 0 && making->integer) {
        code = quantise_plan_create(network, making->options->ranges, &instance->codes);
    }
    if (code == 0) {
        code = take_weights(network, instance);
    }
    if (code == 0) {
        code = prepare_usual(instance);
    }
    if (code == -ENOMEM) {
        snprintf(making->error, making->error_size,
                 "not enough memory for the network's %llu parameters",
                 (unsigned long long)network->parameters);
    } else if (code != 0) {
        snprintf(making->error, making->error_size, "oneDNN cannot run this network: %s",
                 strerror(-code));
    }
    return code == -EIO ? -ENODEV : code;
}

/* An instance with weights of its own, or, if packed is not NULL, with those; on success they are
 * the instance's to unmap. */
static int make_instance(const struct making *making, const struct network *network,
                         const struct packed_map *packed, struct instance **out)
{
    struct instance *made = (struct instance *)calloc(1, sizeof *made);
    if (made == NULL) {
        snprintf(making->error, making->error_size, "out of memory");
        return -ENOMEM;
    }
    made->options = *making->options;
    made->options.precision = NULL; /* the caller's strings need not live on */
    made->options.convolution = NULL;
    made->options.cache_dir = NULL;
    made->options.ranges = NULL;
    made->options.observe = making->type == ONEDNN_F32 && !making->integer ? made->options.observe
                                                                           : NULL;
    made->type = making->type;
    made->integer = making->integer;
    made->winograd = making->winograd;
    made->rows = onednn_rows_select(onednn_isa_detect().vector);
    if (packed != NULL) {
        made->packed = *packed;
    }
    int code = fill_instance(made, network, making);
    if (code != 0) {
        made->packed = (struct packed_map){0};
        destroy(made);
        return code;
    }
    *out = made;
    return 0;
}

static int make_private(const struct making *making, struct instance **out)
{
    const struct network *network = NULL;
    int code = backend_load(making->network, making->options, &network, making->error,
                            making->error_size);
    return code == 0 ? make_instance(making, network, NULL, out) : code;
}

/* ---- packed weights that all workers share ---- */

static int adopt_shared(void *opaque, const struct packed_map *packed, void **out)
{
    const struct making *making = (const struct making *)opaque;
    struct instance *made = NULL;
    int code = make_instance(making, making->network, packed, &made);
    *out = made;
    return code;
}

static int pack_own(void *opaque, void **out)
{
    struct instance *made = NULL;
    int code = make_private((const struct making *)opaque, &made);
    *out = made;
    return code;
}

static int write_shared(void *opaque, void *made, struct packed_draft *draft, char *note,
                        size_t note_size)
{
    const struct instance *instance = (const struct instance *)made;
    (void)opaque;
    return onednn_packed_write(&instance->network, instance->weights, draft, note, note_size);
}

static void tell_winograd(const struct backend_options *options, const struct instance *instance)
{
    size_t all = 0;
    size_t count = 0;
    for (size_t i = 0; i < instance->network.layer_count; i++) {
        all += instance->weights[i].bias != NULL ? 1 : 0;
        count += instance->weights[i].winograd != NULL ? 1 : 0;
    }
    if (count > 0 && options->log != NULL) {
        char text[96];
        snprintf(text, sizeof text, "%zu of %zu convolutions are Winograd's, for %s", count, all,
                 instance->winograd->name);
        options->log(options->opaque, 6, text);
    }
}

static int create(const struct network *network, const struct backend_options *options,
                  void **instance, char *error, size_t error_size)
{
    struct making making = {
        .network = network, .options = options, .error = error, .error_size = error_size};
    struct onednn_precision precision;
    int code = onednn_precision_choose(network, options, &precision, error, error_size);
    if (code != 0) {
        return code;
    }
    if (network->layer_count == 0 || options->threads == 0) {
        snprintf(error, error_size, "a network needs a layer, and a backend a thread");
        return -EINVAL;
    }
    making.type = precision.type;
    making.integer = precision.integer;
    struct onednn_isa isa = onednn_isa_detect();
    making.winograd = precision.winograd ? onednn_winograd_select(&isa) : NULL;
    onednn_parallel_set_threads(options->threads);
    struct packed_hash key = onednn_packed_key(network, options, making.type, making.winograd,
                                               usual_size(network));
    struct packed_maker maker = {&making, adopt_shared, pack_own, write_shared, destroy};
    void *made = NULL;
    code = packed_share(options, &key, &maker, &made);
    if (code == 0) {
        tell_winograd(options, (const struct instance *)made);
        *instance = made;
    }
    return code;
}

/* ---- running ---- */

int onednn_forward_timed(void *opaque, const struct backend_batch *batch, struct onednn_time *times)
{
    struct instance *instance = (struct instance *)opaque;
    const struct network *network = &instance->network;
    if (!backend_batch_fits(network, batch)) {
        return -EINVAL;
    }
    onednn_parallel_set_threads(instance->options.threads);
    struct onednn_plan *plan = NULL;
    int error = ready_plan(instance, batch->count, batch->height, batch->width, &plan);
    if (error != 0) {
        return error;
    }
    struct onednn_run run = {.network = network,
                             .machine = &instance->machine,
                             .options = &instance->options,
                             .rows = instance->rows,
                             .times = times};
    instance->last = plan;
    return onednn_plan_run(plan, &run, batch);
}

/* Room that one tile of that size takes. 0, -EINVAL, -ENOMEM. */
static int tile_bytes(const struct instance *instance, uint32_t height, uint32_t width, size_t *out)
{
    struct onednn_layout layout;
    for (size_t i = 0; i < ONEDNN_PLANS; i++) {
        const struct onednn_layout *known = &instance->plans[i].plan.layout;
        if (known->count > 0 && known->height == height && known->width == width) {
            *out = known->arena_bytes / known->count;
            return 0;
        }
    }
    const struct quantise_plan *codes = instance->integer ? &instance->codes : NULL;
    int error = onednn_layout_create(&instance->network, instance->type, codes, 1, height, width,
                                     &layout);
    if (error == 0) {
        *out = layout.arena_bytes;
        onednn_layout_free(&layout);
    }
    return error;
}

/* How many tiles of a batch run together. */
static int choose_part(const struct instance *instance, const struct backend_batch *batch,
                       uint32_t *out)
{
    size_t bytes = 0;
    if (batch->count > MOST_TILES) {
        return -EINVAL;
    }
    int error = batch->count < 2 ? 0 : tile_bytes(instance, batch->height, batch->width, &bytes);
    if (error == 0) {
        size_t room = instance->options.threads * ARENA_BYTES_A_THREAD;
        size_t fit = bytes > 0 ? room / bytes : batch->count;
        *out = fit < 1 ? 1 : fit < batch->count ? (uint32_t)fit : batch->count;
    }
    return error;
}

static int forward(void *opaque, const struct backend_batch *batch)
{
    uint32_t most = 0;
    int error = choose_part((const struct instance *)opaque, batch, &most);
    for (uint32_t done = 0; error == 0 && (done < batch->count || done == 0); done += most) {
        uint32_t left = batch->count - done;
        struct backend_batch part = backend_part(batch, done, left < most ? left : most);
        error = onednn_forward_timed(opaque, &part, NULL);
    }
    return error;
}

size_t onednn_arena_bytes(const void *opaque)
{
    const struct instance *instance = (const struct instance *)opaque;
    return instance->arena_bytes;
}

const char *onednn_implementation(const void *opaque, size_t layer)
{
    const struct instance *instance = (const struct instance *)opaque;
    return instance->last != NULL ? instance->last->steps[layer].implementation : "";
}

static const char *precision_name(const void *opaque)
{
    const struct instance *instance = (const struct instance *)opaque;
    const char *floats = instance->type == ONEDNN_BF16 ? "bf16" : "f32";
    return instance->integer ? "int8" : floats;
}

const struct backend backend_onednn = {
    .abi = BACKEND_ABI,
    .name = "onednn",
    .probe = probe,
    .check_precision = onednn_precision_check,
    .create = create,
    .forward = forward,
    .precision = precision_name,
    .destroy = destroy,
};
