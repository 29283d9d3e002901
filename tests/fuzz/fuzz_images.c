/*
 * Image files: whatever their heads say and whatever libtiff and libpng make of the rest, all
 * pixels lie within the bounds that were told, or the file is refused with a sentence.
 */
#include "workers/images/images.h"

#include "lib/json_scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PIXELS_MAX ((uint64_t)1 << 20)

static void check(int condition)
{
    if (!condition)
        abort();
}

static void check_refused(const struct problem *problem)
{
    check(problem->status == 400 || problem->status == 422);
    check(json_is_valid(problem->body, strlen(problem->body)));
}

static bool go_on(void *opaque)
{
    unsigned *calls = opaque;
    return ++*calls < 1000;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct unetserve_shape shape;
    struct problem problem;
    uint64_t bytes;
    unsigned calls = 0;
    if (size < IMAGE_FILE_MAGIC)
        return 0;
    enum image_file kind = image_file_kind(data);
    if (!kind)
        return 0;
    if (image_file_shape(kind, data, size, &shape, &problem)) {
        check_refused(&problem);
        return 0;
    }
    check(shape.rank == 3 && shape.dims[0] > 0 && shape.dims[1] > 0 && shape.dims[2] > 0);
    if (shape.dtype == UNETSERVE_F64)
        shape.dtype = UNETSERVE_F32;
    if (unetserve_shape_bytes(&shape, &bytes) || bytes > PIXELS_MAX)
        return 0;
    void *pixels = malloc(bytes);
    check(pixels != NULL);
    struct images_order order = {kind, data, size, &shape, go_on, &calls};
    int error = unetserve_images()->expand(&order, pixels, &problem);
    if (error == -EBADMSG)
        check_refused(&problem);
    else
        check(error == 0 || error == -ENOMEM || (error == -ECANCELED && calls == 1000));
    free(pixels);
    return 0;
}
