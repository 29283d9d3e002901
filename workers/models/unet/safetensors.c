/*
 * safetensors: eight bytes of header length (little-endian), a JSON object that gives each tensor
 * its type, shape and byte range, then the bytes. The ranges must tile the rest of the file: no
 * overlap, no gap, nothing behind the last.
 */
#include "weights_builder.h"

#include "lib/json_whole.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_MAX_BYTES (32u << 20)

struct reader {
    const uint8_t *data; /* behind the header */
    uint64_t bytes;
    struct weights_builder builder;
    char *error;
    size_t error_size;
};

static bool parse_dtype(const char *name, enum weights_dtype *out)
{
    static const struct {
        const char *name;
        enum weights_dtype dtype;
    } known[] = {
        {"F64", WEIGHTS_F64}, {"F32", WEIGHTS_F32},   {"F16", WEIGHTS_F16}, {"BF16", WEIGHTS_BF16},
        {"I64", WEIGHTS_I64}, {"I32", WEIGHTS_I32},   {"I16", WEIGHTS_I16}, {"I8", WEIGHTS_I8},
        {"U8", WEIGHTS_U8},   {"BOOL", WEIGHTS_BOOL},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].name, name) == 0) {
            *out = known[i].dtype;
            return true;
        }
    }
    return false;
}

/* A non-negative whole number. */
static bool read_natural(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static int read_shape(struct reader *reader, const char *name, const json_t *shape,
                      struct weights_tensor *tensor)
{
    if (!json_is_array(shape) || json_array_size(shape) > WEIGHTS_MAX_RANK)
        return weights_refuse(reader->error, reader->error_size,
                              "\"%.200s\": \"shape\" must be an array of at most %d numbers", name,
                              WEIGHTS_MAX_RANK);
    tensor->rank = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < tensor->rank; i++) {
        if (!read_natural(json_array_get(shape, i), &tensor->dims[i]))
            return weights_refuse(reader->error, reader->error_size,
                                  "\"%.200s\": a dimension is not a whole number", name);
    }
    if (!weights_count_elements(tensor->rank, tensor->dims, &tensor->elements))
        return weights_refuse(reader->error, reader->error_size,
                              "\"%.200s\": the shape is too large for any memory", name);
    return 0;
}

static int read_range(struct reader *reader, const char *name, const json_t *offsets,
                      struct weights_tensor *tensor)
{
    uint64_t begin;
    uint64_t end;
    if (json_array_size(offsets) != 2 || !read_natural(json_array_get(offsets, 0), &begin) ||
        !read_natural(json_array_get(offsets, 1), &end))
        return weights_refuse(reader->error, reader->error_size,
                              "\"%.200s\": \"data_offsets\" must be two whole numbers", name);
    if (begin > end || end > reader->bytes)
        return weights_refuse(reader->error, reader->error_size,
                              "\"%.200s\": bytes %" PRIu64 " to %" PRIu64
                              " lie outside the %" PRIu64 " bytes of data (was the file cut off?)",
                              name, begin, end, reader->bytes);
    uint64_t wanted;
    if (__builtin_mul_overflow(tensor->elements, weights_dtype_size(tensor->dtype), &wanted) ||
        wanted != end - begin)
        return weights_refuse(reader->error, reader->error_size,
                              "\"%.200s\": type and shape do not make the %" PRIu64
                              " bytes that it has",
                              name, end - begin);
    tensor->data = reader->data + begin;
    tensor->bytes = (size_t)(end - begin);
    return 0;
}

static int read_tensor(struct reader *reader, const char *name, const json_t *entry)
{
    struct weights_tensor tensor = {0};
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype || json_object_size(entry) != 3)
        return weights_refuse(reader->error, reader->error_size,
                              "\"%.200s\": expected exactly dtype, shape and data_offsets", name);
    if (!parse_dtype(dtype, &tensor.dtype))
        return weights_refuse(reader->error, reader->error_size,
                              "\"%.200s\": elements of type \"%.32s\" are not supported", name,
                              dtype);
    int rc = read_shape(reader, name, json_object_get(entry, "shape"), &tensor);
    if (rc == 0)
        rc = read_range(reader, name, json_object_get(entry, "data_offsets"), &tensor);
    if (rc == 0)
        rc = weights_builder_add(&reader->builder, name, &tensor);
    if (rc == -E2BIG)
        rc = weights_refuse(reader->error, reader->error_size, "more than %d tensors",
                            WEIGHTS_MAX_TENSORS);
    return rc;
}

