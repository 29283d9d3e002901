/*
 * Tiles and masks as files: .npy read and written here, every other raster through raster.h.
 */
#ifndef IMAGE_H
#define IMAGE_H

#include "unetserve/model.h"

#include "raster.h"

#include <stdio.h>

#define IMAGE_BYTES_MAX ((uint64_t)4 << 30)

struct image {
    struct unetserve_shape shape; /* C x H x W, or N x C x H x W from .npy */
    void *data;
    size_t bytes;
    uint8_t *hidden;                    /* H x W, 1 where the file says "no data"; NULL: nowhere */
    struct raster_reference *reference; /* where on Earth; NULL for .npy */
};

/* Read a tile. 0; -ENOENT, -EACCES, -EBADMSG, -EFBIG, -ENOMEM with a sentence. Free with
 * image_free. */
int image_read(const char *path, struct image *out, char *error, size_t error_size);

/* The same for .npy from an open file, whose end nobody may know. Free it, too, when it fails. */
int image_read_npy(FILE *file, struct image *image, char *error, size_t error_size);
void image_free(struct image *image);

/* Add offset to every element; integers stay within their type. -ENOTSUP for float16. */
int image_add_offset(struct image *image, int offset);

/* Set hidden pixels to 0 in all bands: a server refuses NaN, and "no data" values are far from any
 * reflectance. */
void image_blank_hidden(struct image *image);

/* Write the tile as .npy. 0 or negative with a sentence. */
int image_write_npy(const char *path, const struct image *image, char *error, size_t error_size);

struct image_figures {
    double least;
    double largest;
    uint64_t not_finite;
};

/* Range and NaN count over all elements. */
void image_measure(const struct image *image, struct image_figures *out);

enum mask_file { MASK_FILE_PNG, MASK_FILE_NPY, MASK_FILE_TIF, MASK_FILE_UNKNOWN };

enum mask_file mask_file_kind(const char *path);

/* Write labels (uint8, H x W, or N x H x W as .npy). codes: the classes' codes instead of their
 * labels (.npy, .tif); legend: names and colours, class_count 0 if unknown; image: where it came
 * from. 0 or negative with a sentence. */
int mask_file_write(const char *path, const struct unetserve_shape *shape, uint8_t *labels,
                    bool codes, const struct unetserve_interface *legend, const struct image *image,
                    char *error, size_t error_size);

#endif
