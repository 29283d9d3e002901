/*
 * What a family of UNets yields and what a backend runs: a list of layers in the order of
 * execution, each writing one value (an image of C channels at 1/stride of the input's size) from
 * one or two earlier values. Batch norm is already folded into weights and bias, ReLU into the
 * layer's flag, so a backend sees nothing but these operations. Weights are float32, owned by the
 * network.
 */
#ifndef NETWORK_H
#define NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NETWORK_MAX_LAYERS 1024

/* CONV       weights [out][in][kernel][kernel], zero padding, square stride; bias; relu optional
 * CONV_UP    transposed convolution, kernel 2, stride 2: weights [in][out][2][2]; bias
 * MAX_POOL   kernel, stride, padding (floor mode, padding never wins)
 * UPSAMPLE   x2, nearest, or bilinear with or without aligned corners
 * CONCAT     first input's channels, then the second's; equal sizes
 * FIT        the first input zero-padded (or cropped, where negative) to the size of the second, as
 * milesial's F.pad([dx/2, dx - dx/2, dy/2, dy - dy/2]) does ADD        elementwise sum; relu
 * optional (residual encoders) */
enum network_op {
    NETWORK_CONV,
    NETWORK_CONV_UP,
    NETWORK_MAX_POOL,
    NETWORK_UPSAMPLE,
    NETWORK_CONCAT,
    NETWORK_FIT,
    NETWORK_ADD,
};

enum network_upsample { NETWORK_NEAREST, NETWORK_BILINEAR, NETWORK_BILINEAR_ALIGNED };

struct network_layer {
    enum network_op op;
    uint32_t inputs[2]; /* value numbers: 0 is the network's input, i + 1 the output of layer i */
    uint32_t channels;  /* of the output */
    uint32_t kernel;    /* CONV, MAX_POOL */
    uint32_t stride;    /* CONV, MAX_POOL */
    uint32_t padding;   /* CONV, MAX_POOL */
    enum network_upsample upsample;
    bool relu;      /* CONV, ADD */
    float *weights; /* CONV, CONV_UP; else NULL */
    float *bias;    /* CONV, CONV_UP: channels floats, never NULL there */
    char name[64];  /* where the weights came from ("down1.maxpool_conv.1.double_conv.0"), for logs
                       and plans */
};

struct network {
    char family[32]; /* "milesial", "mateuszbuda", ... */
    char up[16];     /* "transposed", "bilinear", "nearest" */
    uint32_t in_channels;
    uint32_t classes; /* channels of the last layer; 1: a threshold at logit 0 instead of argmax */
    uint32_t depth;   /* times that the size is halved */
    uint32_t base_width;    /* channels of the first level */
    uint32_t size_multiple; /* H and W must be multiples of it: 1 where the network fits odd sizes
                               itself, else 2^depth */
    uint32_t size_min;      /* smallest H and W that the network runs on */
    uint64_t parameters;    /* as torch counts them: learnable elements in the state dict */
    size_t layer_count;
    struct network_layer *layers;
};

/* Multiply-adds x 2 of every convolution for one H x W tile. */
uint64_t network_flop(const struct network *network, uint32_t height, uint32_t width);

/* Channels, height and width of a value (0: the input) for an H x W tile. 0, or -EINVAL when the
 * sizes do not fit. */
int network_value_shape(const struct network *network, uint32_t value, uint32_t height,
                        uint32_t width, uint32_t *channels, uint32_t *value_height,
                        uint32_t *value_width);

void network_free(struct network *network);

#endif
