/* The two decoders behind images.h: the file's samples as they are in it, native byte order, C x H
 * x W. */
#ifndef IMAGES_DECODERS_H
#define IMAGES_DECODERS_H

#include "workers/images/images.h"

/* shape: of the file's own type (float64 too); planes: of its bytes. As images.expand. */
int tiff_expand(const struct images_order *order, const struct unetserve_shape *shape, char *planes,
                struct problem *problem);
int png_expand(const struct images_order *order, const struct unetserve_shape *shape, char *planes,
               struct problem *problem);

/* Take count pixels of interleaved samples apart: sample c of pixel i goes to planes + c *
 * plane_bytes + i * each. each: 1, 2, 4 or 8 bytes. */
void planes_scatter(const char *pixels, uint64_t count, uint64_t channels, size_t each,
                    char *planes, uint64_t plane_bytes);

/* 400 with that sentence. Always -EBADMSG. */
int images_refuse(struct problem *problem, const char *sentence);

#endif
