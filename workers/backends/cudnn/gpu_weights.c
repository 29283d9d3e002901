#include "gpu_weights.h"

#include "gpu_layout.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint16_t to_bf16(uint32_t bits)
{
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return 0x7fc0;
    }
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* Shift right, to nearest even. */
static uint32_t shift_round(uint32_t value, uint32_t shift)
{
    uint32_t half = 1u << (shift - 1);
    uint32_t rest = value & ((1u << shift) - 1);
    uint32_t whole = value >> shift;
    return whole + (rest > half || (rest == half && (whole & 1u)));
}

static uint16_t to_f16(uint32_t bits)
{
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t exponent = bits >> 23 & 0xffu;
    uint32_t fraction = bits & 0x7fffffu;
    if (exponent == 0xff) {
        return (uint16_t)(sign | 0x7c00u | (fraction != 0 ? 0x200u : 0));
    }
    if (exponent >= 143) { /* 65536 and more */
        return (uint16_t)(sign | 0x7c00u);
    }
    if (exponent >= 113) { /* a carry out of the fraction raises the exponent, up to infinity */
        return (uint16_t)(sign | (shift_round((exponent - 112) << 23 | fraction, 13)));
    }
    if (exponent < 102) { /* less than half of the smallest */
        return (uint16_t)sign;
    }
    return (uint16_t)(sign | shift_round(fraction | 0x800000u, 126 - exponent));
}

uint16_t gpu_weights_narrow(enum gpu_type type, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return type == GPU_BF16 ? to_bf16(bits) : to_f16(bits);
}

/* ---- sizes ---- */

struct sizes {
    size_t outputs; /* in memory: for CONV_UP 4 x its channels */
    size_t in_depth;
    size_t taps;
};

static bool has_weights(const struct network_layer *layer)
{
    return layer->op == NETWORK_CONV || layer->op == NETWORK_CONV_UP;
}

static struct sizes sizes_of(const struct network *network, size_t index)
{
    const struct network_layer *layer = &network->layers[index];
    bool up = layer->op == NETWORK_CONV_UP;
    size_t depth = gpu_layout_depth(network, (uint32_t)index + 1);
    return (struct sizes){.outputs = up ? 4 * depth : depth,
                          .in_depth = gpu_layout_depth(network, layer->inputs[0]),
                          .taps = up ? 1 : (size_t)layer->kernel * layer->kernel};
}

static size_t align(size_t bytes)
{
    return (bytes + GPU_ALIGN_BYTES - 1) / GPU_ALIGN_BYTES * GPU_ALIGN_BYTES;
}

static size_t weight_elements(const struct sizes *sizes)
{
    return sizes->outputs * sizes->taps * sizes->in_depth;
}

/* ---- order ---- */

static void put(enum gpu_type type, void *to, size_t at, float value)
{
    if (type == GPU_F32) {
        ((float *)to)[at] = value;
    } else {
        ((uint16_t *)to)[at] = gpu_weights_narrow(type, value);
    }
}

static void order_conv(const struct network *network, const struct network_layer *layer,
                       const struct sizes *sizes, uint32_t in_channels, enum gpu_type type,
                       void *to)
{
    for (uint32_t c = 0; c < in_channels; c++) {
        size_t place = gpu_layout_place(network, layer->inputs[0], c);
        for (size_t o = 0; o < layer->channels; o++) {
            const float *from = layer->weights + (o * in_channels + c) * sizes->taps;
            for (size_t t = 0; t < sizes->taps; t++) {
                put(type, to, (o * sizes->taps + t) * sizes->in_depth + place, from[t]);
            }
        }
    }
}

/* [in][out][2][2] as [dy][dx][out][in]. */
static void order_up(const struct network *network, const struct network_layer *layer,
                     const struct sizes *sizes, uint32_t in_channels, enum gpu_type type, void *to)
{
    size_t depth = sizes->outputs / 4;
    for (uint32_t c = 0; c < in_channels; c++) {
        size_t place = gpu_layout_place(network, layer->inputs[0], c);
        for (size_t o = 0; o < layer->channels; o++) {
            const float *from = layer->weights + ((size_t)c * layer->channels + o) * 4;
            for (size_t k = 0; k < 4; k++) {
                put(type, to, (k * depth + o) * sizes->in_depth + place, from[k]);
            }
        }
    }
}