static int check_metadata(struct reader *reader, const json_t *metadata)
{
    const char *key;
    const json_t *value;
    bool ok = json_is_object(metadata);
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value)
    {
        if (!json_is_string(value))
            ok = false;
    }
    return ok ? 0
              : weights_refuse(reader->error, reader->error_size,
                               "\"__metadata__\" must be an object of strings");
}

static int compare_ranges(const void *a, const void *b)
{
    const struct weights_tensor *const *x = a;
    const struct weights_tensor *const *y = b;
    if ((*x)->data != (*y)->data)
        return (*x)->data < (*y)->data ? -1 : 1;
    return ((*x)->bytes > (*y)->bytes) - ((*x)->bytes < (*y)->bytes);
}

/* Sorted by place, each tensor must begin where the one before it ended. */
static int check_tiling(struct reader *reader)
{
    size_t count = reader->builder.count;
    const struct weights_tensor **sorted = calloc(count + 1, sizeof(void *));
    if (!sorted)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++)
        sorted[i] = &reader->builder.tensors[i];
    qsort(sorted, count, sizeof(void *), compare_ranges);
    const uint8_t *next = reader->data;
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        const uint8_t *begin = sorted[i]->data;
        if (begin != next)
            rc = weights_refuse(reader->error, reader->error_size, "\"%.200s\" %s", sorted[i]->name,
                                begin < next ? "overlaps another tensor" : "follows a gap");
        next = begin + sorted[i]->bytes;
    }
    if (rc == 0 && next != reader->data + reader->bytes)
        rc = weights_refuse(reader->error, reader->error_size,
                            "%" PRIu64 " bytes behind the last tensor",
                            (uint64_t)(reader->data + reader->bytes - next));
    free(sorted);
    return rc;
}

static int read_header(struct reader *reader, const json_t *header)
{
    const char *name;
    const json_t *entry;
    json_object_foreach((json_t *)(uintptr_t)header, name, entry)
    {
        int rc = strcmp(name, "__metadata__") == 0 ? check_metadata(reader, entry)
                                                   : read_tensor(reader, name, entry);
        if (rc < 0)
            return rc;
    }
    if (reader->builder.count == 0)
        return weights_refuse(reader->error, reader->error_size, "the file holds no tensor");
    return check_tiling(reader);
}

static uint64_t read_u64(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | bytes[i];
    return value;
}

int weights_parse_safetensors(const void *data, size_t size, struct weights *out, char *error,
                              size_t error_size)
{
    const uint8_t *bytes = data;
    if (size < 8)
        return weights_refuse(error, error_size, "too short for a safetensors file");
    uint64_t header_bytes = read_u64(bytes);
    if (header_bytes > HEADER_MAX_BYTES || header_bytes > size - 8)
        return weights_refuse(error, error_size,
                              "the safetensors header claims %" PRIu64
                              " bytes; the file has %zu (was it cut off?) and %u are allowed",
                              header_bytes, size, HEADER_MAX_BYTES);
    json_error_t problem;
    json_t *header = json_whole_load((const char *)bytes + 8, (size_t)header_bytes,
                                     JSON_REJECT_DUPLICATES, &problem);
    if (!header && errno == ENOMEM)
        return -ENOMEM;
    if (!json_is_object(header)) {
        json_decref(header);
        return weights_refuse(error, error_size, "the safetensors header is not a JSON object%s%s",
                              header ? "" : ": ", header ? "" : problem.text);
    }
    struct reader reader = {.data = bytes + 8 + header_bytes,
                            .bytes = size - 8 - header_bytes,
                            .error = error,
                            .error_size = error_size};
    int rc = read_header(&reader, header);
    json_decref(header);
    if (rc < 0) {
        weights_builder_abort(&reader.builder);
        return rc;
    }
    return weights_builder_finish(&reader.builder, out, error, error_size);
}
