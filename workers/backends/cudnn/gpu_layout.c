#include "gpu_layout.h"

#include "workers/backends/arena.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NO_PARENT UINT32_MAX

struct value {
    uint32_t depth;
    uint32_t height;
    uint32_t width;
    uint32_t same_as; /* itself, or the value that a fit of equal sizes hands on */
    uint32_t parent;  /* the concatenation that it is written into, or NO_PARENT */
    uint32_t root;    /* the value whose block it lies in */
    uint32_t first;   /* its first channel there */
    bool packed;      /* read by a convolution or stored: must be its own root */
};

/* What a layer does besides: the concatenation that a pooling copies its input into (0: none), and
 * which inputs a concatenation copies itself. */
struct extra {
    uint32_t also;
    uint32_t also_first; /* channel */
    bool copies[2];
};

struct planner {
    const struct network *network;
    struct gpu_layout *layout;
    struct value *values; /* layer_count + 1 */
    struct extra *extras; /* layer_count */
    /* One a value, then one a layer for what it needs besides. Step 0 is the loading of the input,
     * step i + 1 the network's layer i. */
    struct arena_block *blocks;
    struct arena_block **order;
};

size_t gpu_type_bytes(enum gpu_type type)
{
    return type == GPU_F32 ? 4 : 2;
}

static uint32_t round_up(uint32_t channels)
{
    return (channels + GPU_GRANULE - 1) / GPU_GRANULE * GPU_GRANULE;
}

/* Is a value made by a layer that hands its input's channels on as they lie? */
static bool hands_on(enum network_op op)
{
    return op == NETWORK_MAX_POOL || op == NETWORK_UPSAMPLE || op == NETWORK_FIT ||
           op == NETWORK_ADD;
}

uint32_t gpu_layout_depth(const struct network *network, uint32_t value)
{
    uint32_t depth = 0;
    while (value > 0) {
        const struct network_layer *layer = &network->layers[value - 1];
        if (layer->op == NETWORK_CONCAT) {
            depth += gpu_layout_depth(network, layer->inputs[1]);
        } else if (!hands_on(layer->op)) {
            return depth + round_up(layer->channels);
        }
        value = layer->inputs[0];
    }
    return depth + round_up(network->in_channels);
}

static uint32_t channels_of(const struct network *network, uint32_t value)
{
    return value > 0 ? network->layers[value - 1].channels : network->in_channels;
}

uint32_t gpu_layout_place(const struct network *network, uint32_t value, uint32_t channel)
{
    uint32_t before = 0;
    while (value > 0) {
        const struct network_layer *layer = &network->layers[value - 1];
        if (layer->op == NETWORK_CONCAT) {
            uint32_t head = channels_of(network, layer->inputs[0]);
            bool second = channel >= head;
            before += second ? gpu_layout_depth(network, layer->inputs[0]) : 0;
            channel -= second ? head : 0;
            value = layer->inputs[second ? 1 : 0];
        } else if (hands_on(layer->op)) {
            value = layer->inputs[0];
        } else {
            break;
        }
    }
    return before + channel;
}

/* ---- what there is ---- */

static uint32_t input_of(const struct planner *p, size_t layer, int which)
{
    return p->values[p->network->layers[layer].inputs[which]].same_as;
}

static int input_count(enum network_op op)
{
    return op == NETWORK_CONCAT || op == NETWORK_ADD ? 2 : 1;
}

static bool is_conv(enum network_op op)
{
    return op == NETWORK_CONV || op == NETWORK_CONV_UP;
}

static bool idle(const struct planner *p, size_t layer)
{
    return p->values[layer + 1].same_as != layer + 1;
}

/* Do two values hold their channels at the same places? */
static bool same_places(const struct network *network, uint32_t a, uint32_t b, uint32_t channels)
{
    bool same = gpu_layout_depth(network, a) == gpu_layout_depth(network, b);
    for (uint32_t c = 0; c < channels && same; c++) {
        same = gpu_layout_place(network, a, c) == gpu_layout_place(network, b, c);
    }
    return same;
}

