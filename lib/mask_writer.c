#include "unetserve/mask_writer.h"

#include "lib/json_text.h"
#include "lib/mask_png.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NPY_HEADER_SPACE = 256, LABEL_TEXT_MAX = 4 /* "255," */, KEY_MAX = 256 };

/* A label and the comma after it, stored by one four-byte copy and a step of its length. */
struct label_text {
    char bytes[LABEL_TEXT_MAX];
    uint8_t length;
};

static void fill_label_texts(struct label_text texts[256])
{
    for (unsigned label = 0; label < 256; label++) {
        char text[LABEL_TEXT_MAX + 1];
        int length = snprintf(text, sizeof text, "%u,", label & 0xffu);
        memcpy(texts[label].bytes, text, LABEL_TEXT_MAX);
        texts[label].length = (uint8_t)length;
    }
}

/* The bracket is put over the comma that follows the last item. */
static char *close_list(char *at)
{
    at[-1] = ']';
    *at++ = ',';
    return at;
}

static char *write_row(const struct label_text texts[256], const uint8_t *labels, uint64_t count,
                       char *at)
{
    *at++ = '[';
    for (uint64_t i = 0; i < count; i++) {
        const struct label_text *text = &texts[labels[i]];
        memcpy(at, text->bytes, LABEL_TEXT_MAX);
        at += text->length;
    }
    return close_list(at);
}

static char *write_plane(const struct label_text texts[256], const uint8_t *labels, uint64_t rows,
                         uint64_t columns, char *at)
{
    *at++ = '[';
    for (uint64_t i = 0; i < rows; i++)
        at = write_row(texts, labels + i * columns, columns, at);
    return close_list(at);
}

/* {"field": with the field's name escaped. Returns its length. */
static size_t write_key(const char *field, size_t size, char key[KEY_MAX])
{
    struct json_text text;
    json_text_init(&text, key, KEY_MAX);
    json_text_raw(&text, "{");
    json_text_quote(&text, field, size, KEY_MAX - 8);
    json_text_raw(&text, ":");
    return text.length;
}

/* The most that the document can take: four bytes a label, three a list, the key and the end. */
static int json_size_max(const struct unetserve_shape *shape, uint64_t elements, size_t key_size,
                         size_t *size)
{
    uint64_t lists = 1, total;
    for (uint32_t i = 0; i + 1 < shape->rank; i++)
        if (__builtin_mul_overflow(lists, shape->dims[i] + 1, &lists))
            return -EINVAL;
    if (__builtin_mul_overflow(elements, LABEL_TEXT_MAX, &total) ||
        __builtin_mul_overflow(lists, 3, &lists) || __builtin_add_overflow(total, lists, &total) ||
        __builtin_add_overflow(total, key_size + 16, &total) || total > SIZE_MAX / 2)
        return -EINVAL;
    *size = total;
    return 0;
}

static int encode_json(const struct unetserve_interface *interface,
                       const struct unetserve_shape *shape, uint64_t elements,
                       const uint8_t *labels, void **out, size_t *out_size)
{
    char key[KEY_MAX];
    const char *field = interface->output_field;
    size_t key_size = write_key(field, strnlen(field, sizeof interface->output_field), key);
    size_t size;
    int status = json_size_max(shape, elements, key_size, &size);
    if (status)
        return status;
    char *text = malloc(size);
    if (!text)
        return -ENOMEM;

    struct label_text texts[256];
    fill_label_texts(texts);
    uint64_t rows = shape->dims[shape->rank - 2], columns = shape->dims[shape->rank - 1];
    memcpy(text, key, key_size);
    char *at = text + key_size;
    if (shape->rank == 2) {
        at = write_plane(texts, labels, rows, columns, at);
    } else {
        *at++ = '[';
        for (uint64_t i = 0; i < shape->dims[0]; i++)
            at = write_plane(texts, labels + i * rows * columns, rows, columns, at);
        at = close_list(at);
    }
    at[-1] = '}';
    *out_size = (size_t)(at - text);
    char *shrunk = realloc(text, *out_size);
    if (!shrunk)
        shrunk = text;
    *out = shrunk;
    return 0;
}

static int encode_npy(const struct unetserve_shape *shape, uint64_t elements, const uint8_t *labels,
                      void **out, size_t *out_size)
{
    char header[NPY_HEADER_SPACE];
    int header_size = npy_header_write(shape, header, sizeof header);
    if (header_size < 0)
        return header_size;
    size_t size;
    if (__builtin_add_overflow(elements, (size_t)header_size, &size))
        return -EINVAL;
    char *file = malloc(size);
    if (!file)
        return -ENOMEM;
    memcpy(file, header, (size_t)header_size);
    memcpy(file + header_size, labels, elements);
    *out = file;
    *out_size = size;
    return 0;
}

int mask_encode(enum mask_format format, const struct unetserve_interface *interface,
                const struct unetserve_shape *shape, const uint8_t *labels, void **out,
                size_t *out_size)
{
    uint64_t elements;
    /* No empty masks: with them gone, no dimension is larger than the number of labels, which
     * exist. */
    if (shape->dtype != UNETSERVE_U8 || (shape->rank != 2 && shape->rank != 3) ||
        unetserve_shape_elements(shape, &elements) || elements == 0)
        return -EINVAL;
    switch (format) {
    case MASK_JSON: return encode_json(interface, shape, elements, labels, out, out_size);
    case MASK_NPY: return encode_npy(shape, elements, labels, out, out_size);
    case MASK_PNG: return mask_png_encode(interface, shape, labels, out, out_size);
    }
    return -EINVAL;
}
