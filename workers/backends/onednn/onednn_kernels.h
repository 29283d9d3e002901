/*
 * The layers that oneDNN is not asked for, on interleaved images (N x H x W x C), each on several
 * threads: what moves, shrinks and stretches activations between the convolutions, and both ends of
 * the network.
 *
 * A view is where one value lies: an image whose pixels are `pitch` elements apart, so that it may
 * be a slice of the channels of a wider one (one half of a concatenation). Views of one call never
 * overlap in what is written.
 */
#ifndef ONEDNN_KERNELS_H
#define ONEDNN_KERNELS_H

#include "onednn_rows.h"

/* U8: codes of quantise.h. S8: weights only. */
enum onednn_type { ONEDNN_F32, ONEDNN_BF16, ONEDNN_U8, ONEDNN_S8 };

struct onednn_view {
    void *data; /* channel 0 of the first pixel */
    size_t pitch;
    size_t channels;
    size_t height;
    size_t width;
    enum onednn_type type;
    size_t border; /* pixels around the image that are part of what lies in memory */
    const struct quantise_value *codes; /* U8: what they mean; and from which of its channels on */
    size_t first_code;
};

/* What every call needs: threads, inner loops, images in a batch. */
struct onednn_crew {
    const struct onednn_rows *rows;
    uint32_t threads;
    size_t count;
};

/* Bytes of one element. */
size_t onednn_type_bytes(enum onednn_type type);

/* Same size; the same type, or floats that become codes. */
void onednn_kernel_copy(const struct onednn_crew *crew, const struct onednn_view *in,
                        const struct onednn_view *out);

/* Max pooling; padding never wins. copy, if not NULL, also receives the input: only for kernel 2,
 * stride 2, padding 0. */
struct onednn_window {
    size_t kernel;
    size_t stride;
    size_t padding;
};
void onednn_kernel_pool(const struct onednn_crew *crew, const struct onednn_view *in,
                        const struct onednn_window *window, const struct onednn_view *out,
                        const struct onednn_view *copy);

/* in: 4 x C channels, [dy][dx][c]; out: C channels at twice the size, out(2y + dy, 2x + dx, c) =
 * in(y, x, dy, dx, c). */
void onednn_kernel_shuffle(const struct onednn_crew *crew, const struct onednn_view *in,
                           const struct onednn_view *out);

/* Twice the size. */
void onednn_kernel_upsample(const struct onednn_crew *crew, const struct onednn_view *in,
                            enum network_upsample mode, const struct onednn_view *out);

/* Zeros into the border of a view of codes. */
void onednn_kernel_border(const struct onednn_crew *crew, const struct onednn_view *out);

/* Zero-padded or cropped around the middle: floor(difference / 2) before. */
void onednn_kernel_fit(const struct onednn_crew *crew, const struct onednn_view *in,
                       const struct onednn_view *out);

/* out = a + b, negative results to 0 if relu. Types may differ: what is not all of one type goes
 * through floats. */
void onednn_kernel_add(const struct onednn_crew *crew, const struct onednn_view *a,
                       const struct onednn_view *b, bool relu, const struct onednn_view *out);

/* Tiles of a batch into the network's input: packed, out->channels planes each. */
void onednn_kernel_load(const struct onednn_crew *crew, const struct backend_preprocess *preprocess,
                        const struct backend_batch *batch, const struct onednn_view *out);

/* bfloat16 to float, same size. */
void onednn_kernel_widen(const struct onednn_crew *crew, const struct onednn_view *in,
                         const struct onednn_view *out);

/* The network's output (floats) into labels and logits of a batch, whichever are wanted. */
void onednn_kernel_store(const struct onednn_crew *crew, const struct onednn_view *in,
                         const struct backend_batch *batch);

#endif
