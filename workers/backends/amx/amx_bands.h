/*
 * How the threads share a group of ROWS. An image is cut into bands, one for each thread; what
 * convolutions near the cuts need of each other is computed first, for all cuts, and then each band
 * goes through the group's layers by itself, a few rows at a time. Nothing is computed twice. Pure
 * arithmetic.
 */
#ifndef AMX_BANDS_H
#define AMX_BANDS_H

#include "amx_layout.h"

/* Rows [low, high) of a layer are made for a cut before the bands are run. Those of a transposed
 * convolution are counted in its input. */
struct amx_cut {
    uint32_t low;
    uint32_t high;
};

struct amx_bands {
    uint32_t *layers; /* the convolutions, in their order */
    size_t layer_count;
    size_t count; /* of bands */
    struct amx_cut
        *cuts;      /* [count + 1][layer_count]; the first and the last are the image's ends */
    uint32_t strip; /* rows of the last layer that are done at a time */
};

/* For a group of that mode; most: bands at most. 0, -ENOMEM. Free with amx_bands_free. */
int amx_bands_create(const struct network *network, const struct amx_layout *layout,
                     const struct amx_group *group, size_t most, struct amx_bands *out);
void amx_bands_free(struct amx_bands *bands);

/* The rows that layer number `index` of the group must have done, for its later ones to reach
 * `reached` (one a layer; those behind index are looked at): at least, and 0 if none reads it. */
uint32_t amx_bands_needed(const struct network *network, const struct amx_layout *layout,
                          const struct amx_bands *bands, size_t index, const uint32_t *reached);

/* Rows that a convolution sums: of its output, or of its input if it is transposed. */
uint32_t amx_bands_height(const struct network *network, const struct amx_layout *layout,
                          size_t layer);

#endif
