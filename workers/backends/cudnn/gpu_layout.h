/*
 * What a GPU does for a batch of one shape: a list of steps, and where in one arena each of them
 * finds and leaves its images. Pure arithmetic, no CUDA.
 *
 * Images are N x H x W x C; their channels in memory (depth) are a multiple of GPU_GRANULE, the
 * spare ones zero: a convolution writes them so, and everything else hands them on. A concatenation
 * of images with spare channels has them in its middle, so gpu_layout_place says where a channel
 * lies, and weights are spread accordingly.
 *
 * Convolutions read and write packed images. What our own kernels write goes straight into its half
 * of a concatenation where nothing but they read it; what a convolution wrote is copied there by
 * the pooling that reads it anyway, or by a step of its own. A stretch of the arena is used again
 * as soon as its value has been read for the last time.
 */
#ifndef GPU_LAYOUT_H
#define GPU_LAYOUT_H

#include "gpu_type.h"
#include "workers/models/unet/network.h"

/* More elements in one value than this are refused: 32-bit offsets inside the convolutions. */
#define GPU_MAX_ELEMENTS INT32_MAX

/* Blocks in the arena begin at multiples of this. */
#define GPU_ALIGN_BYTES 512u

/* An image: depth channels out of pixels that are pitch channels apart. */
struct gpu_view {
    size_t offset; /* bytes into the arena */
    uint32_t pitch;
    uint32_t depth;
    uint32_t height;
    uint32_t width;
};

enum gpu_step_kind {
    GPU_STEP_CONV,    /* out = convolution of in, both packed */
    GPU_STEP_SHUFFLE, /* in: [dy][dx][c] channels; out: c channels at twice the size */
    GPU_STEP_POOL,    /* with copy.depth > 0, in is also copied there */
    GPU_STEP_UPSAMPLE,
    GPU_STEP_FIT, /* in, padded or cropped around the middle; of equal sizes: a copy */
    GPU_STEP_ADD, /* out = in + second */
};

struct gpu_step {
    enum gpu_step_kind kind;
    uint32_t layer; /* whose kernel, stride, padding, upsample and relu hold */
    struct gpu_view in;
    struct gpu_view second; /* ADD */
    struct gpu_view copy;   /* POOL */
    struct gpu_view out;
};

struct gpu_layout {
    uint32_t count; /* images in the batch */
    uint32_t height;
    uint32_t width;
    enum gpu_type type;
    size_t step_count;
    struct gpu_step *steps;
    struct gpu_view input;  /* what the tiles are loaded into */
    struct gpu_view result; /* what labels are made from: the network's last value */
    size_t arena_bytes;
    size_t sum_bytes; /* what all values would take together, for comparison */
};

size_t gpu_type_bytes(enum gpu_type type);

/* Channels that a value has in memory, and which of them holds its channel number `channel`. */
uint32_t gpu_layout_depth(const struct network *network, uint32_t value);
uint32_t gpu_layout_place(const struct network *network, uint32_t value, uint32_t channel);

/* 0; -EINVAL when the network does not take the size, a value gets too large, or an addition or the
 * result has spare channels in its middle; -ENOMEM. Free with gpu_layout_free. */
int gpu_layout_create(const struct network *network, enum gpu_type type, uint32_t count,
                      uint32_t height, uint32_t width, struct gpu_layout *out);
void gpu_layout_free(struct gpu_layout *layout);

#endif
