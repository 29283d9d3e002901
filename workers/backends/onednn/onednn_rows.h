/*
 * The inner loops of our own kernels, compiled for three instruction sets from one source
 * (onednn_rows_body.h) and chosen at run time. Each works on a run of pixels or of elements in
 * memory; none allocates, none starts threads.
 *
 * bfloat16 is held in uint16_t; results are rounded to nearest even.
 */
#ifndef ONEDNN_ROWS_H
#define ONEDNN_ROWS_H

#include "onednn_isa.h"
#include "workers/backends/backend.h"

#include <stddef.h>
#include <stdint.h>

/* Pixels that load, argmax and friends take at a time, and channels or classes of one block. */
#define ONEDNN_ROWS_PIXELS   64
#define ONEDNN_ROWS_CHANNELS 16

/* A row of 2 x 2 max pooling: pixels of the output, each of `channels` elements at `out_pitch`,
 * from two input rows. */
struct onednn_pool_row {
    const void *top;
    const void *bottom;
    size_t in_pitch; /* elements between neighbouring pixels */
    void *out;
    size_t out_pitch;
    size_t channels;
    size_t pixels;
};

/* What the codes of `channels` channels mean: see struct quantise_value. */
struct onednn_codes {
    const float *scale;
    const float *steps;
    const float *zero;
    size_t channels;
};

struct onednn_rows {
    void (*pool_bf16)(const struct onednn_pool_row *row);
    void (*pool_f32)(const struct onednn_pool_row *row);

    void (*pool_u8)(const struct onednn_pool_row *row);

    /* `bytes` of each of so many pixels, which lie in_step and out_step bytes apart. */
    void (*copy)(unsigned char *out, size_t out_step, const unsigned char *in, size_t in_step,
                 size_t bytes, size_t pixels);

    /* io[i] = max(io[i], in[i]) */
    void (*max_bf16)(uint16_t *io, const uint16_t *in, size_t count);
    void (*max_f32)(float *io, const float *in, size_t count);
    void (*max_u8)(uint8_t *io, const uint8_t *in, size_t count);

    /* out = a + b, negative results to 0 if relu */
    void (*add_bf16)(uint16_t *out, const uint16_t *a, const uint16_t *b, size_t count, bool relu);
    void (*add_f32)(float *out, const float *a, const float *b, size_t count, bool relu);

    /* out = sum of in[k][i] * weight[k], k < 4 */
    void (*blend_bf16)(uint16_t *out, const void *const in[4], const float weight[4], size_t count);
    void (*blend_f32)(float *out, const void *const in[4], const float weight[4], size_t count);
    void (*blend_u8)(uint8_t *out, const void *const in[4], const float weight[4], size_t count);

    /* Numbers to codes: in[i] * steps[i] + zero[i] for each of so many pixels, which lie `pitch`
     * elements apart; and back. */
    void (*encode_bf16)(const struct onednn_codes *codes, uint8_t *out, size_t out_pitch,
                        const uint16_t *in, size_t in_pitch, size_t pixels);
    void (*encode_f32)(const struct onednn_codes *codes, uint8_t *out, size_t out_pitch,
                       const float *in, size_t in_pitch, size_t pixels);
    void (*decode)(const struct onednn_codes *codes, float *out, const uint8_t *in);

    /* A block of planes to interleaved pixels: `channels` (at most ONEDNN_ROWS_CHANNELS) planes of
     * `dtype`, plane_bytes apart, `pixels` (at most ONEDNN_ROWS_PIXELS) elements each, through the
     * preprocess step, to out[pixel * pitch + channel]. */
    void (*load_bf16)(const struct backend_preprocess *preprocess, uint32_t dtype, const void *in,
                      size_t plane_bytes, size_t channels, size_t pixels, uint16_t *out,
                      size_t pitch);
    void (*load_f32)(const struct backend_preprocess *preprocess, uint32_t dtype, const void *in,
                     size_t plane_bytes, size_t channels, size_t pixels, float *out, size_t pitch);

    void (*widen_bf16)(float *out, const uint16_t *in, size_t count);
    void (*narrow_bf16)(uint16_t *out, const float *in, size_t count);

    /* Labels of `pixels` (at most ONEDNN_ROWS_PIXELS) pixels with `classes` logits each, `pitch`
     * floats apart. */
    void (*argmax)(const float *logits, size_t pitch, size_t classes, size_t pixels,
                   uint8_t *labels);

    /* out[c * out_pitch + p] = in[p * in_pitch + c] */
    void (*planes)(const float *in, size_t in_pitch, size_t channels, size_t pixels, float *out,
                   size_t out_pitch);
};

/* Never NULL. */
const struct onednn_rows *onednn_rows_select(enum onednn_vector vector);

/* The three builds; the wider ones run only where onednn_isa_detect says so. */
extern const struct onednn_rows onednn_rows_baseline;
extern const struct onednn_rows onednn_rows_avx2;
extern const struct onednn_rows onednn_rows_avx512;

#endif
