#include "weights.h"

#include "half.h"
#include "weights_builder.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What struct weights.owner points to. */
struct weights_owner {
    void *map;
    size_t map_bytes;
    void **buffers;
    size_t buffer_count;
    const struct weights_tensor **by_name; /* sorted, for weights_find */
};

int weights_refuse(char *error, size_t error_size, const char *format, ...)
{
    if (error && error_size > 0) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error, error_size, format, arguments);
        va_end(arguments);
    }
    return -EBADMSG;
}

size_t weights_dtype_size(enum weights_dtype dtype)
{
    switch (dtype) {
    case WEIGHTS_F64:
    case WEIGHTS_I64: return 8;
    case WEIGHTS_F32:
    case WEIGHTS_I32: return 4;
    case WEIGHTS_F16:
    case WEIGHTS_BF16:
    case WEIGHTS_I16: return 2;
    case WEIGHTS_I8:
    case WEIGHTS_U8:
    case WEIGHTS_BOOL: return 1;
    }
    return 1;
}

bool weights_count_elements(uint32_t rank, const uint64_t *dims, uint64_t *out)
{
    uint64_t elements = 1;
    for (uint32_t i = 0; i < rank; i++) {
        if (dims[i] > INT64_MAX || __builtin_mul_overflow(elements, dims[i], &elements) ||
            elements > INT64_MAX)
            return false;
    }
    *out = elements;
    return true;
}

/* ---- building a set ---- */

/* Make room for one more of something that is kept in a doubling array. */
static bool grow(void **array, size_t count, size_t *capacity, size_t item_bytes)
{
    if (count < *capacity)
        return true;
    size_t wanted = *capacity ? *capacity * 2 : 64;
    void *larger = reallocarray(*array, wanted, item_bytes);
    if (!larger)
        return false;
    *array = larger;
    *capacity = wanted;
    return true;
}

void *weights_builder_allocate(struct weights_builder *builder, size_t bytes)
{
    void *buffers = builder->buffers;
    if (!grow(&buffers, builder->buffer_count, &builder->buffer_capacity, sizeof(void *)))
        return NULL;
    builder->buffers = buffers;
    void *buffer = malloc(bytes ? bytes : 1);
    if (buffer)
        builder->buffers[builder->buffer_count++] = buffer;
    return buffer;
}

int weights_builder_add(struct weights_builder *builder, const char *name,
                        const struct weights_tensor *tensor)
{
    if (builder->count >= WEIGHTS_MAX_TENSORS)
        return -E2BIG;
    void *tensors = builder->tensors;
    if (!grow(&tensors, builder->count, &builder->capacity, sizeof *builder->tensors))
        return -ENOMEM;
    builder->tensors = tensors;
    size_t name_bytes = strlen(name) + 1;
    char *copy = weights_builder_allocate(builder, name_bytes);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, name, name_bytes);
    builder->tensors[builder->count] = *tensor;
    builder->tensors[builder->count].name = copy;
    builder->count++;
    return 0;
}

void weights_builder_abort(struct weights_builder *builder)
{
    for (size_t i = 0; i < builder->buffer_count; i++)
        free(builder->buffers[i]);
    free(builder->buffers);
    free(builder->tensors);
    *builder = (struct weights_builder){0};
}

static int compare_names(const void *a, const void *b)
{
    const struct weights_tensor *const *x = a;
    const struct weights_tensor *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* The sorted index, or NULL with *rc. */
static const struct weights_tensor **index_names(const struct weights_builder *builder, int *rc,
                                                 char *error, size_t error_size)
{
    size_t count = builder->count;
    const struct weights_tensor **by_name = calloc(count + 1, sizeof(void *));
    if (!by_name) {
        *rc = -ENOMEM;
        return NULL;
    }
    for (size_t i = 0; i < count; i++)
        by_name[i] = &builder->tensors[i];
    qsort(by_name, count, sizeof(void *), compare_names);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(by_name[i - 1]->name, by_name[i]->name) == 0) {
            *rc = weights_refuse(error, error_size, "the name \"%.200s\" occurs twice",
                                 by_name[i]->name);
            free(by_name);
            return NULL;
        }
    }
    return by_name;
}

int weights_builder_finish(struct weights_builder *builder, struct weights *out, char *error,
                           size_t error_size)
{
    int rc = -ENOMEM;
    struct weights_owner *owner = calloc(1, sizeof *owner);
    const struct weights_tensor **by_name = NULL;
    if (owner)
        by_name = index_names(builder, &rc, error, error_size);
    if (!by_name) {
        free(owner);
        weights_builder_abort(builder);
        return rc;
    }
    owner->by_name = by_name;
    owner->buffers = builder->buffers;
    owner->buffer_count = builder->buffer_count;
    *out = (struct weights){.tensors = builder->tensors, .count = builder->count, .owner = owner};
    *builder = (struct weights_builder){0};
    return 0;
}

void weights_close(struct weights *weights)
{
    struct weights_owner *owner = weights->owner;
    if (owner) {
        for (size_t i = 0; i < owner->buffer_count; i++)
            free(owner->buffers[i]);
        free(owner->buffers);
        free(owner->by_name);
        if (owner->map)
            munmap(owner->map, owner->map_bytes);
        free(owner);
    }
    free(weights->tensors);
    *weights = (struct weights){0};
}

/* ---- opening a file ---- */