/* Do the channels that a layer states follow from its inputs? The kernels rely on it. */
static bool channels_agree(const struct network *network, const struct network_layer *layer)
{
    uint64_t first = channels_of(network, layer->inputs[0]);
    uint64_t second = channels_of(network, layer->inputs[1]);
    if (is_conv(layer->op)) {
        return true;
    }
    if (layer->op == NETWORK_CONCAT) {
        return first + second == layer->channels;
    }
    if (layer->op == NETWORK_ADD &&
        (second != layer->channels ||
         !same_places(network, layer->inputs[0], layer->inputs[1], layer->channels))) {
        return false;
    }
    return first == layer->channels;
}

static int measure_value(const struct planner *p, uint32_t index)
{
    const struct network *network = p->network;
    const struct gpu_layout *layout = p->layout;
    struct value *value = &p->values[index];
    uint32_t channels = 0;
    int error = network_value_shape(network, index, layout->height, layout->width, &channels,
                                    &value->height, &value->width);
    if (error != 0) {
        return error;
    }
    if (channels == 0 || channels > GPU_MAX_ELEMENTS / 8 ||
        (index > 0 && !channels_agree(network, &network->layers[index - 1]))) {
        return -EINVAL;
    }
    value->depth = gpu_layout_depth(network, index);
    value->same_as = index;
    value->parent = NO_PARENT;
    uint64_t plane = (uint64_t)value->height * value->width;
    uint64_t deep = (uint64_t)value->depth * layout->count;
    return plane > GPU_MAX_ELEMENTS || deep > GPU_MAX_ELEMENTS / plane ? -EINVAL : 0;
}

static int measure(const struct planner *p)
{
    for (uint32_t i = 0; i <= p->network->layer_count; i++) {
        int error = measure_value(p, i);
        if (error != 0) {
            return error;
        }
        if (i == 0 || p->network->layers[i - 1].op != NETWORK_FIT) {
            continue;
        }
        uint32_t from = input_of(p, i - 1, 0);
        if (p->values[from].height == p->values[i].height &&
            p->values[from].width == p->values[i].width) {
            p->values[i].same_as = from;
        }
    }
    return 0;
}

static uint32_t result_of(const struct planner *p)
{
    return p->values[p->network->layer_count].same_as;
}

/* ---- who lies in whose block ---- */

static void find_packed(const struct planner *p)
{
    for (size_t i = 0; i < p->network->layer_count; i++) {
        if (is_conv(p->network->layers[i].op)) {
            p->values[input_of(p, i, 0)].packed = true;
        }
    }
    p->values[result_of(p)].packed = true;
}

/* Let `value` be written straight into its part of concatenation `into`, if it can. */
static bool adopt(const struct planner *p, uint32_t value, uint32_t into, uint32_t first)
{
    struct value *v = &p->values[value];
    bool written_by_us = value > 0 && p->network->layers[value - 1].op != NETWORK_CONV;
    if (!written_by_us || v->packed || v->parent != NO_PARENT) {
        return false;
    }
    v->parent = into;
    v->first = first;
    return true;
}

/* The first 2 x 2 pooling before `layer` that reads `value` and copies nothing yet. */
static struct extra *copying_pool(const struct planner *p, uint32_t value, size_t layer)
{
    for (size_t i = 0; i < layer; i++) {
        const struct network_layer *pool = &p->network->layers[i];
        bool halves = pool->op == NETWORK_MAX_POOL && pool->kernel == 2 && pool->stride == 2 &&
                      pool->padding == 0;
        if (halves && input_of(p, i, 0) == value && p->extras[i].also == 0) {
            return &p->extras[i];
        }
    }
    return NULL;
}

static void join(const struct planner *p, size_t layer)
{
    uint32_t joined = (uint32_t)layer + 1;
    uint32_t first = 0;
    for (int k = 0; k < 2; k++) {
        uint32_t value = input_of(p, layer, k);
        if (!adopt(p, value, joined, first)) {
            struct extra *pool = copying_pool(p, value, layer);
            if (pool != NULL) {
                pool->also = joined;
                pool->also_first = first;
            } else {
                p->extras[layer].copies[k] = true;
            }
        }
        first += p->values[value].depth;
    }
}

