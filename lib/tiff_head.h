/* A TIFF file's first directory, as far as it tells the shape of its image. */
#ifndef TIFF_HEAD_H
#define TIFF_HEAD_H

#include "unetserve/problem.h"
#include "unetserve/tensor.h"

/* bytes: the whole file. As image_file_shape. */
int tiff_head_shape(const void *bytes, size_t size, struct unetserve_shape *shape,
                    struct problem *problem);

#endif