static int map_file(const char *path, void **map, size_t *bytes, char *error, size_t error_size)
{
    int rc;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) {
        rc = -errno;
        snprintf(error, error_size, "%s: %s", path, strerror(errno));
        return rc;
    }
    struct stat status;
    void *mapping = MAP_FAILED;
    if (fstat(fd, &status) < 0) {
        rc = -errno;
    } else if (S_ISDIR(status.st_mode)) {
        rc = -EISDIR;
    } else if (!S_ISREG(status.st_mode) || status.st_size < 8) {
        close(fd);
        weights_refuse(error, error_size, "%s: %s", path,
                       S_ISREG(status.st_mode) ? "too short for a weights file"
                                               : "it is no regular file");
        return -EBADMSG;
    } else {
        mapping = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        rc = mapping == MAP_FAILED ? -errno : 0;
    }
    close(fd);
    if (rc < 0) {
        snprintf(error, error_size, "%s: %s", path, strerror(-rc));
        return rc;
    }
    *map = mapping;
    *bytes = (size_t)status.st_size;
    return 0;
}

/* What people mistake for weights, by the first bytes. */
static const char *name_mistake(const uint8_t *data, size_t size)
{
    static const struct {
        const char *start;
        const char *what;
    } known[] = {
        {"\x89HDF", "an HDF5 file"},
        {"\x93NUMPY", "an npy array"},
        {"\x1f\x8b", "a gzip file; unpack it first"},
        {"GGUF", "a GGUF file"},
        {"version https://git-lfs", "a Git LFS pointer, not the file it stands for: git lfs pull"},
        {"<!DOCTYPE html", "an HTML page, so the download went wrong"},
        {"<!doctype html", "an HTML page, so the download went wrong"},
        {"<html", "an HTML page, so the download went wrong"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t length = strlen(known[i].start);
        if (size >= length && memcmp(data, known[i].start, length) == 0)
            return known[i].what;
    }
    return NULL;
}

/* By the first bytes, so that a wrong suffix does no harm. */
static int parse_by_content(const uint8_t *data, size_t size, struct weights *out, char *error,
                            size_t error_size)
{
    if (memcmp(data, "PK", 2) == 0)
        return weights_parse_pth(data, size, out, error, error_size);
    if (data[0] == 0x80 && data[1] >= 2 && data[1] <= 5)
        return weights_refuse(
            error, error_size,
            "refused: this is a bare pickle, the format torch.save wrote before 1.6; load it with "
            "torch once and save it again: torch.save(torch.load(old), new)");
    const char *mistake = name_mistake(data, size);
    if (mistake)
        return weights_refuse(error, error_size,
                              "refused: a state dict as safetensors or .pth is needed, and this is "
                              "%s",
                              mistake);
    if (size > 8 && data[8] == '{')
        return weights_parse_safetensors(data, size, out, error, error_size);
    return weights_refuse(error, error_size,
                          "neither a safetensors file nor a zip written by torch.save");
}

int weights_open(const char *path, struct weights *out, char *error, size_t error_size)
{
    void *map = NULL;
    size_t bytes = 0;
    int rc = map_file(path, &map, &bytes, error, error_size);
    if (rc < 0)
        return rc;
    assert(map);
    char reason[512] = "out of memory";
    struct weights weights = {0};
    rc = parse_by_content(map, bytes, &weights, reason, sizeof reason);
    if (rc < 0) {
        munmap(map, bytes);
        snprintf(error, error_size, "%s: %s", path, reason);
        return rc;
    }
    struct weights_owner *owner = weights.owner;
    assert(owner);
    owner->map = map;
    owner->map_bytes = bytes;
    *out = weights;
    return 0;
}

struct packed_hash weights_file_hash(const struct weights *weights)
{
    const struct weights_owner *owner = weights->owner;
    return packed_hash_of(owner->map, owner->map_bytes);
}

/* ---- reading a set ---- */

static int compare_key(const void *key, const void *entry)
{
    const struct weights_tensor *const *tensor = entry;
    return strcmp(key, (*tensor)->name);
}

const struct weights_tensor *weights_find(const struct weights *weights, const char *name)
{
    const struct weights_owner *owner = weights->owner;
    if (!owner)
        return NULL;
    const struct weights_tensor **found = bsearch(name, owner->by_name, weights->count,
                                                  sizeof(void *), compare_key);
    return found ? *found : NULL;
}

static void f64_to_f32(const uint8_t *in, size_t elements, float *out)
{
    for (size_t i = 0; i < elements; i++) {
        double value;
        memcpy(&value, in + i * sizeof value, sizeof value);
        out[i] = (float)value;
    }
}

static void sixteen_to_f32(const uint8_t *in, size_t elements, float (*widen)(uint16_t), float *out)
{
    for (size_t i = 0; i < elements; i++) {
        uint16_t bits;
        memcpy(&bits, in + i * sizeof bits, sizeof bits);
        out[i] = widen(bits);
    }
}

int weights_to_f32(const struct weights_tensor *tensor, float *out)
{
    size_t elements = (size_t)tensor->elements;
    switch (tensor->dtype) {
    case WEIGHTS_F32: memcpy(out, tensor->data, elements * sizeof *out); return 0;
    case WEIGHTS_F64: f64_to_f32(tensor->data, elements, out); return 0;
    case WEIGHTS_F16: sixteen_to_f32(tensor->data, elements, half_to_f32, out); return 0;
    case WEIGHTS_BF16: sixteen_to_f32(tensor->data, elements, bfloat16_to_f32, out); return 0;
    case WEIGHTS_I64:
    case WEIGHTS_I32:
    case WEIGHTS_I16:
    case WEIGHTS_I8:
    case WEIGHTS_U8:
    case WEIGHTS_BOOL: break;
    }
    return -EINVAL;
}
