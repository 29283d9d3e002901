/* For fuzz targets: what a reader of weights accepted must be readable to its last byte and found
 * by its name. */
#ifndef READ_WEIGHTS_H
#define READ_WEIGHTS_H

#include "workers/models/unet/weights.h"

#include <stdlib.h>

/* Kept, so that no compiler leaves the reads out. */
static volatile unsigned read_weights_sum;

static inline void read_weights(const struct weights *weights)
{
    unsigned sum = 0;
    for (size_t i = 0; i < weights->count; i++) {
        const struct weights_tensor *tensor = &weights->tensors[i];
        if (weights_find(weights, tensor->name) != tensor)
            abort();
        const uint8_t *bytes = tensor->data;
        for (size_t b = 0; b < tensor->bytes; b++)
            sum += bytes[b];
    }
    read_weights_sum = sum;
}

#endif
