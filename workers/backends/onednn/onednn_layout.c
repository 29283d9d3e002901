#include "onednn_layout.h"

#include "workers/backends/arena.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NO_PARENT UINT32_MAX

struct planner {
    const struct network *network;
    struct onednn_layout *layout;
    uint32_t *parent; /* a value's concatenation, NO_PARENT for a root */
    bool *packed;     /* read by a convolution, or stored: must be its own root */
    bool *read;
    /* value_count roots first, then what layers need besides. Step 0 loads the input, step i + 1 is
     * layer i. */
    struct arena_block *blocks;
    size_t block_count;
    struct arena_block **order;
};

static uint32_t input_of(const struct planner *p, size_t layer, int which)
{
    return p->layout->values[p->network->layers[layer].inputs[which]].same_as;
}

static int input_count(enum network_op op)
{
    return op == NETWORK_CONCAT || op == NETWORK_ADD ? 2 : 1;
}

static bool idle(const struct planner *p, size_t layer)
{
    return p->layout->values[layer + 1].same_as != layer + 1;
}

static bool is_conv(enum network_op op)
{
    return op == NETWORK_CONV || op == NETWORK_CONV_UP;
}

/* Do the channels that a layer states follow from its inputs? The kernels rely on it. */
static bool channels_agree(const struct planner *p, size_t layer)
{
    const struct network_layer *l = &p->network->layers[layer];
    const struct onednn_value *values = p->layout->values;
    switch (l->op) {
    case NETWORK_CONV:
    case NETWORK_CONV_UP: return true;
    case NETWORK_CONCAT:
        return (uint64_t)values[l->inputs[0]].channels + values[l->inputs[1]].channels ==
               l->channels;
    case NETWORK_ADD:
        return values[l->inputs[0]].channels == l->channels &&
               values[l->inputs[1]].channels == l->channels;
    case NETWORK_MAX_POOL:
    case NETWORK_UPSAMPLE:
    case NETWORK_FIT: break;
    }
    return values[l->inputs[0]].channels == l->channels;
}

static int measure_value(const struct planner *p, uint32_t index)
{
    struct onednn_layout *layout = p->layout;
    struct onednn_value *value = &layout->values[index];
    int error = network_value_shape(p->network, index, layout->height, layout->width,
                                    &value->channels, &value->height, &value->width);
    if (error != 0) {
        return error;
    }
    if (value->channels == 0 || (index > 0 && !channels_agree(p, index - 1))) {
        return -EINVAL;
    }
    value->pitch = value->channels;
    value->same_as = index;
    if (layout->codes != NULL) {
        value->border = layout->codes->values[index].border;
    }
    uint64_t plane = ((uint64_t)value->height + 2 * value->border) *
                     ((uint64_t)value->width + 2 * value->border);
    uint64_t deep = (uint64_t)value->pitch * layout->count;
    return plane > ONEDNN_MAX_ELEMENTS || deep > ONEDNN_MAX_ELEMENTS / plane ? -EINVAL : 0;
}

static int measure(const struct planner *p, enum onednn_type type)
{
    struct onednn_layout *layout = p->layout;
    for (uint32_t i = 0; i < layout->value_count; i++) {
        int error = measure_value(p, i);
        if (error != 0) {
            return error;
        }
        struct onednn_value *value = &layout->values[i];
        bool coded = layout->codes != NULL && layout->codes->values[i].coded;
        value->type = coded ? ONEDNN_U8 : type;
        if (i == 0 || p->network->layers[i - 1].op != NETWORK_FIT) {
            continue;
        }
        uint32_t from = input_of(p, i - 1, 0);
        const struct onednn_value *in = &layout->values[from];
        if (in->height == value->height && in->width == value->width) {
            value->same_as = from;
        }
    }
    layout->result = layout->values[layout->value_count - 1].same_as;
    return 0;
}

static void find_readers(const struct planner *p)
{
    for (size_t i = 0; i < p->network->layer_count; i++) {
        enum network_op op = p->network->layers[i].op;
        for (int k = 0; k < input_count(op) && !idle(p, i); k++) {
            uint32_t value = input_of(p, i, k);
            p->read[value] = true;
            p->packed[value] |= is_conv(op);
        }
    }
    uint32_t result = p->layout->result;
    p->packed[result] = true;
    if (!p->read[result] && result > 0 && p->network->layers[result - 1].op == NETWORK_CONV) {
        p->layout->values[result].type = ONEDNN_F32; /* a convolution's sums, unrounded */
    }
}

