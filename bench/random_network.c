#include "random_network.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_DEPTH 8

struct builder {
    struct network *network;
    uint32_t state; /* of the random numbers */
    int error;
};

static float random_float(struct builder *b)
{
    b->state = b->state * 1664525u + 1013904223u;
    return (float)(b->state >> 8) / 8388608.0F - 1.0F;
}

static float *random_floats(struct builder *b, size_t count, float scale)
{
    float *values = (float *)malloc(count * sizeof *values);
    if (values == NULL) {
        b->error = -ENOMEM;
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        values[i] = random_float(b) * scale;
    }
    return values;
}

static uint32_t channels_of(const struct builder *b, uint32_t value)
{
    return value == 0 ? b->network->in_channels : b->network->layers[value - 1].channels;
}

static uint32_t append(struct builder *b, struct network_layer layer, const char *kind)
{
    struct network *network = b->network;
    snprintf(layer.name, sizeof layer.name, "%s%zu", kind, network->layer_count);
    network->layers[network->layer_count++] = layer;
    return (uint32_t)network->layer_count;
}

static uint32_t add_convolution(struct builder *b, enum network_op op, uint32_t in,
                                uint32_t channels, uint32_t kernel)
{
    size_t fan_in = (size_t)channels_of(b, in) * (op == NETWORK_CONV ? kernel * kernel : 1);
    size_t count = (size_t)channels_of(b, in) * channels * kernel * kernel;
    struct network_layer layer = {.op = op,
                                  .inputs = {in},
                                  .channels = channels,
                                  .kernel = kernel,
                                  .stride = 1,
                                  .padding = kernel == 3,
                                  .relu = kernel == 3};
    layer.weights = random_floats(b, count, sqrtf(6.0F / (float)fan_in));
    layer.bias = random_floats(b, channels, 0.1F);
    b->network->parameters += count + channels;
    return append(b, layer, op == NETWORK_CONV ? "conv" : "up");
}

static uint32_t add_level(struct builder *b, uint32_t in, uint32_t channels)
{
    uint32_t inner = add_convolution(b, NETWORK_CONV, in, channels, 3);
    return add_convolution(b, NETWORK_CONV, inner, channels, 3);
}

static uint32_t add_pool(struct builder *b, uint32_t in)
{
    struct network_layer pool = {.op = NETWORK_MAX_POOL,
                                 .inputs = {in},
                                 .channels = channels_of(b, in),
                                 .kernel = 2,
                                 .stride = 2};
    return append(b, pool, "pool");
}

static uint32_t add_concat(struct builder *b, uint32_t skip, uint32_t up)
{
    struct network_layer concat = {.op = NETWORK_CONCAT,
                                   .inputs = {skip, up},
                                   .channels = channels_of(b, skip) + channels_of(b, up)};
    return append(b, concat, "concat");
}

static void add_layers(struct builder *b, const struct random_network *sizes)
{
    uint32_t skips[MAX_DEPTH];
    uint32_t x = 0;
    for (uint32_t level = 0; level < sizes->depth; level++) {
        skips[level] = add_level(b, x, sizes->base << level);
        x = add_pool(b, skips[level]);
    }
    x = add_level(b, x, sizes->base << sizes->depth);
    for (uint32_t level = sizes->depth; level-- > 0;) {
        uint32_t up = add_convolution(b, NETWORK_CONV_UP, x, sizes->base << level, 2);
        x = add_level(b, add_concat(b, skips[level], up), sizes->base << level);
    }
    add_convolution(b, NETWORK_CONV, x, sizes->classes, 1);
}

int random_network_make(const struct random_network *sizes, struct network *out)
{
    assert(sizes->depth <= MAX_DEPTH);
    struct network network = {.family = "random",
                              .up = "transposed",
                              .in_channels = sizes->channels,
                              .classes = sizes->classes,
                              .depth = sizes->depth,
                              .base_width = sizes->base,
                              .size_multiple = 1u << sizes->depth,
                              .size_min = 1u << sizes->depth};
    network.layers = (struct network_layer *)calloc((size_t)sizes->depth * 7 + 3,
                                                    sizeof *network.layers);
    if (network.layers == NULL) {
        return -ENOMEM;
    }
    struct builder builder = {.network = &network, .state = 1};
    add_layers(&builder, sizes);
    if (builder.error != 0) {
        network_free(&network);
        return builder.error;
    }
    *out = network;
    return 0;
}
