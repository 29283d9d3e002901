#include "network.h"

#include <errno.h>
#include <stdlib.h>

struct size {
    uint32_t channels;
    uint32_t height;
    uint32_t width;
};

/* Output extent of a kernel that slides with padding; 0 when it never fits. */
static uint32_t slide(uint32_t extent, const struct network_layer *layer)
{
    uint64_t padded = (uint64_t)extent + 2 * (uint64_t)layer->padding;
    if (layer->stride == 0 || padded < layer->kernel)
        return 0;
    return (uint32_t)((padded - layer->kernel) / layer->stride + 1);
}

static int layer_size(const struct network_layer *layer, const struct size *values,
                      struct size *out)
{
    struct size a = values[layer->inputs[0]];
    struct size b = values[layer->inputs[1]];
    *out = (struct size){layer->channels, a.height, a.width};
    switch (layer->op) {
    case NETWORK_CONV:
    case NETWORK_MAX_POOL:
        out->height = slide(a.height, layer);
        out->width = slide(a.width, layer);
        break;
    case NETWORK_CONV_UP:
    case NETWORK_UPSAMPLE:
        if (a.height > UINT32_MAX / 2 || a.width > UINT32_MAX / 2)
            return -EINVAL;
        out->height = a.height * 2;
        out->width = a.width * 2;
        break;
    case NETWORK_CONCAT:
    case NETWORK_ADD:
        if (a.height != b.height || a.width != b.width)
            return -EINVAL;
        break;
    case NETWORK_FIT:
        out->height = b.height;
        out->width = b.width;
        break;
    }
    return out->height && out->width ? 0 : -EINVAL;
}

/* Sizes of values 0..last. */
static int walk(const struct network *network, uint32_t last, struct size input,
                struct size *values)
{
    values[0] = input;
    for (uint32_t i = 0; i < last; i++) {
        const struct network_layer *layer = &network->layers[i];
        if (layer->inputs[0] > i || layer->inputs[1] > i)
            return -EINVAL;
        int rc = layer_size(layer, values, &values[i + 1]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int network_value_shape(const struct network *network, uint32_t value, uint32_t height,
                        uint32_t width, uint32_t *channels, uint32_t *value_height,
                        uint32_t *value_width)
{
    struct size values[NETWORK_MAX_LAYERS + 1];
    if (value > network->layer_count || network->layer_count > NETWORK_MAX_LAYERS || !height ||
        !width)
        return -EINVAL;
    int rc = walk(network, value, (struct size){network->in_channels, height, width}, values);
    if (rc < 0)
        return rc;
    *channels = values[value].channels;
    *value_height = values[value].height;
    *value_width = values[value].width;
    return 0;
}

uint64_t network_flop(const struct network *network, uint32_t height, uint32_t width)
{
    struct size values[NETWORK_MAX_LAYERS + 1];
    uint64_t flop = 0;
    if (network->layer_count > NETWORK_MAX_LAYERS ||
        walk(network, (uint32_t)network->layer_count,
             (struct size){network->in_channels, height, width}, values) < 0)
        return 0;
    for (size_t i = 0; i < network->layer_count; i++) {
        const struct network_layer *layer = &network->layers[i];
        const struct size *out = &values[i + 1];
        uint64_t per_pixel = 2ull * values[layer->inputs[0]].channels * layer->channels;
        if (layer->op == NETWORK_CONV)
            per_pixel *= (uint64_t)layer->kernel * layer->kernel;
        /* Each output pixel of a transposed 2x2 stride-2 convolution takes one weight an input
         * channel. */
        if (layer->op == NETWORK_CONV || layer->op == NETWORK_CONV_UP)
            flop += per_pixel * out->height * out->width;
    }
    return flop;
}

void network_free(struct network *network)
{
    for (size_t i = 0; i < network->layer_count; i++) {
        free(network->layers[i].weights);
        free(network->layers[i].bias);
    }
    free(network->layers);
    *network = (struct network){0};
}
