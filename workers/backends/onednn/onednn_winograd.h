/*
 * 3 x 3 convolutions in f32 by Winograd's F(4x4, 3x3): a tile of 4 x 4 outputs takes 36 products
 * for each pair of channels where sums as they are written take 144. Tiles and weights are
 * transformed, multiplied as 36 matrices, and transformed back. Sums are rounded otherwise than
 * those of a direct convolution, and err a few times as much.
 *
 * Images are interleaved, as everywhere here, their pixels `pitch` floats apart. There is one
 * source (onednn_winograd_body.h) for AVX2 with FMA and for AVX-512; other processors have none.
 */
#ifndef ONEDNN_WINOGRAD_H
#define ONEDNN_WINOGRAD_H

#include "onednn_isa.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WINOGRAD_TILE   4u                              /* outputs of a side */
#define WINOGRAD_SIDE   6u                              /* inputs of a side */
#define WINOGRAD_POINTS (WINOGRAD_SIDE * WINOGRAD_SIDE) /* matrices */

/* The points that the polynomials are evaluated at, besides 0 and infinity: +-A and +-B. Exact in
 * binary, and so chosen that transforms neither grow nor shrink much: the usual 1 and 2 err more
 * than twice as much. */
#define WINOGRAD_A 0.6875
#define WINOGRAD_B 1.375

/* A convolution with padding 1 and stride 1 of `count` images. in and out do not overlap. */
struct onednn_winograd_layer {
    const float *in;
    size_t in_pitch; /* floats between neighbouring pixels */
    size_t in_channels;
    float *out;
    size_t out_pitch;
    size_t out_channels;
    const float *weights; /* packed */
    const float *bias;    /* out_channels */
    size_t count;
    size_t height;
    size_t width;
    bool relu;
};

/* What one call of a kernel works on: tiles [first, first + tiles) of all images', and panels
 * [panel, panel_end) of output channels. */
struct onednn_winograd_part {
    size_t first;
    size_t tiles;
    size_t panel;
    size_t panel_end;
    float *scratch;
};

struct onednn_winograd_kernel {
    const char *name; /* of the instruction set */
    size_t panel;     /* output channels that are computed together */
    size_t rows;      /* tiles that are */
    void (*run)(const struct onednn_winograd_layer *layer, const struct onednn_winograd_part *part);
};

/* Floats of one tile's input at one point: channels, and so many that the rows of a product do not
 * all fall into the same sets of a cache. */
static inline size_t onednn_winograd_row(size_t channels)
{
    return (channels + 15) / 16 * 16 + 16;
}

/* For this processor; NULL: it has none. */
const struct onednn_winograd_kernel *onednn_winograd_select(const struct onednn_isa *isa);

/* Does a layer of these sizes gain by it? */
bool onednn_winograd_pays(size_t in_channels, size_t out_channels, size_t height, size_t width);

/* Bytes of packed weights. */
size_t onednn_winograd_weights_bytes(const struct onednn_winograd_kernel *kernel,
                                     size_t in_channels, size_t out_channels);

/* From out x in x 3 x 3 weights; out is aligned for vectors. */
void onednn_winograd_pack(const struct onednn_winograd_kernel *kernel, const float *weights,
                          size_t in_channels, size_t out_channels, uint32_t threads, float *out);

/* Bytes of scratch that a run wants. */
size_t onednn_winograd_scratch_bytes(const struct onednn_winograd_kernel *kernel,
                                     const struct onednn_winograd_layer *layer, uint32_t threads);

/* Run. scratch: aligned for vectors; what is in it does not matter. Allocates nothing. */
void onednn_winograd_run(const struct onednn_winograd_kernel *kernel,
                         const struct onednn_winograd_layer *layer, uint32_t threads,
                         void *scratch);

/* The two builds; they run only where onednn_isa_detect says so. */
extern const struct onednn_winograd_kernel onednn_winograd_avx2;
extern const struct onednn_winograd_kernel onednn_winograd_avx512;

#endif
