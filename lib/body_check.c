#include "lib/body_check.h"

#include "unetserve/body_reader.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool body_check_side(const struct unetserve_interface *interface, const char *name, uint64_t side,
                     char *sentence, size_t size)
{
    uint32_t least = interface->size_min ? interface->size_min : 1;
    if (side < least)
        snprintf(sentence, size, "%s %" PRIu64 " is less than %" PRIu32, name, side, least);
    else if (interface->size_max && side > interface->size_max)
        snprintf(sentence, size, "%s %" PRIu64 " is more than %" PRIu32, name, side,
                 interface->size_max);
    else if (interface->size_multiple > 1 && side % interface->size_multiple)
        snprintf(sentence, size, "%s %" PRIu64 " is not a multiple of %" PRIu32, name, side,
                 interface->size_multiple);
    else
        return true;
    return false;
}

bool body_check_dtype(const struct unetserve_interface *interface, uint32_t dtype)
{
    if (dtype == UNETSERVE_F64)
        dtype = UNETSERVE_F32;
    return dtype > UNETSERVE_NONE && dtype < UNETSERVE_F64 &&
           (interface->input_dtypes >> dtype & 1);
}

const char *body_list_dtypes(const struct unetserve_interface *interface, char *text, size_t size)
{
    size_t length = 0;
    text[0] = '\0';
    for (uint32_t dtype = UNETSERVE_U8; dtype <= UNETSERVE_F64; dtype++) {
        if (!body_check_dtype(interface, dtype) || length >= size)
            continue;
        length += (size_t)snprintf(text + length, size - length, "%s%s", length ? ", " : "",
                                   unetserve_dtype_name(dtype));
    }
    return text;
}

/* Height and width by the same rule; fills sentence if one of them is wrong. */
static bool check_sides(const struct unetserve_interface *interface,
                        const struct unetserve_shape *shape, char *sentence, size_t size)
{
    return body_check_side(interface, "height", shape->dims[shape->rank - 2], sentence, size) &&
           body_check_side(interface, "width", shape->dims[shape->rank - 1], sentence, size);
}

static bool check_rank(const struct unetserve_interface *interface,
                       const struct unetserve_shape *shape, char *sentence, size_t size)
{
    if (shape->rank == 3 || (shape->rank == 4 && interface->max_batch > 1))
        return true;
    const char *expected = interface->max_batch > 1
                               ? "3 dimensions (channels, height, width) or 4 with a batch in front"
                               : "3 dimensions (channels, height, width)";
    snprintf(sentence, size, "it has %" PRIu32 " dimensions, expected %s", shape->rank, expected);
    return false;
}

int body_check_shape(const struct unetserve_interface *interface,
                     const struct unetserve_shape *shape, struct problem *problem)
{
    char sentence[160], types[96], what[160];
    if (!body_check_dtype(interface, shape->dtype)) {
        snprintf(sentence, sizeof sentence, "the model takes %s",
                 body_list_dtypes(interface, types, sizeof types));
    } else if (check_rank(interface, shape, sentence, sizeof sentence)) {
        uint64_t batch = shape->rank == 4 ? shape->dims[0] : 1;
        uint64_t channels = shape->dims[shape->rank - 3];
        if (batch == 0 || (shape->rank == 4 && batch > interface->max_batch))
            snprintf(sentence, sizeof sentence, "a batch of %" PRIu64 ", expected 1 to %" PRIu32,
                     batch, interface->max_batch);
        else if (channels == 0 || (interface->channels && channels != interface->channels))
            snprintf(sentence, sizeof sentence, "%" PRIu64 " channels, expected %" PRIu32 "%s",
                     channels, interface->channels,
                     shape->dims[shape->rank - 1] == interface->channels
                         ? "; channels come first, not last"
                         : "");
        else if (check_sides(interface, shape, sentence, sizeof sentence))
            return 0;
    }
    problem_set(problem, 422, "input %s does not fit the model: %s",
                unetserve_shape_format(shape, what, sizeof what), sentence);
    return -1;
}

/* ---- X-Unetserve-Shape, X-Unetserve-Dtype ---- */

static const char *skip_blanks(const char *text)
{
    return text + strspn(text, " \t");
}

/* A decimal number at *text, which moves past it. False for none, and for one beyond 64 bits. */
static bool read_number(const char **text, uint64_t *number)
{
    const char *at = *text;
    uint64_t value = 0;
    for (; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
            return false;
    if (at == *text)
        return false;
    *text = at;
    *number = value;
    return true;
}

static bool parse_dims(const char *text, struct unetserve_shape *shape)
{
    for (;;) {
        text = skip_blanks(text);
        if (shape->rank == UNETSERVE_MAX_DIMS || !read_number(&text, &shape->dims[shape->rank]))
            return false;
        shape->rank++;
        text = skip_blanks(text);
        if (*text == '\0')
            return true;
        if (*text++ != ',')
            return false;
    }
}

static enum unetserve_dtype parse_dtype(const char *text)
{
    char name[16];
    text = skip_blanks(text);
    size_t length = strcspn(text, " \t");
    if (length >= sizeof name || *skip_blanks(text + length))
        return UNETSERVE_NONE;
    memcpy(name, text, length);
    name[length] = '\0';
    return unetserve_dtype_parse(name);
}

int body_parse_raw_headers(const char *shape_text, const char *dtype_text,
                           struct unetserve_shape *shape, struct problem *problem)
{
    struct unetserve_shape found = {0};
    if (!shape_text || !dtype_text) {
        problem_set(problem, 400, "a raw body needs the header %s",
                    shape_text ? "X-Unetserve-Dtype, such as uint16"
                               : "X-Unetserve-Shape, such as 12,256,256");
        return -1;
    }
    if (!parse_dims(shape_text, &found)) {
        problem_set(problem, 400,
                    "X-Unetserve-Shape: expected up to %d numbers such as 12,256,256, got '%.100s'",
                    UNETSERVE_MAX_DIMS, shape_text);
        return -1;
    }
    found.dtype = (uint32_t)parse_dtype(dtype_text);
    if (found.dtype == UNETSERVE_NONE) {
        problem_set(problem, 400,
                    "X-Unetserve-Dtype: expected uint8, int8, uint16, int16, float16, float32 or "
                    "float64, got '%.100s'",
                    dtype_text);
        return -1;
    }
    *shape = found;
    return 0;
}
