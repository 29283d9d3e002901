#include "unetserve/mask_writer.h"

#include "lib/json_text.h"
#include "lib/mask_png.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NPY_HEADER_SPACE = 256,
    LABEL_TEXT_MAX = 4, /* "255," */
    PAIRED_MAX = 63,
    KEY_MAX = 256,
};

/* Labels and the commas after them: each alone, and pairs where no label is larger than PAIRED_MAX.
 * A copy of fixed length and a step of the text's own. */
struct label_texts {
    struct {
        char bytes[LABEL_TEXT_MAX];
        uint8_t length;
    } one[256];
    bool paired;
    uint64_t two[PAIRED_MAX + 1][PAIRED_MAX + 1]; /* the length in the last byte */
};

/* What they take with a comma each, and an upper bound of them that is not far above the largest.
 * Eight at a time: a byte's top bit is set where its label is above 9, above 99. */
static uint64_t measure_labels(const uint8_t *labels, uint64_t count, unsigned *largest)
{
    const uint64_t tops = UINT64_C(0x8080808080808080), rest = ~tops;
    uint64_t bytes = 2 * count, bits = 0, eight = 0, i = 0;
    for (; i + 8 <= count; i += 8) {
        memcpy(&eight, labels + i, sizeof eight);
        bits |= eight;
        uint64_t tens = (((eight & rest) + UINT64_C(0x7676767676767676)) | eight) & tops;
        uint64_t hundreds = (((eight & rest) + UINT64_C(0x1c1c1c1c1c1c1c1c)) | eight) & tops;
        bytes += ((tens >> 7) + (hundreds >> 7)) * UINT64_C(0x0101010101010101) >> 56;
    }
    for (; i < count; i++) {
        bits |= labels[i];
        bytes += (labels[i] > 9) + (labels[i] > 99);
    }
    for (unsigned shift = 32; shift >= 8; shift /= 2)
        bits |= bits >> shift;
    *largest = bits & 0xff;
    return bytes;
}

static void fill_pairs(struct label_texts *texts, unsigned largest)
{
    for (unsigned a = 0; a <= largest; a++)
        for (unsigned b = 0; b <= largest; b++) {
            char pair[8] = {0};
            unsigned first = texts->one[a].length, second = texts->one[b].length;
            memcpy(pair, texts->one[a].bytes, LABEL_TEXT_MAX);
            memcpy(pair + first, texts->one[b].bytes, LABEL_TEXT_MAX);
            pair[7] = (char)(first + second);
            memcpy(&texts->two[a][b], pair, sizeof pair);
        }
}

static void fill_label_texts(struct label_texts *texts, unsigned largest)
{
    for (unsigned label = 0; label < 256; label++) {
        char text[LABEL_TEXT_MAX + 1];
        int length = snprintf(text, sizeof text, "%u,", label & 0xffu);
        memcpy(texts->one[label].bytes, text, LABEL_TEXT_MAX);
        texts->one[label].length = (uint8_t)length;
    }
    texts->paired = largest <= PAIRED_MAX;
    if (texts->paired)
        fill_pairs(texts, largest);
}

/* The bracket is put over the comma that follows the last item. */
static char *close_list(char *at)
{
    at[-1] = ']';
    *at++ = ',';
    return at;
}

static char *write_row(const struct label_texts *texts, const uint8_t *labels, uint64_t count,
                       char *at)
{
    uint64_t i = 0;
    *at++ = '[';
    for (; texts->paired && i + 2 <= count; i += 2) {
        uint64_t pair = texts->two[labels[i]][labels[i + 1]];
        memcpy(at, &pair, sizeof pair);
        at += pair >> 56;
    }
    for (; i < count; i++) {
        memcpy(at, texts->one[labels[i]].bytes, LABEL_TEXT_MAX);
        at += texts->one[labels[i]].length;
    }
    return close_list(at);
}

static char *write_plane(const struct label_texts *texts, const uint8_t *labels, uint64_t rows,
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

/* What the document takes: its labels, two bytes a list, the key, and a little more, because texts
 * are copied whole. */
static int json_size(const struct unetserve_shape *shape, uint64_t label_bytes, size_t key_size,
                     size_t *size)
{
    uint64_t lists = 1, total;
    for (uint32_t i = 0; i + 1 < shape->rank; i++)
        if (__builtin_mul_overflow(lists, shape->dims[i] + 1, &lists))
            return -EINVAL;
    if (__builtin_mul_overflow(lists, 2, &lists) ||
        __builtin_add_overflow(label_bytes, lists, &total) ||
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
    unsigned largest;
    int status = json_size(shape, measure_labels(labels, elements, &largest), key_size, &size);
    if (status)
        return status;
    char *text = malloc(size);
    if (!text)
        return -ENOMEM;

    struct label_texts texts;
    fill_label_texts(&texts, largest);
    uint64_t rows = shape->dims[shape->rank - 2], columns = shape->dims[shape->rank - 1];
    memcpy(text, key, key_size);
    char *at = text + key_size;
    if (shape->rank == 2) {
        at = write_plane(&texts, labels, rows, columns, at);
    } else {
        *at++ = '[';
        for (uint64_t i = 0; i < shape->dims[0]; i++)
            at = write_plane(&texts, labels + i * rows * columns, rows, columns, at);
        at = close_list(at);
    }
    at[-1] = '}';
    *out_size = (size_t)(at - text);
    *out = text;
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
