/* Label masks as indexed PNG. */
#ifndef MASK_PNG_H
#define MASK_PNG_H

#include "unetserve/mask_writer.h"

/* mask_encode's MASK_PNG, with the same contract. */
int mask_png_encode(const struct unetserve_interface *interface,
                    const struct unetserve_shape *shape, const uint8_t *labels, void **out,
                    size_t *out_size);

#endif