/* A layer's weights, then its bias, as they shall lie on the device. */
static void order_layer(const struct network *network, size_t index, enum gpu_type type,
                        unsigned char *weights, unsigned char *bias)
{
    const struct network_layer *layer = &network->layers[index];
    const struct sizes sizes = sizes_of(network, index);
    uint32_t from = layer->inputs[0];
    uint32_t in_channels = from > 0 ? network->layers[from - 1].channels : network->in_channels;
    bool up = layer->op == NETWORK_CONV_UP;
    size_t depth = up ? sizes.outputs / 4 : sizes.outputs;
    if (up) {
        order_up(network, layer, &sizes, in_channels, type, weights);
    } else {
        order_conv(network, layer, &sizes, in_channels, type, weights);
    }
    for (size_t first = 0; first < sizes.outputs; first += depth) {
        for (size_t o = 0; o < layer->channels; o++) {
            put(type, bias, first + o, layer->bias[o]);
        }
    }
}

/* ---- on the device ---- */

static int upload_layer(struct gpu_device *device, const struct network *network, size_t index,
                        enum gpu_type type, CUdeviceptr at, struct gpu_layer_weights *out,
                        size_t *used)
{
    const struct sizes sizes = sizes_of(network, index);
    size_t weight_bytes = align(weight_elements(&sizes) * gpu_type_bytes(type));
    size_t bytes = weight_bytes + align(sizes.outputs * gpu_type_bytes(type));
    unsigned char *ordered = (unsigned char *)calloc(1, bytes);
    if (ordered == NULL) {
        return -ENOMEM;
    }
    order_layer(network, index, type, ordered, ordered + weight_bytes);
    int code = gpu_call(device, cuMemcpyHtoD, at, ordered, bytes);
    free(ordered);
    *out = (struct gpu_layer_weights){.weights = at, .bias = at + weight_bytes};
    *used = bytes;
    return code;
}

static size_t measure(const struct network *network, enum gpu_type type)
{
    size_t bytes = 0;
    for (size_t i = 0; i < network->layer_count; i++) {
        if (has_weights(&network->layers[i])) {
            const struct sizes sizes = sizes_of(network, i);
            bytes += align(weight_elements(&sizes) * gpu_type_bytes(type)) +
                     align(sizes.outputs * gpu_type_bytes(type));
        }
    }
    return bytes;
}

int gpu_weights_create(struct gpu_device *device, const struct network *network, enum gpu_type type,
                       struct gpu_weights *out)
{
    struct gpu_weights weights = {.bytes = measure(network, type)};
    weights.layers = (struct gpu_layer_weights *)calloc(network->layer_count,
                                                        sizeof *weights.layers);
    int code = weights.layers != NULL ? 0 : -ENOMEM;
    if (code == 0 && weights.bytes > 0) {
        code = gpu_call(device, cuMemAlloc, &weights.memory, weights.bytes);
    }
    CUdeviceptr at = weights.memory;
    for (size_t i = 0; i < network->layer_count && code == 0; i++) {
        size_t used = 0;
        if (has_weights(&network->layers[i])) {
            code = upload_layer(device, network, i, type, at, &weights.layers[i], &used);
            at += used;
        }
    }
    /* The driver takes the bytes at once and brings them over on its own stream, for which streams
     * of ours do not wait. */
    code = code == 0 ? gpu_call(device, cuStreamSynchronize, NULL) : code;
    if (code != 0) {
        gpu_weights_free(device, &weights);
        return code;
    }
    *out = weights;
    return 0;
}

void gpu_weights_free(struct gpu_device *device, struct gpu_weights *weights)
{
    if (weights->memory != 0) {
        device->driver->cuMemFree(weights->memory);
    }
    free(weights->layers);
    *weights = (struct gpu_weights){0};
}
