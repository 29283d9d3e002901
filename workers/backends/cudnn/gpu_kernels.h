/*
 * Our own kernels on a GPU: what moves, shrinks and stretches images between the convolutions, and
 * both ends of the network. One source (gpu_kernels.cu) is compiled by nvcc for devices, and by g++
 * for the double that the tests run on.
 *
 * A kernel takes its arguments as one structure and does `items` things, however many threads there
 * are; there are fewer than 2^31. It exists once for each element type: "gpu_pool_bf16". Images are
 * as in gpu_layout.h: pixels of `pitch` elements, of which `depth` belong to the image, both
 * multiples of 8; data is aligned to 16 bytes.
 */
#ifndef GPU_KERNELS_H
#define GPU_KERNELS_H

#include "gpu_type.h"

#include <stdint.h>

#define GPU_BLOCK_THREADS 256u

/* In the order of enum gpu_kernel. */
#define GPU_KERNELS(X)                                                                             \
    X(load)                                                                                        \
    X(pool)                                                                                        \
    X(halve)                                                                                       \
    X(shuffle)                                                                                     \
    X(upsample)                                                                                    \
    X(fit)                                                                                         \
    X(add)                                                                                         \
    X(labels)                                                                                      \
    X(logits)

enum gpu_kernel {
#define GPU_KERNEL_NUMBER(name) GPU_KERNEL_##name,
    GPU_KERNELS(GPU_KERNEL_NUMBER)
#undef GPU_KERNEL_NUMBER
        GPU_KERNEL_COUNT
};

struct gpu_image {
    void *data; /* channel 0 of the first pixel, on the device */
    uint32_t pitch;
    uint32_t depth;
    uint32_t height;
    uint32_t width;
};

/* The network's input from tiles as they came: packed planes, one tile after the other. An item is
 * a pixel. value = clip((x + offset) / scale); spare channels become 0. */
struct gpu_load_args {
    uint32_t items;
    uint32_t channels;
    const void *tiles;
    struct gpu_image out;
    uint32_t dtype; /* enum unetserve_dtype, U8 to F32 */
    uint32_t clip;
    float offset;
    float scale;
    float low;
    float high;
};

/* Max pooling; padding never wins. An item is 8 channels of an output pixel. */
struct gpu_pool_args {
    uint32_t items;
    uint32_t kernel;
    uint32_t stride;
    uint32_t padding;
    struct gpu_image in;
    struct gpu_image out;
};

/* Max pooling of 2 x 2 pixels, and a copy of the input. An item is 8 channels of 2 x 2 pixels of
 * the input, at its odd ends of fewer. */
struct gpu_halve_args {
    uint32_t items;
    struct gpu_image in;
    struct gpu_image out;
    struct gpu_image copy;
};

/* in: 4 x C channels, [dy][dx][c]; out: C channels at twice the size. An item is 8 channels of an
 * output pixel. */
struct gpu_shuffle_args {
    uint32_t items;
    struct gpu_image in;
    struct gpu_image out;
};

/* Twice the size; mode is enum network_upsample. An item is 8 channels of an output pixel. */
struct gpu_upsample_args {
    uint32_t items;
    uint32_t mode;
    struct gpu_image in;
    struct gpu_image out;
};

/* Zero-padded or cropped: out(y, x) = in(y - top, x - left). An item is 8 channels of an output
 * pixel. */
struct gpu_fit_args {
    uint32_t items;
    int32_t top;
    int32_t left;
    struct gpu_image in;
    struct gpu_image out;
};

/* out = in + second, negative results to 0 if relu. An item is 8 channels of a pixel. */
struct gpu_add_args {
    uint32_t items;
    uint32_t relu;
    struct gpu_image in;
    struct gpu_image second;
    struct gpu_image out;
};

/* The class with the largest value, the first of equal ones; of one class: is it above 0? An item
 * is a pixel. */
struct gpu_labels_args {
    uint32_t items;
    uint32_t classes;
    struct gpu_image in;
    uint8_t *labels;
};

/* Planes of float. An item is a pixel. */
struct gpu_logits_args {
    uint32_t items;
    uint32_t classes;
    struct gpu_image in;
    float *logits;
};

#endif
