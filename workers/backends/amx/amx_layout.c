#include "amx_layout.h"

#include "amx_weights.h"
#include "workers/backends/arena.h"

#include <errno.h>
#include <stdlib.h>

#define MAX_ELEMENTS INT32_MAX
/* Fewer rows than these a thread, and what both neighbours compute weighs more than what is saved.
 */
#define MIN_BAND_ROWS 8u
#define BLOCK_ROWS    4u

struct planner {
    const struct network *network;
    struct amx_layout *layout;
    uint32_t threads;
    bool *read;
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

static bool is_conv(enum network_op op)
{
    return op == NETWORK_CONV || op == NETWORK_CONV_UP;
}

bool amx_layout_idle(const struct network *network, const struct amx_layout *layout, size_t layer)
{
    const struct amx_placing *placing = &layout->layers[layer];
    bool joined = network->layers[layer].op == NETWORK_CONCAT && !placing->copies[0] &&
                  !placing->copies[1];
    return layout->values[layer + 1].same_as != layer + 1 || placing->done_before || joined;
}

/* ---- sizes ---- */

/* Do the channels that a layer states follow from its inputs? The kernels rely on it. */
static bool channels_agree(const struct planner *p, size_t layer)
{
    const struct network_layer *l = &p->network->layers[layer];
    const struct amx_value *values = p->layout->values;
    uint64_t first = values[l->inputs[0]].channels;
    if (is_conv(l->op)) {
        return true;
    }
    if (l->op == NETWORK_CONCAT) {
        return first + values[l->inputs[1]].channels == l->channels;
    }
    bool second = l->op != NETWORK_ADD || values[l->inputs[1]].channels == l->channels;
    return first == l->channels && second;
}

static int measure(const struct planner *p)
{
    struct amx_layout *layout = p->layout;
    for (uint32_t i = 0; i < layout->value_count; i++) {
        struct amx_value *value = &layout->values[i];
        int error = network_value_shape(p->network, i, layout->height, layout->width,
                                        &value->channels, &value->height, &value->width);
        if (error != 0) {
            return error;
        }
        if (value->channels == 0 || (i > 0 && !channels_agree(p, i - 1))) {
            return -EINVAL;
        }
        bool coded = layout->codes != NULL && layout->codes->values[i].coded;
        value->element = coded ? 1 : sizeof(uint16_t);
        value->same_as = i;
        value->parent = AMX_NONE;
        if (i > 0 && p->network->layers[i - 1].op == NETWORK_FIT) {
            uint32_t from = input_of(p, i - 1, 0);
            const struct amx_value *in = &layout->values[from];
            bool equal = in->height == value->height && in->width == value->width;
            value->same_as = equal ? from : i;
        }
    }
    layout->result = layout->values[layout->value_count - 1].same_as;
    return 0;
}

/* ---- what is done by whom ---- */

static void find_readers(const struct planner *p)
{
    for (size_t i = 0; i < p->network->layer_count; i++) {
        bool handed_on = p->layout->values[i + 1].same_as != i + 1;
        for (int k = 0; k < input_count(p->network->layers[i].op) && !handed_on; k++) {
            p->read[input_of(p, i, k)] = true;
        }
    }
    uint32_t result = p->layout->result;
    p->layout->result_at_once = result > 0 && !p->read[result] &&
                                p->network->layers[result - 1].op == NETWORK_CONV;
}

/* Pooling that halves, right behind the convolution whose value it reads. */
static void find_pools(const struct planner *p)
{
    for (size_t i = 1; i < p->network->layer_count; i++) {
        const struct network_layer *pool = &p->network->layers[i];
        bool halves = pool->op == NETWORK_MAX_POOL && pool->kernel == 2 && pool->stride == 2 &&
                      pool->padding == 0;
        if (halves && p->network->layers[i - 1].op == NETWORK_CONV && input_of(p, i, 0) == i) {
            p->layout->layers[i - 1].pooled = (uint32_t)i + 1;
            p->layout->layers[i].done_before = true;
        }
    }
}

/* Let a value be written straight into its part of a concatenation, if it can. */
static bool adopt(const struct planner *p, uint32_t value, uint32_t into, uint32_t channel)
{
    struct amx_value *v = &p->layout->values[value];
    if (value == 0 || v->parent != AMX_NONE || amx_pitch(v->channels, v->element) != v->channels ||
        value == p->layout->result) {
        return false;
    }
    v->parent = into;
    v->channel = channel;
    return true;
}

static void find_roots(const struct planner *p)
{
    struct amx_value *values = p->layout->values;
    for (size_t i = 0; i < p->network->layer_count; i++) {
        if (p->network->layers[i].op != NETWORK_CONCAT) {
            continue;
        }
        uint32_t channel = 0;
        for (int k = 0; k < 2; k++) {
            uint32_t value = input_of(p, i, k);
            p->layout->layers[i].copies[k] = !adopt(p, value, (uint32_t)i + 1, channel);
            channel += values[value].channels;
        }
    }
    /* Parents come later in the list, so that going backwards each parent's root is known. */
    for (size_t i = p->layout->value_count; i-- > 0;) {
        uint32_t parent = values[i].parent;
        values[i].root = parent == AMX_NONE ? (uint32_t)i : values[parent].root;
        values[i].channel += parent == AMX_NONE ? 0 : values[parent].channel;
    }
}

static int find_borders(const struct planner *p)
{
    struct amx_layout *layout = p->layout;
    for (size_t i = 0; i < p->network->layer_count; i++) {
        const struct network_layer *l = &p->network->layers[i];
        if (!is_conv(l->op)) {
            continue;
        }
        struct amx_value *root = &layout->values[layout->values[input_of(p, i, 0)].root];
        uint32_t padding = l->op == NETWORK_CONV ? l->padding : 0;
        uint32_t reach = l->op == NETWORK_CONV ? AMX_ROWS * l->stride + l->kernel : AMX_ROWS;
        root->border = padding > root->border ? padding : root->border;
        root->reach = reach > root->reach ? reach : root->reach;
    }
    for (size_t i = 0; i < layout->value_count; i++) {
        struct amx_value *value = &layout->values[i];
        value->pitch = amx_pitch(value->channels, value->element);
        uint64_t plane = ((uint64_t)value->height + 2 * (uint64_t)value->border) *
                         ((uint64_t)value->width + 2 * (uint64_t)value->border);
        uint64_t deep = (uint64_t)value->pitch * layout->count;
        if (plane > MAX_ELEMENTS || deep > MAX_ELEMENTS / plane) {
            return -EINVAL;
        }
    }
    return 0;
}

bool amx_layout_contains(const struct amx_layout *layout, uint32_t reader, uint32_t value)
{
    uint32_t whole = layout->values[reader].same_as;
    for (uint32_t at = value; at != AMX_NONE; at = layout->values[at].parent) {
        if (at == whole) {
            return true;
        }
    }
    return false;
}

/* ---- groups ---- */

static size_t weight_bytes(const struct planner *p, size_t layer)
{
    struct amx_shape shape = amx_shape_of(p->network, p->layout->codes, layer);
    return amx_packed_bytes(&shape);
}

/* What a convolution reads and writes for BLOCK_ROWS rows of an image that is so much lower. */
static size_t strip_bytes(const struct planner *p, size_t layer, uint32_t last_height)
{
    const struct network_layer *l = &p->network->layers[layer];
    const struct amx_value *in = &p->layout->values[l->inputs[0]];
    const struct amx_value *out = &p->layout->values[layer + 1];
    uint64_t rows = BLOCK_ROWS * (uint64_t)in->height / last_height + 2;
    uint64_t more = BLOCK_ROWS * (uint64_t)out->height / last_height;
    return (size_t)(rows * in->width * in->channels * in->element +
                    more * out->width * out->channels * out->element);
}

/* Do layers [first, end) fit together, a few rows at a time? */
static bool rows_fit(const struct planner *p, size_t first, size_t end)
{
    size_t weights = 0;
    size_t strips = 0;
    size_t convs = 0;
    uint32_t last = p->layout->values[end].height;
    for (size_t i = first; i < end; i++) {
        if (is_conv(p->network->layers[i].op)) {
            weights += weight_bytes(p, i);
            strips += strip_bytes(p, i, last);
            convs++;
        }
    }
    return convs <= AMX_GROUP_LAYERS && last >= MIN_BAND_ROWS * p->threads &&
           weights <= AMX_GROUP_WEIGHT_BYTES && strips <= AMX_STRIP_BYTES;
}

static void add_group(const struct planner *p, enum amx_mode mode, size_t first, size_t end)
{
    uint32_t number = (uint32_t)p->layout->group_count++;
    p->layout->groups[number] = (struct amx_group){mode, (uint32_t)first, (uint32_t)end};
    for (size_t i = first; i < end; i++) {
        p->layout->layers[i].group = number;
    }
}

/* The end of the longest group of ROWS that begins with convolution `first`. */
static size_t end_of_rows(const struct planner *p, size_t first)
{
    size_t end = first + 1;
    for (size_t i = first + 1; i < p->network->layer_count; i++) {
        if (amx_layout_idle(p->network, p->layout, i)) {
            continue;
        }
        if (!is_conv(p->network->layers[i].op) || !rows_fit(p, first, i + 1)) {
            break;
        }
        end = i + 1;
    }
    return end;
}

static void find_groups(const struct planner *p)
{
    for (size_t i = 0; i < p->network->layer_count;) {
        size_t end = i + 1;
        bool stores = p->layout->result_at_once && i + 1 == p->layout->result;
        if (amx_layout_idle(p->network, p->layout, i) || !is_conv(p->network->layers[i].op)) {
            add_group(p, AMX_MODE_WHOLE, i, end);
        } else if (rows_fit(p, i, i + 1)) {
            end = end_of_rows(p, i);
            add_group(p, AMX_MODE_ROWS, i, end);
        } else {
            add_group(p, stores ? AMX_MODE_ROWS : AMX_MODE_CHANNELS, i, end);
        }
        i = end;
    }
}

/* ---- lifetimes and addresses ---- */

static size_t value_bytes(const struct amx_layout *layout, const struct amx_value *value)
{
    size_t height = value->height + 2 * (size_t)value->border;
    size_t width = value->width + 2 * (size_t)value->border;
    size_t pixels = layout->count * height * width + value->reach;
    return pixels * value->pitch * value->element;
}

/* Groups are steps, counted from 1: 0 loads the input. */
static void use(const struct planner *p, uint32_t value, size_t step)
{
    struct arena_block *block = &p->blocks[p->layout->values[value].root];
    block->first = step < block->first ? step : block->first;
    block->last = step > block->last ? step : block->last;
}

static void use_layer(const struct planner *p, size_t layer)
{
    size_t step = p->layout->layers[layer].group + 1;
    const struct amx_placing *placing = &p->layout->layers[layer];
    bool stores = p->layout->result_at_once && layer + 1 == p->layout->result;
    for (int k = 0; k < input_count(p->network->layers[layer].op); k++) {
        use(p, input_of(p, layer, k), step);
    }
    if (!stores) {
        use(p, (uint32_t)layer + 1, step);
    }
    if (placing->pooled != 0) {
        use(p, placing->pooled, step);
    }
}

static void place(struct planner *p)
{
    struct amx_layout *layout = p->layout;
    for (size_t i = 0; i < layout->value_count; i++) {
        struct amx_value *value = &layout->values[i];
        p->blocks[p->block_count++] = (struct arena_block){
            .first = SIZE_MAX, .bytes = value_bytes(layout, value), .result = &value->offset};
    }
    use(p, 0, 0);
    for (size_t i = 0; i < p->network->layer_count; i++) {
        if (layout->values[i + 1].same_as == i + 1) {
            use_layer(p, i);
        }
    }
    if (!layout->result_at_once) {
        const struct amx_value *result = &layout->values[layout->result];
        size_t floats = (size_t)layout->count * result->height * result->width * result->channels;
        use(p, layout->result, layout->group_count + 1);
        p->blocks[p->block_count++] = (struct arena_block){.bytes = floats * sizeof(float),
                                                           .first = layout->group_count + 1,
                                                           .last = layout->group_count + 1,
                                                           .result = &layout->result_offset};
    }
    for (size_t i = 0; i < layout->value_count; i++) {
        layout->values[i].begins = p->blocks[i].first;
        p->blocks[i].bytes = p->blocks[i].first == SIZE_MAX ? 0 : p->blocks[i].bytes;
    }
    layout->arena_bytes = arena_place(p->blocks, p->order, p->block_count, ARENA_ALIGN_BYTES);
}

/* ---- all of it ---- */

static int plan(struct planner *p)
{
    struct amx_layout *layout = p->layout;
    size_t values = layout->value_count;
    p->read = (bool *)calloc(values, sizeof *p->read);
    p->blocks = (struct arena_block *)calloc(values + 1, sizeof *p->blocks);
    p->order = (struct arena_block **)calloc(values + 1, sizeof(struct arena_block *));
    bool allocated = p->read != NULL && p->blocks != NULL && p->order != NULL;
    if (!allocated || layout->values == NULL || layout->layers == NULL || layout->groups == NULL) {
        return -ENOMEM;
    }
    int error = measure(p);
    if (error == 0) {
        find_readers(p);
        find_pools(p);
        find_roots(p);
        error = find_borders(p);
    }
    if (error == 0) {
        find_groups(p);
        place(p);
    }
    return error;
}

int amx_layout_create(const struct network *network, const struct quantise_plan *codes,
                      uint32_t threads, uint32_t count, uint32_t height, uint32_t width,
                      struct amx_layout *out)
{
    size_t layers = network->layer_count;
    struct amx_layout layout = {
        .codes = codes,
        .count = count,
        .height = height,
        .width = width,
        .value_count = layers + 1,
        .values = (struct amx_value *)calloc(layers + 1, sizeof *layout.values),
        .layers = (struct amx_placing *)calloc(layers, sizeof *layout.layers),
        .groups = (struct amx_group *)calloc(layers, sizeof *layout.groups),
    };
    struct planner p = {.network = network, .layout = &layout, .threads = threads};
    int error = plan(&p);
    free(p.read);
    free(p.blocks);
    free((void *)p.order);
    if (error != 0) {
        amx_layout_free(&layout);
        return error;
    }
    *out = layout;
    return 0;
}

void amx_layout_free(struct amx_layout *layout)
{
    free(layout->values);
    free(layout->layers);
    free(layout->groups);
    *layout = (struct amx_layout){0};
}

struct onednn_view amx_layout_view(const struct amx_layout *layout, uint32_t value,
                                   unsigned char *arena)
{
    uint32_t same = layout->values[value].same_as;
    const struct amx_value *v = &layout->values[same];
    const struct amx_value *root = &layout->values[v->root];
    return (struct onednn_view){.data = arena + root->offset + v->channel * (size_t)v->element,
                                .pitch = root->pitch,
                                .channels = v->channels,
                                .height = v->height,
                                .width = v->width,
                                .type = v->element == 1 ? ONEDNN_U8 : ONEDNN_BF16,
                                .border = root->border,
                                .codes = layout->codes != NULL ? &layout->codes->values[same]
                                                               : NULL};
}