/* Let `value` be written straight into its part of concatenation `into`, if it can. */
static bool adopt(const struct planner *p, uint32_t value, uint32_t into, uint32_t channel)
{
    bool written_by_us = value > 0 && p->network->layers[value - 1].op != NETWORK_CONV;
    if (!written_by_us || p->packed[value] || p->parent[value] != NO_PARENT) {
        return false;
    }
    p->parent[value] = into;
    p->layout->values[value].channel = channel;
    return true;
}

/* The first 2 x 2 pooling before `layer` that reads `value` and is free to copy it on the way. */
static struct onednn_placing *copying_pool(const struct planner *p, uint32_t value, size_t layer)
{
    for (size_t i = 0; i < layer; i++) {
        const struct network_layer *pool = &p->network->layers[i];
        bool halves = pool->op == NETWORK_MAX_POOL && pool->kernel == 2 && pool->stride == 2 &&
                      pool->padding == 0;
        if (halves && input_of(p, i, 0) == value && p->layout->layers[i].also == 0) {
            return &p->layout->layers[i];
        }
    }
    return NULL;
}

static void join(const struct planner *p, size_t layer)
{
    uint32_t joined = (uint32_t)layer + 1;
    uint32_t channel = 0;
    for (int k = 0; k < 2; k++) {
        uint32_t value = input_of(p, layer, k);
        if (!adopt(p, value, joined, channel)) {
            struct onednn_placing *pool = copying_pool(p, value, layer);
            if (pool != NULL) {
                pool->also = joined;
                pool->also_second = (uint32_t)k;
            } else {
                p->layout->layers[layer].copies[k] = true;
            }
        }
        channel += p->layout->values[value].channels;
    }
}

static void find_roots(const struct planner *p)
{
    for (size_t i = 0; i < p->network->layer_count; i++) {
        if (p->network->layers[i].op == NETWORK_CONCAT) {
            join(p, i);
        }
    }
    /* Parents come later in the list, so that going backwards each parent's root is already known.
     */
    struct onednn_value *values = p->layout->values;
    for (size_t i = p->layout->value_count; i-- > 0;) {
        uint32_t parent = p->parent[i];
        values[i].root = parent == NO_PARENT ? (uint32_t)i : values[parent].root;
        values[i].channel += parent == NO_PARENT ? 0 : values[parent].channel;
    }
}

/* ---- lifetimes and addresses ---- */

static void use(const struct planner *p, uint32_t value, size_t step)
{
    struct arena_block *block = &p->blocks[p->layout->values[value].root];
    block->first = step < block->first ? step : block->first;
    block->last = step > block->last ? step : block->last;
}

static size_t value_bytes(const struct onednn_layout *layout, const struct onednn_value *value)
{
    size_t height = value->height + 2 * (size_t)value->border;
    size_t width = value->width + 2 * (size_t)value->border;
    return (size_t)layout->count * height * width * value->pitch * onednn_type_bytes(value->type);
}

static void besides(struct planner *p, size_t bytes, size_t step, size_t *result)
{
    p->blocks[p->block_count++] = (struct arena_block){
        .bytes = bytes, .first = step, .last = step, .result = result};
}

/* What a convolution puts out, where that is not yet the layer's value. */
static void find_scratch(struct planner *p, size_t layer, enum onednn_type type)
{
    const struct onednn_layout *layout = p->layout;
    struct onednn_placing *placing = &layout->layers[layer];
    struct onednn_value value = layout->values[layer + 1];
    bool sums_codes = layout->values[input_of(p, layer, 0)].type == ONEDNN_U8;
    placing->scratch_type = value.type == ONEDNN_U8 && !sums_codes ? type : value.type;
    placing->has_scratch = p->network->layers[layer].op == NETWORK_CONV_UP ||
                           placing->scratch_type != value.type;
    if (placing->has_scratch) {
        value.type = placing->scratch_type;
        value.border = 0;
        besides(p, value_bytes(layout, &value), layer + 1, &placing->scratch);
    }
}

