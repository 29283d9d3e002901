#include "unetserve/body_reader.h"

#include "lib/body_check.h"
#include "lib/body_elements.h"
#include "lib/body_form.h"
#include "lib/body_sink.h"
#include "lib/json_array.h"
#include "lib/npy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Letters of base64 that are decoded at a time. */
#define LETTERS 4096

static json_array_text take_base64;
static body_form_content feed_content;

/* The shape is known: refuse it, or get ready for the elements. */
static int begin_elements(struct body_reader *reader, const struct unetserve_shape *shape,
                          bool big_endian, struct problem *problem)
{
    if (body_check_shape(reader->interface, shape, problem))
        return -1;
    return body_elements_init(&reader->elements, shape, big_endian, &reader->sink, problem);
}

int body_reader_init(struct body_reader *reader, const struct unetserve_interface *interface,
                     enum body_format format, const struct unetserve_shape *shape,
                     void *destination, size_t capacity, body_grow *grow, void *grow_opaque,
                     struct problem *problem)
{
    reader->interface = interface;
    reader->format = format;
    reader->wrap = BODY_DOCUMENT;
    reader->base64 = (struct base64){0};
    reader->sink = (struct body_sink){destination, capacity, grow, grow_opaque, 0};
    reader->header_needed = 0;
    reader->used = 0;
    reader->file = IMAGE_FILE_NONE;
    reader->form = NULL;
    reader->raw = (format == BODY_FILE || format == BODY_MULTIPART) && shape
                      ? *shape
                      : (struct unetserve_shape){0};
    switch (format) {
    case BODY_JSON:
        json_array_init(&reader->json, interface, take_base64, reader);
        reader->wrap = BODY_JSON;
        break;
    case BODY_RAW: return begin_elements(reader, shape, false, problem);
    case BODY_NPY: reader->header_needed = NPY_PREFIX_MIN; break;
    case BODY_FILE: reader->header_needed = IMAGE_FILE_MAGIC; break;
    case BODY_DOCUMENT: break;
    case BODY_MULTIPART:
    case BODY_URLENCODED: reader->wrap = format; break;
    }
    return 0;
}

void body_reader_close(struct body_reader *reader)
{
    free(reader->form);
    reader->form = NULL;
}

int body_reader_begin_form(struct body_reader *reader, const char *content_type,
                           struct problem *problem)
{
    reader->form = body_form_open(reader->interface, reader->wrap, content_type, feed_content,
                                  reader, problem);
    if (!reader->form)
        return -1;
    bool image = reader->interface->input_kind == UNETSERVE_TENSOR;
    reader->format = image ? BODY_FILE : BODY_DOCUMENT;
    reader->header_needed = image ? IMAGE_FILE_MAGIC : 0;
    return 0;
}

/* ---- npy: the header is collected where the data will go, and read when it is whole ---- */

static int read_npy_header(struct body_reader *reader, struct problem *problem)
{
    struct unetserve_shape shape;
    int big_endian;
    size_t data_offset;
    char error[200];
    int status = npy_header_read(reader->sink.data, reader->used, &shape, &big_endian, &data_offset,
                                 error, sizeof error);
    if (status == -EAGAIN)
        status = npy_header_length(reader->sink.data, reader->used, &reader->header_needed, error,
                                   sizeof error);
    else if (status == 0) {
        reader->header_needed = 0;
        return begin_elements(reader, &shape, big_endian, problem);
    }
    if (status == 0)
        return 0;
    problem_set(problem, status == -ENOTSUP ? 422 : 400, "%s", error);
    return -1;
}

/* More of the header; 0 when that was all of the piece, or all that is needed now, or -1. */
static int collect_header(struct body_reader *reader, const char **bytes, size_t *size,
                          struct problem *problem)
{
    if (body_sink_reserve(&reader->sink, reader->used, reader->header_needed, problem))
        return -1;
    size_t taken = reader->header_needed - reader->used;
    if (taken > *size)
        taken = *size;
    memcpy(reader->sink.data + reader->used, *bytes, taken);
    reader->sink.copied += taken;
    reader->used += taken;
    *bytes += taken;
    *size -= taken;
    return 0;
}

static int feed_npy_header(struct body_reader *reader, const char **bytes, size_t *size,
                           struct problem *problem)
{
    while (*size && reader->header_needed) {
        if (collect_header(reader, bytes, size, problem))
            return -1;
        if (reader->used == reader->header_needed && read_npy_header(reader, problem))
            return -1;
    }
    return 0;
}

