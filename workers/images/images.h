/*
 * Image files expanded to tensors: libtiff and libpng on bytes from strangers. A shared object of
 * its own, which a worker opens before it gives up opening files (workers/image_library.h): so a
 * Python interpreter meets these libraries only when an image comes, and a machine without them
 * serves everything else. In a worker, not in a gateway: it may crash there (its job runs once more
 * and is then answered 500), take its time there without other clients waiting, and holds neither
 * connections nor keys.
 *
 * What a file claims is held against what the gateway read of its head; memory is bounded by the
 * shape, and what is read by the file's size.
 */
#ifndef IMAGES_H
#define IMAGES_H

#include "unetserve/image_file.h"

#include <stdbool.h>

#define IMAGES_ABI 1

struct images_order {
    enum image_file file;
    const void *bytes;
    size_t size;
    const struct unetserve_shape *shape; /* C x H x W, as it is to be stored: float64 as float32 */
    bool (*go_on)(void *opaque);         /* called now and then: a sign of life; false: give up */
    void *opaque;
};

struct images {
    uint32_t abi;
    /* Fill pixels, of the shape's bytes. 0; -EBADMSG with *problem (400 or 422); -ENOMEM;
     * -ECANCELED: go_on said so. */
    int (*expand)(const struct images_order *order, void *pixels, struct problem *problem);
};

__attribute__((visibility("default"))) const struct images *unetserve_images(void);

#endif
