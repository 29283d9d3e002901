/*
 * A .pth as torch.save has written it since 1.6: a zip with NAME/data.pkl (the pickle),
 * NAME/data/KEY (one member a storage) and NAME/byteorder. The pickle says which part of which
 * storage each tensor is.
 */
#include "pickle.h"
#include "weights_builder.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

#define MEMBERS_MAX     (WEIGHTS_MAX_TENSORS * 2L)
#define WRAPPER_DEPTH   4
#define MEMBER_NAME_MAX 512

struct archive {
    zip_t *zip;
    zip_int64_t members;
    char prefix[MEMBER_NAME_MAX]; /* "NAME/", or "" */
    bool swap;                    /* written on a big-endian machine */
    uint64_t budget_bytes;        /* what may still be unpacked */
    void **storages;              /* by member: unpacked bytes, owned by the builder */
    uint64_t *storage_bytes;
    struct weights_builder builder;
    char *error;
    size_t error_size;
};

/* ---- members ---- */

/* Exactly bytes of a member. libzip compares the checksum when a further read meets the end. */
static bool unpack(zip_t *zip, zip_uint64_t index, void *out, zip_uint64_t bytes)
{
    zip_file_t *file = zip_fopen_index(zip, index, 0);
    if (!file)
        return false;
    char beyond;
    bool whole = zip_fread(file, out, bytes) == (zip_int64_t)bytes;
    whole = whole && zip_fread(file, &beyond, 1) == 0;
    return zip_fclose(file) == 0 && whole;
}

/* Unpack a member into memory that the builder owns. */
static int read_member(struct archive *a, zip_uint64_t index, void **out, uint64_t *out_bytes)
{
    zip_stat_t status;
    zip_stat_init(&status);
    if (zip_stat_index(a->zip, index, 0, &status) < 0 || !(status.valid & ZIP_STAT_SIZE))
        return weights_refuse(a->error, a->error_size, "a damaged member in the zip: %s",
                              zip_strerror(a->zip));
    if (status.size > a->budget_bytes)
        return weights_refuse(a->error, a->error_size,
                              "the member \"%.200s\" claims %" PRIu64
                              " bytes, more than a file of this size can hold",
                              status.name, (uint64_t)status.size);
    a->budget_bytes -= status.size;
    void *bytes = weights_builder_allocate(&a->builder, (size_t)status.size);
    if (!bytes)
        return -ENOMEM;
    if (!unpack(a->zip, index, bytes, status.size))
        return weights_refuse(a->error, a->error_size,
                              "the member \"%.200s\" cannot be unpacked (damaged, or a compression "
                              "that is not supported)",
                              status.name);
    *out = bytes;
    *out_bytes = status.size;
    return 0;
}

static zip_int64_t find_member(const struct archive *a, const char *name)
{
    char full[MEMBER_NAME_MAX * 2];
    snprintf(full, sizeof full, "%s%s", a->prefix, name);
    return zip_name_locate(a->zip, full, ZIP_FL_ENC_RAW);
}

/* Everything lies in one directory of the zip, named after the file that was saved. */
static int find_prefix(struct archive *a)
{
    for (zip_int64_t i = 0; i < a->members; i++) {
        const char *name = zip_get_name(a->zip, (zip_uint64_t)i, ZIP_FL_ENC_RAW);
        size_t length = name ? strlen(name) : 0;
        if (length < 8 || length >= MEMBER_NAME_MAX || strcmp(name + length - 8, "data.pkl") != 0)
            continue;
        const char *slash = strchr(name, '/');
        if (length == 8 || slash == name + length - 9) {
            memcpy(a->prefix, name, length - 8);
            a->prefix[length - 8] = '\0';
            return 0;
        }
    }
    return weights_refuse(a->error, a->error_size,
                          "a zip without data.pkl: not a file that torch.save wrote");
}

static int check_kind(struct archive *a)
{
    if (find_member(a, "constants.pkl") >= 0)
        return weights_refuse(a->error, a->error_size,
                              "refused: this is a TorchScript archive, which holds a program; save "
                              "the weights alone: "
                              "torch.save(torch.jit.load(old).state_dict(), new)");
    zip_int64_t index = find_member(a, "byteorder");
    if (index < 0)
        return 0; /* older than torch 2.1: always the machine's, which was little-endian */
    void *bytes = NULL;
    uint64_t count = 0;
    int rc = read_member(a, (zip_uint64_t)index, &bytes, &count);
    if (rc < 0)
        return rc;
    a->swap = count == 3 && memcmp(bytes, "big", 3) == 0;
    if (!a->swap && !(count == 6 && memcmp(bytes, "little", 6) == 0))
        return weights_refuse(a->error, a->error_size, "an unknown byte order in the zip");
    return 0;
}

/* ---- tensors ---- */