static int feed_npy(struct body_reader *reader, const char *bytes, size_t size,
                    struct problem *problem)
{
    if (feed_npy_header(reader, &bytes, &size, problem))
        return -1;
    return size ? body_elements_feed(&reader->elements, &reader->sink, bytes, size, problem) : 0;
}

/* ---- documents ---- */

static int feed_document(struct body_reader *reader, const char *bytes, size_t size,
                         struct problem *problem)
{
    size_t needed;
    if (__builtin_add_overflow(reader->used, size, &needed)) {
        problem_set(problem, 413, "Payload too large");
        return -1;
    }
    if (body_sink_reserve(&reader->sink, reader->used, needed, problem))
        return -1;
    memcpy(reader->sink.data + reader->used, bytes, size);
    reader->sink.copied += size;
    reader->used = needed;
    return 0;
}

/* ---- files: a few bytes tell which kind it is ---- */

static int refuse_file(size_t size, struct problem *problem)
{
    if (size < IMAGE_FILE_MAGIC)
        problem_set(problem, 400, "truncated: a file of %zu bytes is neither npy nor TIFF nor PNG",
                    size);
    else
        problem_set(problem, 415,
                    "The file is neither npy nor TIFF nor PNG. Raw elements need the headers "
                    "X-Unetserve-Shape (as 12,256,256) and X-Unetserve-Dtype (as uint16)");
    return -1;
}

/* The first bytes are there. From here on the reader is one of that kind. */
static int settle_file(struct body_reader *reader, struct problem *problem)
{
    char first[IMAGE_FILE_MAGIC];
    memcpy(first, reader->sink.data, sizeof first);
    reader->header_needed = 0;
    reader->file = image_file_kind(first);
    if (reader->file)
        return 0;
    if (memcmp(first, "\x93NUMPY", 6) == 0) {
        reader->format = BODY_NPY;
        reader->header_needed = NPY_PREFIX_MIN;
        return 0;
    }
    if (reader->raw.rank == 0)
        return refuse_file(reader->used, problem);
    reader->format = BODY_RAW;
    if (begin_elements(reader, &reader->raw, false, problem))
        return -1;
    return body_elements_feed(&reader->elements, &reader->sink, first, sizeof first, problem);
}

static int feed_first(struct body_reader *reader, const char **bytes, size_t *size,
                      struct problem *problem)
{
    if (collect_header(reader, bytes, size, problem))
        return -1;
    return reader->used < reader->header_needed ? 0 : settle_file(reader, problem);
}

/* What its head says must fit the model. */
static int check_file(const struct body_reader *reader, struct unetserve_shape *shape,
                      struct problem *problem)
{
    struct unetserve_shape found;
    if (image_file_shape(reader->file, reader->sink.data, reader->used, &found, problem) ||
        body_check_shape(reader->interface, &found, problem))
        return -1;
    if (found.dtype == UNETSERVE_F64)
        found.dtype = UNETSERVE_F32;
    *shape = found;
    return 0;
}

static int feed_image(struct body_reader *reader, const char *bytes, size_t size,
                      struct problem *problem)
{
    struct unetserve_shape shape;
    bool had_head = reader->used >= IMAGE_FILE_PNG_HEAD;
    if (feed_document(reader, bytes, size, problem))
        return -1;
    if (reader->file == IMAGE_FILE_PNG && !had_head && reader->used >= IMAGE_FILE_PNG_HEAD)
        return check_file(reader, &shape, problem);
    return 0;
}

static int finish_file(const struct body_reader *reader, struct unetserve_shape *shape,
                       size_t *input_bytes, struct problem *problem)
{
    if (reader->header_needed)
        return refuse_file(reader->used, problem);
    *input_bytes = reader->used;
    return check_file(reader, shape, problem);
}

enum image_file body_reader_file(const struct body_reader *reader)
{
    return reader->file;
}

/* ---- files in JSON ---- */

static int refuse_base64(const struct body_reader *reader, struct problem *problem)
{
    char field[33];
    snprintf(field, sizeof field, "%.32s",
             reader->json.in_kind ? "image_data" : reader->interface->input_field);
    problem_set_value(problem, reader->json.in_kind ? "value_error" : "list_type", field, NULL, 0,
                      reader->json.in_kind
                          ? "Input should be a TIFF, PNG or npy file in base64"
                          : "Input should be a valid list, or a TIFF, PNG or npy file in base64",
                      NULL);
    return -1;
}

