/*
 * What the reference backend works on: planes of floats. In precision int8 some images hold codes
 * (quantise.h) instead of numbers, as floats too, which hold whole numbers exactly.
 */
#ifndef REFERENCE_IMAGE_H
#define REFERENCE_IMAGE_H

#include "../quantise.h"

struct image {
    uint32_t channels;
    uint32_t height;
    uint32_t width;
    float *data; /* channels x height x width */
};

/* A convolution, transposed or not, of codes; `value` is what it puts out. 0 or -ENOMEM. */
int reference_run_integer(const struct network_layer *layer, const struct quantise_conv *conv,
                          const struct quantise_value *from, const struct image *in,
                          const struct quantise_value *value, struct image *out);

/* Numbers to codes, in place, and back. */
void reference_encode(const struct quantise_value *value, struct image *image);
void reference_decode(const struct quantise_value *value, struct image *image);

/* Codes between codes (interpolated ones) to the nearest. */
void reference_round(struct image *image);

#endif