/* The bytes of a storage, unpacked once however many tensors share it. */
static int read_storage(struct archive *a, const struct pickle_storage *storage,
                        const uint8_t **out, uint64_t *out_bytes)
{
    char name[MEMBER_NAME_MAX];
    if ((size_t)snprintf(name, sizeof name, "data/%s", storage->key) >= sizeof name)
        return weights_refuse(a->error, a->error_size, "a storage with an impossible name");
    zip_int64_t index = find_member(a, name);
    if (index < 0)
        return weights_refuse(a->error, a->error_size, "the member \"%.200s\" is missing", name);
    if (!a->storages[index]) {
        int rc = read_member(a, (zip_uint64_t)index, &a->storages[index], &a->storage_bytes[index]);
        if (rc < 0)
            return rc;
    }
    *out = a->storages[index];
    *out_bytes = a->storage_bytes[index];
    return 0;
}

/* The number of storage elements that the tensor reaches over, from offset on; false on overflow.
 */
static bool count_reach(const struct pickle_tensor *tensor, uint64_t elements, uint64_t *out)
{
    uint64_t last = 0;
    for (uint32_t i = 0; i < tensor->rank && elements > 0; i++) {
        uint64_t step;
        if (__builtin_mul_overflow(tensor->dims[i] - 1, tensor->strides[i], &step) ||
            __builtin_add_overflow(last, step, &last))
            return false;
    }
    *out = last;
    return elements == 0 || !__builtin_add_overflow(last, 1, out);
}

static bool is_packed(const struct pickle_tensor *tensor)
{
    uint64_t expected = 1;
    for (uint32_t i = tensor->rank; i-- > 0;) {
        if (tensor->dims[i] != 1 && tensor->strides[i] != expected)
            return false;
        expected *= tensor->dims[i];
    }
    return true;
}

/* Copy elements into C order, turning their bytes round where the file is big-endian. */
static void gather(const struct pickle_tensor *tensor, const uint8_t *first, size_t element_bytes,
                   bool swap, uint64_t elements, uint8_t *out)
{
    uint64_t position[WEIGHTS_MAX_RANK] = {0};
    uint64_t at = 0;
    for (uint64_t i = 0; i < elements; i++) {
        const uint8_t *element = first + at * element_bytes;
        for (size_t b = 0; b < element_bytes; b++)
            out[i * element_bytes + b] = element[swap ? element_bytes - 1 - b : b];
        for (uint32_t d = tensor->rank; d-- > 0;) {
            at += tensor->strides[d];
            if (++position[d] < tensor->dims[d])
                break;
            at -= tensor->strides[d] * tensor->dims[d];
            position[d] = 0;
        }
    }
}

static int place_tensor(struct archive *a, const char *name, const struct pickle_tensor *source,
                        struct weights_tensor *tensor)
{
    size_t element_bytes = weights_dtype_size(tensor->dtype);
    uint64_t reach = 0;
    uint64_t end = 0;
    const uint8_t *storage = NULL;
    uint64_t storage_bytes = 0;
    int rc = read_storage(a, source->storage, &storage, &storage_bytes);
    if (rc < 0)
        return rc;
    if (!count_reach(source, tensor->elements, &reach) ||
        __builtin_add_overflow(source->offset, reach, &end) ||
        end > storage_bytes / element_bytes || end > source->storage->elements)
        return weights_refuse(a->error, a->error_size,
                              "\"%.200s\" reaches past the end of its storage", name);
    const uint8_t *first = storage + source->offset * element_bytes;
    if (is_packed(source) && !(a->swap && element_bytes > 1)) {
        tensor->data = first;
        return 0;
    }
    /* Strides of 0 make a tensor larger than its storage: such copies draw on the same budget. */
    if (tensor->bytes > a->budget_bytes)
        return weights_refuse(a->error, a->error_size,
                              "\"%.200s\" is larger than a file of this size can hold", name);
    a->budget_bytes -= tensor->bytes;
    uint8_t *copy = weights_builder_allocate(&a->builder, tensor->bytes);
    if (!copy)
        return -ENOMEM;
    gather(source, first, element_bytes, a->swap, tensor->elements, copy);
    tensor->data = copy;
    return 0;
}

static int add_tensor(struct archive *a, const struct pickle_value *key,
                      const struct pickle_tensor *source)
{
    if (key->kind != PICKLE_TEXT || key->count == 0 || strlen(key->as.text) != key->count)
        return weights_refuse(a->error, a->error_size, "a tensor whose name is no plain text");
    const char *name = key->as.text;
    struct weights_tensor tensor = {.dtype = source->storage->dtype, .rank = source->rank};
    memcpy(tensor.dims, source->dims, sizeof tensor.dims);
    uint64_t bytes;
    if (!weights_count_elements(tensor.rank, tensor.dims, &tensor.elements) ||
        __builtin_mul_overflow(tensor.elements, weights_dtype_size(tensor.dtype), &bytes))
        return weights_refuse(a->error, a->error_size,
                              "\"%.200s\": the shape is too large for any memory", name);
    tensor.bytes = (size_t)bytes;
    int rc = place_tensor(a, name, source, &tensor);
    if (rc == 0)
        rc = weights_builder_add(&a->builder, name, &tensor);
    if (rc == -E2BIG)
        rc = weights_refuse(a->error, a->error_size, "more than %d tensors", WEIGHTS_MAX_TENSORS);
    return rc;
}

/* ---- the state dict ---- */