static void find_roots(const struct planner *p)
{
    for (size_t i = 0; i < p->network->layer_count; i++) {
        if (p->network->layers[i].op == NETWORK_CONCAT) {
            join(p, i);
        }
    }
    /* Parents come later in the list: going backwards, each parent's root is known already. */
    for (size_t i = p->network->layer_count + 1; i-- > 0;) {
        struct value *v = &p->values[i];
        v->root = v->parent == NO_PARENT ? (uint32_t)i : p->values[v->parent].root;
        v->first += v->parent == NO_PARENT ? 0 : p->values[v->parent].first;
    }
}

/* ---- lifetimes and addresses ---- */

static void use(const struct planner *p, uint32_t value, size_t when)
{
    struct arena_block *block = &p->blocks[p->values[value].root];
    block->first = when < block->first ? when : block->first;
    block->last = when > block->last ? when : block->last;
}

static size_t value_bytes(const struct planner *p, const struct value *value)
{
    return (size_t)p->layout->count * value->height * value->width * value->depth *
           gpu_type_bytes(p->layout->type);
}

static struct arena_block *block_besides(const struct planner *p, size_t layer)
{
    return &p->blocks[p->network->layer_count + 1 + layer];
}

static void find_lifetimes(const struct planner *p)
{
    for (uint32_t i = 0; i <= p->network->layer_count; i++) {
        const struct value *v = &p->values[i];
        bool own = v->root == i && v->same_as == i;
        p->blocks[i] = (struct arena_block){.bytes = own ? value_bytes(p, v) : 0,
                                            .first = SIZE_MAX};
    }
    use(p, 0, 0);
    for (size_t i = 0; i < p->network->layer_count; i++) {
        enum network_op op = p->network->layers[i].op;
        for (int k = 0; k < input_count(op) && !idle(p, i); k++) {
            use(p, input_of(p, i, k), i + 1);
        }
        if (!idle(p, i)) {
            use(p, (uint32_t)i + 1, i + 1);
        }
        if (p->extras[i].also != 0) {
            use(p, p->extras[i].also, i + 1);
        }
        if (op == NETWORK_CONV_UP) {
            *block_besides(p, i) = (struct arena_block){
                .bytes = value_bytes(p, &p->values[i + 1]), .first = i + 1, .last = i + 1};
        }
    }
    use(p, result_of(p), p->network->layer_count + 1);
}

static void place(const struct planner *p)
{
    size_t count = 2 * p->network->layer_count + 1;
    p->layout->arena_bytes = arena_place(p->blocks, p->order, count, GPU_ALIGN_BYTES);
    for (size_t i = 0; i < count; i++) {
        p->layout->sum_bytes += p->blocks[i].bytes;
    }
}

/* ---- steps ---- */

/* A part of `root` from channel `first` on, with the size of `shape`. */
static struct gpu_view part_view(const struct planner *p, const struct value *shape, uint32_t root,
                                 uint32_t first)
{
    size_t skipped = first * gpu_type_bytes(p->layout->type);
    return (struct gpu_view){.offset = p->blocks[root].offset + skipped,
                             .pitch = p->values[root].depth,
                             .depth = shape->depth,
                             .height = shape->height,
                             .width = shape->width};
}

static struct gpu_view view_of(const struct planner *p, uint32_t value)
{
    const struct value *v = &p->values[p->values[value].same_as];
    return part_view(p, v, v->root, v->first);
}

/* The place of `value` in concatenation `joined`, from that one's channel `first` on. */
static struct gpu_view half_view(const struct planner *p, uint32_t value, uint32_t joined,
                                 uint32_t first)
{
    const struct value *into = &p->values[joined];
    return part_view(p, &p->values[value], into->root, into->first + first);
}

static struct gpu_step *add_step(const struct planner *p, enum gpu_step_kind kind, size_t layer)
{
    struct gpu_step *step = &p->layout->steps[p->layout->step_count++];
    *step = (struct gpu_step){
        .kind = kind,
        .layer = (uint32_t)layer,
        .in = view_of(p, p->network->layers[layer].inputs[0]),
        .out = view_of(p, (uint32_t)layer + 1),
    };
    return step;
}

