#include "lib/body_elements.h"

#include "lib/body_sink.h"

#include <assert.h>
#include <endian.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "bodies and slots are little-endian, and so must the machine be");

/* ---- conversions: count elements from an unaligned place; they return how many were right before
 * the first wrong one ---- */

static size_t copy_bytes(const char *from, char *to, size_t count, bool swap)
{
    (void)swap;
    memcpy(to, from, count);
    return count;
}

static uint16_t load16(const char *from, bool swap)
{
    uint16_t bits;
    memcpy(&bits, from, sizeof bits);
    return swap ? __builtin_bswap16(bits) : bits;
}

static uint32_t load32(const char *from, bool swap)
{
    uint32_t bits;
    memcpy(&bits, from, sizeof bits);
    return swap ? __builtin_bswap32(bits) : bits;
}

static uint64_t load64(const char *from, bool swap)
{
    uint64_t bits;
    memcpy(&bits, from, sizeof bits);
    return swap ? __builtin_bswap64(bits) : bits;
}

static size_t copy_int16(const char *from, char *to, size_t count, bool swap)
{
    if (!swap) {
        memcpy(to, from, count * 2);
        return count;
    }
    for (size_t i = 0; i < count; i++) {
        uint16_t bits = load16(from + 2 * i, true);
        memcpy(to + 2 * i, &bits, sizeof bits);
    }
    return count;
}

static size_t copy_float16(const char *from, char *to, size_t count, bool swap)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t bits = load16(from + 2 * i, swap);
        if ((bits & 0x7c00) == 0x7c00)
            return i;
        memcpy(to + 2 * i, &bits, sizeof bits);
    }
    return count;
}

static size_t copy_float32(const char *from, char *to, size_t count, bool swap)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = load32(from + 4 * i, swap);
        if ((bits & 0x7f800000) == 0x7f800000)
            return i;
        memcpy(to + 4 * i, &bits, sizeof bits);
    }
    return count;
}