static bool holds_tensors(const struct pickle_value *dict)
{
    for (size_t i = 1; i < dict->count; i += 2)
        if (dict->as.items[i]->kind == PICKLE_TENSOR)
            return true;
    return false;
}

/* The inner dict under a usual name; else the only one that holds tensors of its own (an
 * optimizer's lie deeper). */
static const struct pickle_value *open_wrapper(const struct pickle_value *dict)
{
    static const char *const wrappers[] = {"state_dict", "model_state_dict", "model", "net"};
    for (size_t i = 0; i < sizeof wrappers / sizeof *wrappers; i++) {
        const struct pickle_value *inner = pickle_dict_find(dict, wrappers[i]);
        if (inner && inner->kind == PICKLE_DICT)
            return inner;
    }
    const struct pickle_value *only = NULL;
    for (size_t i = 1; i < dict->count && !holds_tensors(dict); i += 2) {
        const struct pickle_value *inner = dict->as.items[i];
        if (inner->kind != PICKLE_DICT || !holds_tensors(inner))
            continue;
        if (only)
            return NULL;
        only = inner;
    }
    return only;
}

/* Open the dicts that trainers put around a state dict: {"epoch": 3, "optimizer": ...,
 * "state_dict": {...}}. */
static const struct pickle_value *open_wrappers(const struct pickle_value *root)
{
    for (int depth = 0; root->kind == PICKLE_DICT && depth < WRAPPER_DEPTH; depth++) {
        const struct pickle_value *inner = open_wrapper(root);
        if (!inner)
            break;
        root = inner;
    }
    return root->kind == PICKLE_DICT && holds_tensors(root) ? root : NULL;
}

static int read_tensors(struct archive *a, const struct pickle_value *root)
{
    const struct pickle_value *dict = open_wrappers(root);
    if (!dict)
        return weights_refuse(
            a->error, a->error_size,
            "no state dict in the file: neither the saved value nor its "
            "\"state_dict\", \"model_state_dict\" or \"model\" holds tensors, and "
            "of other entries not exactly one does");
    /* Entries that are no tensors (milesial's mask_values) say nothing about the network. */
    for (size_t i = 0; i + 1 < dict->count; i += 2) {
        const struct pickle_value *value = dict->as.items[i + 1];
        int rc = value->kind == PICKLE_TENSOR ? add_tensor(a, dict->as.items[i], value->as.tensor)
                                              : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_archive(struct archive *a)
{
    a->members = zip_get_num_entries(a->zip, 0);
    if (a->members < 0 || a->members > MEMBERS_MAX)
        return weights_refuse(a->error, a->error_size, "a zip with %lld members; %ld are allowed",
                              (long long)a->members, MEMBERS_MAX);
    a->storages = calloc((size_t)a->members + 1, sizeof *a->storages);
    a->storage_bytes = calloc((size_t)a->members + 1, sizeof *a->storage_bytes);
    if (!a->storages || !a->storage_bytes)
        return -ENOMEM;
    int rc = find_prefix(a);
    if (rc == 0)
        rc = check_kind(a);
    void *pickle = NULL;
    uint64_t pickle_bytes = 0;
    if (rc == 0) {
        zip_int64_t index = find_member(a, "data.pkl");
        rc = index < 0 ? weights_refuse(a->error, a->error_size, "data.pkl is missing")
                       : read_member(a, (zip_uint64_t)index, &pickle, &pickle_bytes);
    }
    if (rc < 0)
        return rc;
    void *memory = NULL;
    const struct pickle_value *root = NULL;
    rc = pickle_parse(pickle, (size_t)pickle_bytes, &memory, &root, a->error, a->error_size);
    if (rc == 0)
        rc = read_tensors(a, root);
    pickle_free(memory);
    return rc;
}

static zip_t *open_zip(const void *data, size_t size, char *error, size_t error_size)
{
    zip_error_t problem;
    zip_error_init(&problem);
    zip_t *zip = NULL;
    zip_source_t *source = zip_source_buffer_create(data, size, 0, &problem);
    if (source)
        zip = zip_open_from_source(source, ZIP_RDONLY, &problem);
    if (!zip) {
        zip_source_free(source);
        weights_refuse(error, error_size, "a damaged zip, or one that was cut off: %s",
                       zip_error_strerror(&problem));
    }
    zip_error_fini(&problem);
    return zip;
}

int weights_parse_pth(const void *data, size_t size, struct weights *out, char *error,
                      size_t error_size)
{
    zip_t *zip = open_zip(data, size, error, error_size);
    if (!zip)
        return -EBADMSG;
    /* torch stores without compression; sixteenfold leaves room for repacked files and none for zip
     * bombs. */
    struct archive archive = {.zip = zip,
                              .budget_bytes = (uint64_t)size * 16 + (1u << 20),
                              .error = error,
                              .error_size = error_size};
    int rc = read_archive(&archive);
    zip_discard(zip);
    free(archive.storages);
    free(archive.storage_bytes);
    if (rc < 0) {
        weights_builder_abort(&archive.builder);
        return rc;
    }
    return weights_builder_finish(&archive.builder, out, error, error_size);
}
