#include "windows.h"

#include "refusal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A rectangle of the scene. */
struct window {
    size_t x, y, width, height;
};

/* ---- one request ---- */

static int window_ask(struct server *server, const struct unetserve_tensor *tensor,
                      struct windows_result *result, struct unetserve_answer *answer, char *error,
                      size_t error_size)
{
    int rc = server_predict(server, tensor, answer, error, error_size);
    if (rc < 0)
        return rc;
    result->status = answer->status;
    result->requests++;
    memcpy(result->request_id, answer->request_id, sizeof result->request_id);
    result->receive_ms += answer->receive_ms;
    result->queue_ms += answer->queue_ms;
    result->forward_ms += answer->forward_ms;
    result->encode_ms += answer->encode_ms;
    if (answer->status != 200) {
        refusal_explain(answer, error, error_size);
        unetserve_answer_free(answer);
        return -EPROTO;
    }
    /* The mask must be the tile's: same size, a dimension less. */
    const struct unetserve_shape *in = &tensor->shape;
    const struct unetserve_shape *mask = &answer->shape;
    bool fits = mask->dtype == UNETSERVE_U8 && mask->rank == in->rank - 1 &&
                mask->dims[mask->rank - 1] == in->dims[in->rank - 1] &&
                mask->dims[mask->rank - 2] == in->dims[in->rank - 2] &&
                (in->rank == 3 || mask->dims[0] == in->dims[0]);
    if (!fits) {
        char text[2][96];
        snprintf(error, error_size, "the server answered %s for %s, which is not its mask",
                 unetserve_shape_format(mask, text[0], sizeof text[0]),
                 unetserve_shape_format(in, text[1], sizeof text[1]));
        unetserve_answer_free(answer);
        return -EPROTO;
    }
    return 0;
}

static int predict_whole(struct server *server, const struct image *image,
                         struct windows_result *result, char *error, size_t error_size)
{
    const struct unetserve_tensor tensor = {image->shape, image->data, image->bytes};
    struct unetserve_answer answer;
    int rc = window_ask(server, &tensor, result, &answer, error, error_size);
    if (rc < 0)
        return rc;
    result->shape = answer.shape;
    result->labels = answer.data;
    return 0;
}

/* ---- many ---- */

static void window_cut(const struct image *image, const struct window *window, unsigned char *out)
{
    size_t element = unetserve_dtype_size(image->shape.dtype);
    size_t height = (size_t)image->shape.dims[1];
    size_t width = (size_t)image->shape.dims[2];
    const unsigned char *data = image->data;
    size_t row_bytes = window->width * element;
    for (size_t band = 0; band < image->shape.dims[0]; band++) {
        for (size_t y = 0; y < window->height; y++) {
            size_t from = (band * height + window->y + y) * width + window->x;
            memcpy(out, data + from * element, row_bytes);
            out += row_bytes;
        }
    }
}

/* Keep the centre; at the scene's own edges, all there is. */
static void window_keep(const struct window *window, const uint8_t *mask, size_t width,
                        uint8_t *labels)
{
    size_t top = window->y > 0 ? WINDOW_OVERLAP / 2 : 0;
    size_t left = window->x > 0 ? WINDOW_OVERLAP / 2 : 0;
    for (size_t y = top; y < window->height; y++)
        memcpy(labels + (window->y + y) * width + window->x + left, mask + y * window->width + left,
               window->width - left);
}

/* Where the next window starts: a step on, or flush with the end; size when the last one was. */
static size_t window_next(size_t at, size_t window, size_t size)
{
    if (at + window >= size)
        return size;
    size_t next = at + window - WINDOW_OVERLAP;
    return next + window > size ? size - window : next;
}

static int predict_windows(struct server *server, const struct image *image, size_t side,
                           struct windows_result *result, char *error, size_t error_size)
{
    size_t height = (size_t)image->shape.dims[1];
    size_t width = (size_t)image->shape.dims[2];
    struct window window = {0, 0, side < width ? side : width, side < height ? side : height};
    struct unetserve_tensor tensor = {image->shape, NULL, 0};
    tensor.shape.dims[1] = window.height;
    tensor.shape.dims[2] = window.width;
    tensor.bytes = (size_t)image->shape.dims[0] * window.height * window.width *
                   unetserve_dtype_size(image->shape.dtype);
    unsigned char *tile = malloc(tensor.bytes);
    uint8_t *labels = malloc(height * width);
    int rc = tile && labels ? 0 : -ENOMEM;
    tensor.data = tile;
    for (window.y = 0; rc == 0 && window.y < height;
         window.y = window_next(window.y, window.height, height)) {
        for (window.x = 0; rc == 0 && window.x < width;
             window.x = window_next(window.x, window.width, width)) {
            struct unetserve_answer answer;
            window_cut(image, &window, tile);
            rc = window_ask(server, &tensor, result, &answer, error, error_size);
            if (rc < 0)
                break;
            window_keep(&window, answer.data, width, labels);
            unetserve_answer_free(&answer);
        }
    }
    free(tile);
    if (rc < 0) {
        free(labels);
        return rc;
    }
    result->shape = (struct unetserve_shape){UNETSERVE_U8, 2, {height, width}};
    result->labels = labels;
    return 0;
}

int windows_predict(struct server *server, const struct image *image, unsigned window,
                    struct windows_result *out, char *error, size_t error_size)
{
    struct windows_result result = {.labels = NULL};
    const struct unetserve_shape *shape = &image->shape;
    bool cuttable = window > 0 && shape->rank == 3;
    bool whole = !cuttable || (shape->dims[1] <= window && shape->dims[2] <= window);
    snprintf(error, error_size, "no memory");
    int rc = whole ? predict_whole(server, image, &result, error, error_size) : -E2BIG;
    if (whole && cuttable && result.status == 413)
        window /= 2;
    while ((rc == -E2BIG || (rc < 0 && result.status == 413)) && cuttable &&
           window >= WINDOW_LEAST) {
        result = (struct windows_result){.window = window};
        rc = predict_windows(server, image, window, &result, error, error_size);
        window /= 2;
    }
    if (rc < 0) {
        /* The caller wants to know how the server refused. */
        out->status = result.status;
        return rc;
    }
    *out = result;
    return 0;
}
