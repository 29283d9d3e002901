#include "lib/tiff_head.h"

#include <stdbool.h>
#include <string.h>

enum { ENTRIES_MAX = 4096, TYPE_BYTE = 1, TYPE_SHORT = 3, TYPE_LONG = 4, TYPE_LONG8 = 16 };

/* The tags that count here, and what they are when a file has not got them (0: it must). */
enum tag { WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, FORMAT, TAG_COUNT };

static const struct {
    uint16_t number;
    uint32_t fallback;
    const char *name;
} tags[TAG_COUNT] = {
    [WIDTH] = {256, 0, "ImageWidth"},
    [HEIGHT] = {257, 0, "ImageLength"},
    [BITS] = {258, 1, "BitsPerSample"},
    [COMPRESSION] = {259, 1, "Compression"},
    [PHOTOMETRIC] = {262, 1, "PhotometricInterpretation"},
    [SAMPLES] = {277, 1, "SamplesPerPixel"},
    [FORMAT] = {339, 1, "SampleFormat"},
};

/* A tag's values: count numbers of that many bytes from offset on; count 0: it is not there. */
struct values {
    uint64_t count, offset;
    size_t each;
};

struct tiff {
    const uint8_t *bytes;
    size_t size;
    bool swap; /* big-endian */
    bool big;  /* BigTIFF: offsets and counts of 64 bits */
    struct values values[TAG_COUNT];
    struct problem *problem;
};

static int malformed(const struct tiff *tiff, const char *what)
{
    problem_set(tiff->problem, 400, "malformed TIFF file: %s", what);
    return -1;
}

/* A number of 1, 2, 4 or 8 bytes. False: it lies beyond the end. */
static bool number_at(const struct tiff *tiff, uint64_t offset, size_t each, uint64_t *out)
{
    if (offset > tiff->size || tiff->size - offset < each)
        return false;
    uint64_t number = 0;
    for (size_t i = 0; i < each; i++)
        number |= (uint64_t)tiff->bytes[offset + (tiff->swap ? each - 1 - i : i)] << 8 * i;
    *out = number;
    return true;
}

static size_t type_size(uint64_t type)
{
    switch (type) {
    case TYPE_BYTE: return 1;
    case TYPE_SHORT: return 2;
    case TYPE_LONG: return 4;
    case TYPE_LONG8: return 8;
    default: return 0;
    }
}

/* One entry of the directory. */
static int read_entry(struct tiff *tiff, uint64_t at)
{
    size_t word = tiff->big ? 8 : 4;
    uint64_t number, type, count, offset = at + 4 + word;
    if (!number_at(tiff, at, 2, &number) || !number_at(tiff, at + 2, 2, &type) ||
        !number_at(tiff, at + 4, word, &count))
        return malformed(tiff, "its directory lies beyond the end");
    for (enum tag i = 0; i < TAG_COUNT; i++) {
        if (tags[i].number != number)
            continue;
        struct values values = {.count = count, .each = type_size(type)};
        if (tiff->values[i].count || count == 0 || values.each == 0)
            return malformed(tiff, tags[i].name);
        /* Few values lie in the entry itself. */
        if (count > word / values.each && !number_at(tiff, offset, word, &offset))
            return malformed(tiff, tags[i].name);
        values.offset = offset;
        tiff->values[i] = values;
    }
    return 0;
}

static int read_directory(struct tiff *tiff)
{
    uint64_t at, count;
    const uint8_t *bytes = tiff->bytes;
    if (tiff->size < 16)
        return malformed(tiff, "it ends within its head");
    tiff->swap = bytes[0] == 'M';
    tiff->big = bytes[tiff->swap ? 3 : 2] == 43;
    (void)number_at(tiff, tiff->big ? 8 : 4, tiff->big ? 8 : 4, &at);
    if (!number_at(tiff, at, tiff->big ? 8 : 2, &count))
        return malformed(tiff, "its directory lies beyond the end");
    if (count == 0 || count > ENTRIES_MAX)
        return malformed(tiff, "a directory with no entries, or more than 4096");
    at += tiff->big ? 8 : 2;
    for (uint64_t i = 0; i < count; i++)
        if (read_entry(tiff, at + i * (tiff->big ? 20 : 12)))
            return -1;
    return 0;
}