static void add_up(const struct planner *p, size_t layer)
{
    struct gpu_step *conv = add_step(p, GPU_STEP_CONV, layer);
    uint32_t depth = 4 * conv->out.depth;
    conv->out = (struct gpu_view){.offset = block_besides(p, layer)->offset,
                                  .pitch = depth,
                                  .depth = depth,
                                  .height = conv->in.height,
                                  .width = conv->in.width};
    struct gpu_step *shuffle = add_step(p, GPU_STEP_SHUFFLE, layer);
    shuffle->in = conv->out;
}

static void add_pool(const struct planner *p, size_t layer)
{
    const struct extra *extra = &p->extras[layer];
    struct gpu_step *pool = add_step(p, GPU_STEP_POOL, layer);
    if (extra->also != 0) {
        pool->copy = half_view(p, input_of(p, layer, 0), extra->also, extra->also_first);
    }
}

static void add_copies(const struct planner *p, size_t layer)
{
    uint32_t first = 0;
    for (int k = 0; k < 2; k++) {
        uint32_t value = input_of(p, layer, k);
        if (p->extras[layer].copies[k]) {
            struct gpu_step *copy = add_step(p, GPU_STEP_FIT, layer);
            copy->in = view_of(p, value);
            copy->out = half_view(p, value, (uint32_t)layer + 1, first);
        }
        first += p->values[value].depth;
    }
}

static void add_layer(const struct planner *p, size_t layer)
{
    switch (p->network->layers[layer].op) {
    case NETWORK_CONV: add_step(p, GPU_STEP_CONV, layer); break;
    case NETWORK_CONV_UP: add_up(p, layer); break;
    case NETWORK_MAX_POOL: add_pool(p, layer); break;
    case NETWORK_UPSAMPLE: add_step(p, GPU_STEP_UPSAMPLE, layer); break;
    case NETWORK_CONCAT: add_copies(p, layer); break;
    case NETWORK_FIT: add_step(p, GPU_STEP_FIT, layer); break;
    case NETWORK_ADD:
        add_step(p, GPU_STEP_ADD, layer)->second = view_of(p, input_of(p, layer, 1));
        break;
    }
}

static int plan(const struct planner *p)
{
    if (p->values == NULL || p->extras == NULL || p->blocks == NULL || p->order == NULL ||
        p->layout->steps == NULL) {
        return -ENOMEM;
    }
    int error = measure(p);
    if (error != 0) {
        return error;
    }
    const struct network *network = p->network;
    for (uint32_t c = 0; c < network->classes; c++) {
        if (gpu_layout_place(network, result_of(p), c) != c) {
            return -EINVAL;
        }
    }
    find_packed(p);
    find_roots(p);
    find_lifetimes(p);
    place(p);
    for (size_t i = 0; i < network->layer_count; i++) {
        if (!idle(p, i)) {
            add_layer(p, i);
        }
    }
    p->layout->input = view_of(p, 0);
    p->layout->result = view_of(p, result_of(p));
    return 0;
}

int gpu_layout_create(const struct network *network, enum gpu_type type, uint32_t count,
                      uint32_t height, uint32_t width, struct gpu_layout *out)
{
    size_t layers = network->layer_count;
    struct gpu_layout layout = {
        .count = count,
        .height = height,
        .width = width,
        .type = type,
        .steps = (struct gpu_step *)calloc(2 * layers + 1, sizeof *layout.steps),
    };
    struct planner p = {
        .network = network,
        .layout = &layout,
        .values = (struct value *)calloc(layers + 1, sizeof *p.values),
        .extras = (struct extra *)calloc(layers + 1, sizeof *p.extras),
        .blocks = (struct arena_block *)calloc(2 * layers + 1, sizeof *p.blocks),
        .order = (struct arena_block **)calloc(2 * layers + 1, sizeof(struct arena_block *)),
    };
    int error = plan(&p);
    free(p.values);
    free(p.extras);
    free(p.blocks);
    free((void *)p.order);
    if (error != 0) {
        gpu_layout_free(&layout);
        return error;
    }
    *out = layout;
    return 0;
}

void gpu_layout_free(struct gpu_layout *layout)
{
    free(layout->steps);
    *layout = (struct gpu_layout){0};
}