/* A piece of the string that stands where the array could. */
static int take_base64(void *opaque, const char *text, size_t size, struct problem *problem)
{
    struct body_reader *reader = opaque;
    char bytes[BASE64_MADE(LETTERS)];
    if (reader->format == BODY_JSON) {
        reader->format = BODY_FILE;
        reader->header_needed = IMAGE_FILE_MAGIC;
    }
    for (size_t at = 0, taken; at < size; at += taken) {
        size_t made;
        taken = size - at < LETTERS ? size - at : LETTERS;
        int failed = base64_feed(&reader->base64, text + at, taken, bytes, &made);
        if (feed_content(reader, bytes, made, problem))
            return -1;
        if (failed)
            return refuse_base64(reader, problem);
    }
    return 0;
}

bool body_reader_in_kind(const struct body_reader *reader)
{
    return reader->wrap == BODY_JSON && reader->json.in_kind && reader->json.is_text;
}

/* ---- any format ---- */

static int feed_content(void *opaque, const char *bytes, size_t size, struct problem *problem)
{
    struct body_reader *reader = opaque;
    if (reader->format == BODY_FILE && reader->header_needed && size > 0 &&
        feed_first(reader, &bytes, &size, problem))
        return -1;
    if (size == 0)
        return 0;
    switch (reader->format) {
    case BODY_NPY: return feed_npy(reader, bytes, size, problem);
    case BODY_RAW:
        return body_elements_feed(&reader->elements, &reader->sink, bytes, size, problem);
    case BODY_FILE: return feed_image(reader, bytes, size, problem);
    default: break;
    }
    return feed_document(reader, bytes, size, problem);
}

int body_reader_feed(struct body_reader *reader, const void *bytes, size_t size,
                     struct problem *problem)
{
    if (size == 0)
        return 0;
    const char *at = bytes;
    if (reader->wrap == BODY_JSON)
        return json_array_feed(&reader->json, &reader->sink, at, size, problem);
    if (reader->wrap == BODY_URLENCODED && body_form_is_json(reader->form, &at, &size))
        reader->wrap = BODY_DOCUMENT;
    if (reader->wrap == BODY_DOCUMENT)
        return feed_content(reader, at, size, problem);
    return body_form_feed(reader->form, reader->wrap, at, size, problem);
}

bool body_reader_shape(const struct body_reader *reader, struct unetserve_shape *shape)
{
    switch (reader->format) {
    case BODY_NPY:
    case BODY_RAW:
        if (reader->header_needed)
            return false;
        *shape = body_elements_shape(&reader->elements);
        return true;
    case BODY_DOCUMENT: *shape = (struct unetserve_shape){0}; return true;
    default: break;
    }
    return false;
}

static int finish_content(const struct body_reader *reader, struct unetserve_shape *shape,
                          size_t *input_bytes, struct problem *problem)
{
    switch (reader->format) {
    case BODY_NPY:
        if (reader->header_needed) {
            problem_set(problem, 400,
                        "truncated: the body ends within the npy header, after %zu bytes",
                        reader->used);
            return -1;
        }
        return body_elements_finish(&reader->elements, shape, input_bytes, problem);
    case BODY_RAW: return body_elements_finish(&reader->elements, shape, input_bytes, problem);
    case BODY_FILE: return finish_file(reader, shape, input_bytes, problem);
    default: break;
    }
    *shape = (struct unetserve_shape){0};
    *input_bytes = reader->used;
    return 0;
}

int body_reader_finish(struct body_reader *reader, struct unetserve_shape *shape,
                       size_t *input_bytes, struct problem *problem)
{
    if (reader->form && reader->wrap != BODY_DOCUMENT &&
        body_form_finish(reader->form, reader->wrap, problem))
        return -1;
    if (reader->wrap != BODY_JSON)
        return finish_content(reader, shape, input_bytes, problem);
    if (json_array_finish(&reader->json, shape, problem))
        return -1;
    if (reader->json.is_text) {
        if (!base64_whole(&reader->base64))
            return refuse_base64(reader, problem);
        return finish_content(reader, shape, input_bytes, problem);
    }
    *input_bytes = reader->json.values * sizeof(float);
    return 0;
}

uint64_t body_reader_copied(const struct body_reader *reader)
{
    uint64_t numbers = reader->wrap == BODY_JSON ? reader->json.values * sizeof(float) : 0;
    return reader->sink.copied + numbers;
}