/* What each of a tag's first `count` values is: one and the same. */
static int read_tag(const struct tiff *tiff, enum tag tag, uint64_t count, uint64_t *out)
{
    const struct values *values = &tiff->values[tag];
    uint64_t first = tags[tag].fallback, other;
    if (values->count == 0 && first) {
        *out = first;
        return 0;
    }
    if (values->count < count || !number_at(tiff, values->offset, values->each, &first))
        return malformed(tiff, tags[tag].name);
    for (uint64_t i = 1; i < count; i++) {
        if (!number_at(tiff, values->offset + i * values->each, values->each, &other))
            return malformed(tiff, tags[tag].name);
        if (other != first) {
            problem_set(tiff->problem, 422, "TIFF file with bands of different types (%s)",
                        tags[tag].name);
            return -1;
        }
    }
    *out = first;
    return 0;
}

/* None, LZW, deflate by its two numbers, PackBits, zstd. */
static int check_compression(const struct tiff *tiff)
{
    static const uint32_t known[] = {1, 5, 8, 32946, 32773, 50000};
    uint64_t number;
    if (read_tag(tiff, COMPRESSION, 1, &number))
        return -1;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i] == number)
            return 0;
    problem_set(tiff->problem, 422,
                "TIFF compression %u is not read, possible: none, LZW, deflate, PackBits, zstd",
                (unsigned)number);
    return -1;
}

/* Samples are the numbers that they say: no palette, no YCbCr, none turned round. */
static int check_photometric(const struct tiff *tiff)
{
    uint64_t number;
    if (read_tag(tiff, PHOTOMETRIC, 1, &number))
        return -1;
    if (number == 1 || number == 2)
        return 0;
    problem_set(tiff->problem, 422,
                "TIFF file with PhotometricInterpretation %u, expected 1 (bands) or 2 (RGB)",
                (unsigned)number);
    return -1;
}

static int read_type(const struct tiff *tiff, uint64_t samples, uint32_t *dtype)
{
    static const struct {
        uint8_t format, bits, dtype;
    } types[] = {{1, 8, UNETSERVE_U8},   {1, 16, UNETSERVE_U16}, {2, 8, UNETSERVE_I8},
                 {2, 16, UNETSERVE_I16}, {3, 16, UNETSERVE_F16}, {3, 32, UNETSERVE_F32},
                 {3, 64, UNETSERVE_F64}};
    uint64_t bits, format;
    if (read_tag(tiff, BITS, samples, &bits) || read_tag(tiff, FORMAT, samples, &format))
        return -1;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].format == format && types[i].bits == bits) {
            *dtype = types[i].dtype;
            return 0;
        }
    problem_set(tiff->problem, 422,
                "TIFF file of %u bits a sample (format %u), expected (u)int8, (u)int16, float16, "
                "float32 or float64",
                (unsigned)bits, (unsigned)format);
    return -1;
}

int tiff_head_shape(const void *bytes, size_t size, struct unetserve_shape *shape,
                    struct problem *problem)
{
    struct tiff tiff = {.bytes = bytes, .size = size, .problem = problem};
    uint64_t width, height, samples;
    uint32_t dtype;
    if (read_directory(&tiff) || read_tag(&tiff, WIDTH, 1, &width) ||
        read_tag(&tiff, HEIGHT, 1, &height) || read_tag(&tiff, SAMPLES, 1, &samples))
        return -1;
    if (width == 0 || height == 0 || samples == 0 || width > INT32_MAX || height > INT32_MAX ||
        samples > UINT16_MAX)
        return malformed(&tiff, "an image without pixels, or of impossible size");
    if (read_type(&tiff, samples, &dtype) || check_compression(&tiff) || check_photometric(&tiff))
        return -1;
    *shape = (struct unetserve_shape){.dtype = dtype, .rank = 3, .dims = {samples, height, width}};
    return 0;
}
