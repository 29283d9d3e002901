#include "workers/images/images.h"

#include "lib/body_elements.h"
#include "workers/images/decoders.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int images_refuse(struct problem *problem, const char *sentence)
{
    problem_set(problem, 400, "%s", sentence);
    return -EBADMSG;
}

/* One loop for each size, so that the compiler sees whole numbers. */
#define SCATTER(type)                                                                              \
    for (uint64_t c = 0; c < channels; c++) {                                                      \
        char *to = planes + c * plane_bytes;                                                       \
        for (uint64_t i = 0; i < count; i++)                                                       \
            memcpy(to + i * sizeof(type), pixels + (i * channels + c) * sizeof(type),              \
                   sizeof(type));                                                                  \
    }                                                                                              \
    break

void planes_scatter(const char *pixels, uint64_t count, uint64_t channels, size_t each,
                    char *planes, uint64_t plane_bytes)
{
    switch (each) {
    case 1: SCATTER(uint8_t);
    case 2: SCATTER(uint16_t);
    case 4: SCATTER(uint32_t);
    default: SCATTER(uint64_t);
    }
}

static int expand_file(const struct images_order *order, const struct unetserve_shape *shape,
                       char *planes, struct problem *problem)
{
    return order->file == IMAGE_FILE_PNG ? png_expand(order, shape, planes, problem)
                                         : tiff_expand(order, shape, planes, problem);
}

/* Numbers must be finite, and float64 becomes float32, as in an npy body. */
static int expand_floats(const struct images_order *order, const struct unetserve_shape *shape,
                         uint64_t bytes, void *pixels, struct problem *problem)
{
    char *planes = malloc(bytes);
    if (!planes)
        return -ENOMEM;
    uint64_t stored;
    (void)unetserve_shape_bytes(order->shape, &stored);
    struct body_sink sink = {.data = pixels, .capacity = stored};
    struct body_elements elements;
    int error = expand_file(order, shape, planes, problem);
    if (!error && (body_elements_init(&elements, shape, false, &sink, problem) ||
                   body_elements_feed(&elements, &sink, planes, bytes, problem)))
        error = -EBADMSG;
    free(planes);
    return error;
}

static bool shape_is(const struct unetserve_shape *shape, const struct unetserve_shape *wanted)
{
    uint32_t dtype = shape->dtype == UNETSERVE_F64 ? UNETSERVE_F32 : shape->dtype;
    return dtype == wanted->dtype && wanted->rank == 3 &&
           memcmp(shape->dims, wanted->dims, 3 * sizeof shape->dims[0]) == 0;
}

static int expand(const struct images_order *order, void *pixels, struct problem *problem)
{
    struct unetserve_shape shape;
    uint64_t bytes;
    if (image_file_shape(order->file, order->bytes, order->size, &shape, problem))
        return -EBADMSG;
    if (!shape_is(&shape, order->shape) || unetserve_shape_bytes(&shape, &bytes))
        return images_refuse(problem, "The image file is not of the shape that was told");
    bool floats = shape.dtype >= UNETSERVE_F16;
    return floats ? expand_floats(order, &shape, bytes, pixels, problem)
                  : expand_file(order, &shape, pixels, problem);
}

static const struct images images = {.abi = IMAGES_ABI, .expand = expand};

const struct images *unetserve_images(void)
{
    return &images;
}
