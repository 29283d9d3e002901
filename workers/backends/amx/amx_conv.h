/*
 * One convolution on tiles: some rows of an image, for some blocks of its output channels, with
 * everything that happens to them on the way out: bias, ReLU, pooling, the places of a transposed
 * convolution's quarters, labels.
 */
#ifndef AMX_CONV_H
#define AMX_CONV_H

#include "amx_weights.h"
#include "workers/backends/backend.h"
#include "workers/backends/onednn/onednn_kernels.h"

#define AMX_MOST_CLASSES 256u

struct amx_conv {
    const struct amx_kernels *kernels;
    const struct amx_weights *weights;
    size_t *offsets; /* of the steps, in bytes */
    size_t stride;   /* 1 for CONV_UP */
    size_t padding;  /* 0 for CONV_UP */
    size_t height;   /* rows and columns that are summed: the output's, or the input's of CONV_UP */
    size_t width;
    size_t tile_pixels; /* of a row, that make a tile */
    bool up;
    bool relu;
    bool pools;
    bool labels; /* it ends in labels and logits of the batch, not in memory */
    struct onednn_view in;
    struct onednn_view out;
    struct onednn_view pooled;
};

/* Where a convolution that ends in labels puts them. */
struct amx_ends {
    const struct onednn_rows *rows;
    const struct backend_batch *batch;
};

/* A part of a convolution: rows [top, bottom) (an even first one if it pools, and an even last one
 * but for the image's end), and blocks of channels [first, end): all of them if it ends in
 * labels. */
struct amx_part {
    size_t image;
    size_t top;
    size_t bottom;
    size_t first;
    size_t end;
};

/* How many pixels of a row make a tile where rows are so wide. */
size_t amx_tile_pixels(size_t width);

void amx_conv_run(const struct amx_conv *conv, const struct amx_ends *ends,
                  const struct amx_part *part);

#endif
