/*
 * How a convolution is cut into steps of products, and its weights in that order.
 *
 * A step multiplies up to AMX_WORDS words of input values of each pixel's window, of two bfloat16
 * or four codes each, with the weights of AMX_CHANNELS output channels. Pieces of the window's
 * channels come one after the other, and for each of them every pixel of the window: so what nine
 * steps read overlaps, and stays in the nearest cache. Where a whole row of the window is short
 * (few channels, which lie by themselves), it is one run of values, cut as is. Nothing here depends
 * on an image's size.
 */
#ifndef AMX_WEIGHTS_H
#define AMX_WEIGHTS_H

#include "amx_kernels.h"
#include "workers/backends/onednn/onednn_rows.h"
#include "workers/backends/packed_file.h"
#include "workers/backends/quantise.h"
#include "workers/models/unet/network.h"

struct amx_shape {
    size_t in_channels; /* with what is added to make words and steps come out even: zeros */
    size_t element;     /* bytes of an input value: 2, or 1 where codes are summed */
    size_t kernel;      /* 1 for CONV_UP */
    bool run;           /* the window's rows are cut as runs */
    size_t words;       /* of a step */
    size_t pieces;      /* of a pixel's channels, or of a run */
    size_t steps;
    size_t blocks; /* of AMX_CHANNELS outputs; CONV_UP: four times as many, [dy][dx] */
    size_t scales; /* numbers a lane beside its bias: 1 where codes are summed, 2 where numbers
                      become codes, else 0 */
};

struct amx_weights {
    struct amx_shape shape;
    const unsigned char *packed; /* [block][step][word][output][value]; NULL: not a convolution */
    const float *bias;           /* blocks x AMX_CHANNELS */
    const float *scales;         /* the same, so many times: scale; or steps, then zero */
    void *own;                   /* what holds all three, unless a file does */
};

/* So many channels lie in a buffer of their own for that many: the next number that can be cut
 * well. A number that is its own pitch may be a part of a concatenation. */
uint32_t amx_pitch(uint32_t channels, size_t element);

/* A convolution's shape; layer must be CONV or CONV_UP. codes: NULL, or which values are codes. */
struct amx_shape amx_shape_of(const struct network *network, const struct quantise_plan *codes,
                              size_t layer);

/* The step's first value, from where a pixel's window begins, in elements, where rows of the image
 * are row_pitch pixels apart and pixels `pitch` elements. */
size_t amx_step_offset(const struct amx_shape *shape, size_t step, size_t row_pitch, size_t pitch);

size_t amx_step_bytes(const struct amx_shape *shape);
size_t amx_packed_bytes(const struct amx_shape *shape);
size_t amx_bias_bytes(const struct amx_shape *shape);
size_t amx_scales_bytes(const struct amx_shape *shape);

/* Pack, on so many threads; the network's layer has its weights. 0, -ENOMEM. */
int amx_weights_create(const struct network *network, const struct quantise_plan *codes,
                       size_t layer, uint32_t threads, const struct onednn_rows *rows,
                       struct amx_weights *out);

/* The same from a file, which must stay mapped. -ESTALE: the file lacks the layer. */
int amx_weights_adopt(const struct network *network, const struct quantise_plan *codes,
                      size_t layer, const struct packed_view *file, struct amx_weights *out);
void amx_weights_free(struct amx_weights *weights);

#endif
