/*
 * Where every value of a network lies while a batch of one shape runs on tiles, and which layers
 * run together. Pure arithmetic.
 *
 * A concatenation is never made: whoever produces one of its halves writes there. Pooling is done
 * by the convolution before it, the last convolution ends in labels and not in memory. Images lie
 * with the border that the convolutions which read them want.
 *
 * Layers run in groups. A group of ROWS goes through its layers a few rows at a time, so that each
 * reads what the one before it has just written, while that is in the second-level cache. A group
 * of CHANNELS is one convolution with many weights, which threads share out by output channels, so
 * that each weight is read by one core only. WHOLE is one layer that is no convolution.
 */
#ifndef AMX_LAYOUT_H
#define AMX_LAYOUT_H

#include "workers/backends/onednn/onednn_kernels.h"
#include "workers/models/unet/network.h"

/* What the cache of a core is thought to hold, of 2 MiB. */
#define AMX_GROUP_WEIGHT_BYTES ((size_t)768 << 10)
#define AMX_STRIP_BYTES        ((size_t)768 << 10)

/* Convolutions of a group. */
#define AMX_GROUP_LAYERS 16u

#define AMX_NONE UINT32_MAX

struct amx_value {
    uint32_t element; /* bytes: 2, or 1 of a code */
    uint32_t channels;
    uint32_t height;
    uint32_t width;
    uint32_t same_as; /* itself, or the value that a fit of equal sizes hands on */
    uint32_t parent;  /* the concatenation that it lies in; AMX_NONE: it lies by itself */
    uint32_t root;    /* the value whose buffer it lies in */
    uint32_t channel; /* the first of it within the root's */
    uint32_t pitch;   /* of a root: channels of its buffer */
    uint32_t border;  /* of a root: pixels all around, zeros or the codes for zero */
    uint32_t reach;   /* of a root: pixels behind the last one that a tile may look at */
    size_t begins;    /* of a root: the step before which its zeros are written: 0 loads the input,
                         i + 1 is group i. SIZE_MAX: it has no place */
    size_t offset;    /* of a root: in the arena, in bytes */
};

enum amx_mode { AMX_MODE_ROWS, AMX_MODE_CHANNELS, AMX_MODE_WHOLE };

struct amx_group {
    enum amx_mode mode;
    uint32_t first; /* layers [first, end) */
    uint32_t end;
};

struct amx_placing {
    bool copies[2];   /* CONCAT: this input has to be copied by the layer itself */
    uint32_t pooled;  /* CONV: the value that its pooling makes; 0: none */
    bool done_before; /* MAX_POOL: by the convolution before it */
    uint32_t group;
};

struct amx_layout {
    const struct quantise_plan *codes; /* NULL: none */
    uint32_t count;
    uint32_t height;
    uint32_t width;
    size_t value_count;
    struct amx_value *values;   /* 0 is the input */
    struct amx_placing *layers; /* value_count - 1 */
    struct amx_group *groups;
    size_t group_count;
    uint32_t result;      /* the value that is stored */
    bool result_at_once;  /* by the convolution that makes it: it has no place */
    size_t result_offset; /* else: a float copy of it */
    size_t arena_bytes;
};

/* Plan for a batch. codes: NULL, or which values are codes, for as long as the layout lives. 0;
 * -EINVAL when the network does not take the size or a value gets too large; -ENOMEM. Free with
 * amx_layout_free. */
int amx_layout_create(const struct network *network, const struct quantise_plan *codes,
                      uint32_t threads, uint32_t count, uint32_t height, uint32_t width,
                      struct amx_layout *out);
void amx_layout_free(struct amx_layout *layout);

/* A value's view in an arena. */
struct onednn_view amx_layout_view(const struct amx_layout *layout, uint32_t value,
                                   unsigned char *arena);

/* Does a layer that reads `reader` read what is written as `value`: itself, or a part of it? */
bool amx_layout_contains(const struct amx_layout *layout, uint32_t reader, uint32_t value);

/* Is there nothing to be done for a layer: handed on, joined, or done by another? */
bool amx_layout_idle(const struct network *network, const struct amx_layout *layout, size_t layer);

#endif