static double load_double(const char *from, bool swap)
{
    uint64_t bits = load64(from, swap);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static size_t narrow_float64(const char *from, char *to, size_t count, bool swap)
{
    /* From here on a double rounds to an infinite float: the largest float and half a unit in its
     * last place. */
    static const double limit = 0x1.ffffffp127;
    for (size_t i = 0; i < count; i++) {
        double value = load_double(from + 8 * i, swap);
        if (!(fabs(value) < limit))
            return i;
        float narrow = (float)value;
        memcpy(to + 4 * i, &narrow, sizeof narrow);
    }
    return count;
}

static size_t convert(const struct body_elements *elements, const char *from, char *to,
                      size_t count)
{
    switch ((enum unetserve_dtype)elements->shape.dtype) {
    case UNETSERVE_U16:
    case UNETSERVE_I16: return copy_int16(from, to, count, elements->swap);
    case UNETSERVE_F16: return copy_float16(from, to, count, elements->swap);
    case UNETSERVE_F32: return copy_float32(from, to, count, elements->swap);
    case UNETSERVE_F64: return narrow_float64(from, to, count, elements->swap);
    case UNETSERVE_U8:
    case UNETSERVE_I8:
    case UNETSERVE_NONE: break;
    }
    return copy_bytes(from, to, count, false);
}

/* ---- refusals ---- */

/* "[3, 0, 17]": where element number `index` stands. */
static void format_position(const struct unetserve_shape *shape, uint64_t index, char *text,
                            size_t size)
{
    uint64_t position[UNETSERVE_MAX_DIMS] = {0};
    for (uint32_t i = shape->rank; i-- > 0;) {
        position[i] = index % shape->dims[i];
        index /= shape->dims[i];
    }
    size_t length = (size_t)snprintf(text, size, "[");
    for (uint32_t i = 0; i < shape->rank && length < size; i++)
        length += (size_t)snprintf(text + length, size - length, "%s%" PRIu64, i ? ", " : "",
                                   position[i]);
    if (length < size)
        snprintf(text + length, size - length, "]");
}

static const char *what_is_wrong(const struct body_elements *elements, const char *element)
{
    if (elements->shape.dtype == UNETSERVE_F64) {
        double value = load_double(element, elements->swap);
        return isnan(value) ? "is NaN" : isinf(value) ? "is infinite" : "is beyond float32's range";
    }
    if (elements->shape.dtype == UNETSERVE_F16)
        return load16(element, elements->swap) & 0x03ff ? "is NaN" : "is infinite";
    return load32(element, elements->swap) & 0x007fffff ? "is NaN" : "is infinite";
}

static int refuse_value(const struct body_elements *elements, const char *element,
                        struct problem *problem)
{
    char position[UNETSERVE_MAX_DIMS * 24];
    format_position(&elements->shape, elements->done, position, sizeof position);
    problem_set(problem, 422, "the value at %s %s; every value must be finite", position,
                what_is_wrong(elements, element));
    return -1;
}

static int refuse_length(const struct body_elements *elements, struct problem *problem)
{
    char what[160];
    problem_set(problem, 400, "more data than the shape says: %s is %" PRIu64 " bytes",
                unetserve_shape_format(&elements->shape, what, sizeof what),
                elements->total * elements->source_size);
    return -1;
}

/* ---- the reader ---- */

int body_elements_init(struct body_elements *elements, const struct unetserve_shape *shape,
                       bool big_endian, struct body_sink *sink, struct problem *problem)
{
    uint64_t total, source_bytes;
    if (unetserve_shape_elements(shape, &total) || unetserve_shape_bytes(shape, &source_bytes) ||
        source_bytes > SIZE_MAX) {
        char what[160];
        problem_set(problem, 413, "%s is too large",
                    unetserve_shape_format(shape, what, sizeof what));
        return -1;
    }
    elements->shape = *shape;
    elements->total = total;
    elements->done = 0;
    elements->source_size = unetserve_dtype_size(shape->dtype);
    elements->stored_size = shape->dtype == UNETSERVE_F64 ? sizeof(float) : elements->source_size;
    elements->swap = big_endian;
    elements->partial_size = 0;
    return body_sink_reserve(sink, 0, total * elements->stored_size, problem);
}

/* Whole elements: no more than are left. */
static int take_elements(struct body_elements *elements, struct body_sink *sink, const char *bytes,
                         size_t count, struct problem *problem)
{
    size_t right = convert(elements, bytes, sink->data + elements->done * elements->stored_size,
                           count);
    elements->done += right;
    sink->copied += right * elements->stored_size;
    return right == count ? 0
                          : refuse_value(elements, bytes + right * elements->source_size, problem);
}

/* Completes the element that the last piece ended within, if there is one and the piece is long
 * enough. */
static int take_partial(struct body_elements *elements, struct body_sink *sink, const char **bytes,
                        size_t *size, struct problem *problem)
{
    if (elements->partial_size == 0)
        return 0;
    size_t missing = elements->source_size - elements->partial_size;
    size_t taken = *size < missing ? *size : missing;
    memcpy(elements->partial + elements->partial_size, *bytes, taken);
    sink->copied += taken;
    elements->partial_size += (uint8_t)taken;
    *bytes += taken;
    *size -= taken;
    if (elements->partial_size < elements->source_size)
        return 0;
    elements->partial_size = 0;
    return take_elements(elements, sink, elements->partial, 1, problem);
}

int body_elements_feed(struct body_elements *elements, struct body_sink *sink, const char *bytes,
                       size_t size, struct problem *problem)
{
    if (take_partial(elements, sink, &bytes, &size, problem))
        return -1;
    uint64_t count = size / elements->source_size;
    uint64_t left = elements->total - elements->done;
    if (count > left)
        count = left;
    if (count && take_elements(elements, sink, bytes, count, problem))
        return -1;
    bytes += count * elements->source_size;
    size -= count * elements->source_size;
    if (size == 0)
        return 0;
    if (elements->done == elements->total)
        return refuse_length(elements, problem);
    memcpy(elements->partial, bytes, size); /* less than an element */
    sink->copied += size;
    elements->partial_size = (uint8_t)size;
    return 0;
}

struct unetserve_shape body_elements_shape(const struct body_elements *elements)
{
    struct unetserve_shape shape = elements->shape;
    if (shape.dtype == UNETSERVE_F64)
        shape.dtype = UNETSERVE_F32;
    return shape;
}

int body_elements_finish(const struct body_elements *elements, struct unetserve_shape *shape,
                         size_t *stored_bytes, struct problem *problem)
{
    if (elements->done < elements->total) {
        char what[160];
        problem_set(problem, 400,
                    "truncated: expected %" PRIu64 " bytes of data for %s, got %" PRIu64,
                    elements->total * elements->source_size,
                    unetserve_shape_format(&elements->shape, what, sizeof what),
                    elements->done * elements->source_size + elements->partial_size);
        return -1;
    }
    *shape = body_elements_shape(elements);
    *stored_bytes = elements->total * elements->stored_size;
    return 0;
}
