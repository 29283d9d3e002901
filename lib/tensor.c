#include "unetserve/tensor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct dtype_row {
    const char *name;
    size_t size;
};

static const struct dtype_row dtype_rows[] = {
#define DTYPE_ROW(id, number, text, bytes) [number] = {text, bytes},
    UNETSERVE_DTYPES(DTYPE_ROW)
#undef DTYPE_ROW
};

#define DTYPE_COUNT (sizeof dtype_rows / sizeof *dtype_rows)

size_t unetserve_dtype_size(uint32_t dtype)
{
    return dtype < DTYPE_COUNT ? dtype_rows[dtype].size : 0;
}

const char *unetserve_dtype_name(uint32_t dtype)
{
    return dtype_rows[dtype < DTYPE_COUNT ? dtype : UNETSERVE_NONE].name;
}

enum unetserve_dtype unetserve_dtype_parse(const char *name)
{
    for (uint32_t dtype = 1; dtype < DTYPE_COUNT; dtype++)
        if (strcmp(dtype_rows[dtype].name, name) == 0)
            return (enum unetserve_dtype)dtype;
    return UNETSERVE_NONE;
}

int unetserve_shape_elements(const struct unetserve_shape *shape, uint64_t *out)
{
    if (unetserve_dtype_size(shape->dtype) == 0 || shape->rank > UNETSERVE_MAX_DIMS)
        return -EINVAL;
    /* A zero anywhere makes the product zero, however large the other dimensions are. */
    for (uint32_t i = 0; i < shape->rank; i++) {
        if (shape->dims[i] == 0) {
            *out = 0;
            return 0;
        }
    }
    uint64_t elements = 1;
    for (uint32_t i = 0; i < shape->rank; i++)
        if (__builtin_mul_overflow(elements, shape->dims[i], &elements))
            return -EOVERFLOW;
    *out = elements;
    return 0;
}

int unetserve_shape_bytes(const struct unetserve_shape *shape, uint64_t *out)
{
    uint64_t elements;
    int rc = unetserve_shape_elements(shape, &elements);
    if (rc < 0)
        return rc;
    uint64_t bytes;
    if (__builtin_mul_overflow(elements, unetserve_dtype_size(shape->dtype), &bytes))
        return -EOVERFLOW;
    *out = bytes;
    return 0;
}

const char *unetserve_shape_format(const struct unetserve_shape *shape, char *text, size_t size)
{
    char full[32 + UNETSERVE_MAX_DIMS * 24];
    size_t used = (size_t)snprintf(full, sizeof full, "%s[", unetserve_dtype_name(shape->dtype));
    for (uint32_t i = 0; i < shape->rank && i < UNETSERVE_MAX_DIMS; i++)
        used += (size_t)snprintf(full + used, sizeof full - used, "%s%" PRIu64, i ? ", " : "",
                                 shape->dims[i]);
    snprintf(full + used, sizeof full - used, "]");
    if (size > 0)
        snprintf(text, size, "%s", full);
    return text;
}