static void find_lifetimes(struct planner *p, enum onednn_type type)
{
    struct onednn_layout *layout = p->layout;
    for (size_t i = 0; i < layout->value_count; i++) {
        struct onednn_value *value = &layout->values[i];
        bool own = value->root == i && value->same_as == i;
        p->blocks[p->block_count++] = (struct arena_block){.bytes = own ? value_bytes(layout, value)
                                                                        : 0,
                                                           .first = SIZE_MAX,
                                                           .result = &value->offset};
    }
    use(p, 0, 0);
    for (size_t i = 0; i < p->network->layer_count; i++) {
        if (idle(p, i)) {
            continue;
        }
        enum network_op op = p->network->layers[i].op;
        for (int k = 0; k < input_count(op); k++) {
            use(p, input_of(p, i, k), i + 1);
        }
        use(p, (uint32_t)i + 1, i + 1);
        if (layout->layers[i].also != 0) {
            use(p, layout->layers[i].also, i + 1);
        }
        if (is_conv(op)) {
            find_scratch(p, i, type);
        }
    }
    const struct onednn_value *result = &layout->values[layout->result];
    use(p, layout->result, layout->value_count);
    if (result->type != ONEDNN_F32) {
        besides(p, value_bytes(layout, result) * 2, layout->value_count, &layout->result_offset);
    }
}

static int plan(struct planner *p, enum onednn_type type)
{
    size_t values = p->layout->value_count;
    p->parent = (uint32_t *)malloc(values * sizeof *p->parent);
    p->packed = (bool *)calloc(values, sizeof *p->packed);
    p->read = (bool *)calloc(values, sizeof *p->read);
    p->blocks = (struct arena_block *)calloc(2 * values + 1, sizeof *p->blocks);
    p->order = (struct arena_block **)calloc(2 * values + 1, sizeof(struct arena_block *));
    bool allocated = p->parent != NULL && p->packed != NULL && p->read != NULL &&
                     p->blocks != NULL && p->order != NULL;
    if (!allocated || p->layout->values == NULL || p->layout->layers == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < values; i++) {
        p->parent[i] = NO_PARENT;
    }
    int error = measure(p, type);
    if (error != 0) {
        return error;
    }
    find_readers(p);
    find_roots(p);
    find_lifetimes(p, type);
    p->layout->arena_bytes = arena_place(p->blocks, p->order, p->block_count, ARENA_ALIGN_BYTES);
    return 0;
}

int onednn_layout_create(const struct network *network, enum onednn_type type,
                         const struct quantise_plan *codes, uint32_t count, uint32_t height,
                         uint32_t width, struct onednn_layout *out)
{
    struct onednn_layout layout = {
        .codes = codes,
        .count = count,
        .height = height,
        .width = width,
        .value_count = network->layer_count + 1,
        .values = (struct onednn_value *)calloc(network->layer_count + 1, sizeof *layout.values),
        .layers = (struct onednn_placing *)calloc(network->layer_count, sizeof *layout.layers),
    };
    struct planner p = {.network = network, .layout = &layout};
    int error = plan(&p, type);
    free(p.parent);
    free(p.packed);
    free(p.read);
    free(p.blocks);
    free((void *)p.order);
    if (error != 0) {
        onednn_layout_free(&layout);
        return error;
    }
    *out = layout;
    return 0;
}

void onednn_layout_free(struct onednn_layout *layout)
{
    free(layout->values);
    free(layout->layers);
    *layout = (struct onednn_layout){0};
}

struct onednn_view onednn_layout_view(const struct onednn_layout *layout, uint32_t value,
                                      unsigned char *arena)
{
    const struct onednn_value *v = &layout->values[layout->values[value].same_as];
    const struct onednn_value *root = &layout->values[v->root];
    size_t offset = root->offset + v->channel * onednn_type_bytes(v->type);
    return (struct onednn_view){.data = arena + offset,
                                .pitch = root->pitch,
                                .channels = v->channels,
                                .height = v->height,
                                .width = v->width,
                                .type = v->type,
                                .border = root->border,
                                .codes = layout->codes != NULL
                                             ? &layout->codes->values[layout->values[value].same_as]
                                             : NULL};
}
