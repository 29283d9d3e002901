/*
 * Where every value of a network lies while a batch of one shape runs: in one arena, whose parts
 * are used again as soon as a value has been read for the last time. Pure arithmetic, no oneDNN.
 *
 * oneDNN's convolutions get packed images only: writing into a slice of a wider tensor crashed
 * in 2.6.3. Whatever our own kernels write (upsampled, shuffled, fitted, added, pooled) goes
 * straight into its half of a concatenation, where that is its only use that would mind; what a
 * convolution writes is copied there, by the pooling that reads it anyway if there is one.
 */
#ifndef ONEDNN_LAYOUT_H
#define ONEDNN_LAYOUT_H

#include "onednn_kernels.h"
#include "workers/models/unet/network.h"

/* More elements in one value than this are refused: 32-bit offsets inside the convolutions. */
#define ONEDNN_MAX_ELEMENTS INT32_MAX

struct onednn_value {
    uint32_t channels;
    uint32_t height;
    uint32_t width;
    enum onednn_type type;
    uint32_t border;  /* of a root, in pixels */
    uint32_t same_as; /* itself, or the value that a fit of equal sizes hands on */
    uint32_t root;    /* the value whose buffer it lies in: itself, or a concatenation */
    uint32_t channel; /* first channel within the root's */
    uint32_t pitch;   /* channels of a root's buffer */
    size_t offset;    /* a root's, in the arena, bytes */
};

struct onednn_placing {
    bool copies[2]; /* CONCAT: this input has to be copied by the layer itself */
    uint32_t
        also; /* MAX_POOL: the concatenation that its input is copied into on the way; 0: none */
    uint32_t also_second; /* 1: as that one's second input */
    bool has_scratch; /* the convolution's result lies elsewhere, before it is shuffled (CONV_UP) or
                         becomes codes */
    enum onednn_type scratch_type;
    size_t scratch; /* its offset in the arena */
};

struct onednn_layout {
    const struct quantise_plan *codes; /* NULL: none */
    uint32_t count;                    /* images in the batch */
    uint32_t height;
    uint32_t width;
    size_t value_count;
    struct onednn_value *values;   /* value_count: 0 is the input */
    struct onednn_placing *layers; /* value_count - 1 */
    uint32_t result;               /* the value that is stored */
    size_t result_offset;          /* a float copy of it, only where its own type is not float */
    size_t arena_bytes;
};

/* Plan for a batch; type: of floats; codes: NULL, or which values are codes, for as long as the
 * layout lives. 0; -EINVAL when the network does not take the size or a value gets too large;
 * -ENOMEM. Free with onednn_layout_free. */
int onednn_layout_create(const struct network *network, enum onednn_type type,
                         const struct quantise_plan *codes, uint32_t count, uint32_t height,
                         uint32_t width, struct onednn_layout *out);
void onednn_layout_free(struct onednn_layout *layout);

/* The view of a value (after same_as), for an arena that begins at `arena`. */
struct onednn_view onednn_layout_view(const struct onednn_layout *layout, uint32_t value,
                                      unsigned char *arena);

#endif
