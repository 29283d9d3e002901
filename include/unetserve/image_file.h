/*
 * Image files as request bodies: TIFF (GeoTIFF too, classic and BigTIFF) and PNG. Here they are
 * only recognised, and their heads read for the shape of what is in them, by code that follows no
 * offset without a look at the end: that is all a gateway does with them. Pixels are expanded in a
 * worker (workers/images/images.h).
 */
#ifndef IMAGE_FILE_H
#define IMAGE_FILE_H

#include "unetserve/problem.h"
#include "unetserve/tensor.h"

/* The numbers are part of the shared-memory layout. */
enum image_file { IMAGE_FILE_NONE = 0, IMAGE_FILE_TIFF = 1, IMAGE_FILE_PNG = 2 };

/* Bytes that image_file_kind wants to see, and after which a PNG file tells its shape. */
enum { IMAGE_FILE_MAGIC = 8, IMAGE_FILE_PNG_HEAD = 33 };

/* By the first IMAGE_FILE_MAGIC bytes. */
enum image_file image_file_kind(const void *bytes);

/* The shape of a file's first image, C x H x W and of the type that is in the file (float64 too):
 * a TIFF's bands; of a PNG 1, 2, 3 or 4 channels, of a palette its colours as 3. bytes: of a PNG
 * IMAGE_FILE_PNG_HEAD at least, of a TIFF the whole file. 0, or -1 with *problem: 400 broken, 422 a
 * kind of file that is not read. */
int image_file_shape(enum image_file file, const void *bytes, size_t size,
                     struct unetserve_shape *shape, struct problem *problem);

#endif
