#include "lib/npy.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char magic[6] = "\x93NUMPY";

/* One type by the letter and size of numpy's descr: "u2" in '<u2'. */
static const struct {
    char descr[3];
    uint32_t dtype;
} types[] = {
    {"u1", UNETSERVE_U8},  {"i1", UNETSERVE_I8},  {"u2", UNETSERVE_U16}, {"i2", UNETSERVE_I16},
    {"f2", UNETSERVE_F16}, {"f4", UNETSERVE_F32}, {"f8", UNETSERVE_F64},
};
enum { TYPE_COUNT = sizeof types / sizeof types[0] };

/* ---- reading ---- */

/* The header's text, a Python dictionary, and what has been found in it. */
struct dictionary {
    const char *at;
    const char *end;
    struct unetserve_shape shape;
    int big_endian;
    unsigned seen; /* bit 0 descr, 1 fortran_order, 2 shape */
    char *error;
    size_t error_size;
};

enum { SEEN_DESCR = 1, SEEN_ORDER = 2, SEEN_SHAPE = 4, SEEN_ALL = 7 };

static int fail(struct dictionary *dict, int code, const char *sentence)
{
    snprintf(dict->error, dict->error_size, "%s", sentence);
    return code;
}

static int malformed(struct dictionary *dict, const char *expected)
{
    snprintf(dict->error, dict->error_size, "malformed npy header: expected %s", expected);
    return -EBADMSG;
}

static void skip_blanks(struct dictionary *dict)
{
    while (dict->at < dict->end &&
           (*dict->at == ' ' || *dict->at == '\t' || *dict->at == '\n' || *dict->at == '\r'))
        dict->at++;
}

/* Is c the next thing, after blanks? Then move past it. */
static bool take(struct dictionary *dict, char c)
{
    skip_blanks(dict);
    if (dict->at == dict->end || *dict->at != c)
        return false;
    dict->at++;
    return true;
}

static bool take_word(struct dictionary *dict, const char *word)
{
    size_t length = strlen(word);
    skip_blanks(dict);
    if ((size_t)(dict->end - dict->at) < length || memcmp(dict->at, word, length) != 0)
        return false;
    dict->at += length;
    return true;
}

/* A quoted string of plain characters, cut to what text holds. numpy writes no escapes here, so
 * none are read. */
static int take_string(struct dictionary *dict, char *text, size_t size)
{
    skip_blanks(dict);
    if (dict->at == dict->end || (*dict->at != '\'' && *dict->at != '"'))
        return malformed(dict, "a quoted string");
    char quote = *dict->at++;
    size_t length = 0;
    for (; dict->at < dict->end && *dict->at != quote; dict->at++) {
        if (*dict->at == '\\' || !isprint((unsigned char)*dict->at))
            return malformed(dict, "a quoted string of plain characters");
        if (length + 1 < size)
            text[length++] = *dict->at;
    }
    text[length] = '\0';
    if (dict->at == dict->end)
        return malformed(dict, "the end of a quoted string");
    dict->at++;
    return 0;
}

static int read_descr(struct dictionary *dict)
{
    char descr[32];
    skip_blanks(dict);
    if (dict->at < dict->end && *dict->at == '[')
        return fail(dict, -ENOTSUP, "npy type: an array of records, expected numbers");
    int status = take_string(dict, descr, sizeof descr);
    if (status)
        return status;
    for (size_t i = 0; i < TYPE_COUNT; i++) {
        if (descr[0] == '\0' || strcmp(descr + 1, types[i].descr) != 0)
            continue;
        bool single = unetserve_dtype_size(types[i].dtype) == 1;
        if (!strchr(single ? "|<>=" : "<>=", descr[0]))
            break;
        dict->shape.dtype = types[i].dtype;
        dict->big_endian = descr[0] == '>' && !single;
        return 0;
    }
    snprintf(dict->error, dict->error_size,
             "npy type '%s', expected (u)int8, (u)int16, float16, float32 or float64", descr);
    return -ENOTSUP;
}

static int read_order(struct dictionary *dict)
{
    if (take_word(dict, "False"))
        return 0;
    if (take_word(dict, "True"))
        return fail(
            dict, -ENOTSUP,
            "npy array in Fortran order, expected C order (numpy.ascontiguousarray makes it so)");
    return malformed(dict, "True or False for fortran_order");
}

static int read_dimension(struct dictionary *dict, uint64_t *dimension)
{
    skip_blanks(dict);
    const char *first = dict->at;
    uint64_t value = 0;
    for (; dict->at < dict->end && *dict->at >= '0' && *dict->at <= '9'; dict->at++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*dict->at - '0'), &value))
            return malformed(dict, "dimensions below 2 to the 64");
    if (dict->at == first || (*first == '0' && dict->at - first > 1))
        return malformed(dict, "a number in shape");
    *dimension = value;
    return 0;
}

/* A tuple: (), (3,), (3, 4) or (3, 4,). */
static int read_shape(struct dictionary *dict)
{
    if (!take(dict, '('))
        return malformed(dict, "a tuple for shape");
    bool comma = true;
    while (!take(dict, ')')) {
        uint64_t dimension;
        if (!comma)
            return malformed(dict, "a comma or the end of shape");
        int status = read_dimension(dict, &dimension);
        if (status)
            return status;
        if (dict->shape.rank == UNETSERVE_MAX_DIMS)
            return fail(dict, -ENOTSUP, "npy array of more than 6 dimensions");
        dict->shape.dims[dict->shape.rank++] = dimension;
        comma = take(dict, ',');
    }
    if (dict->shape.rank == 1 && !comma)
        return malformed(dict, "a tuple for shape");
    return 0;
}

static int read_entry(struct dictionary *dict)
{
    static const struct {
        const char *key;
        unsigned bit;
        int (*read)(struct dictionary *);
    } entries[] = {
        {"descr", SEEN_DESCR, read_descr},
        {"fortran_order", SEEN_ORDER, read_order},
        {"shape", SEEN_SHAPE, read_shape},
    };
    char key[20];
    int status = take_string(dict, key, sizeof key);
    if (status)
        return status;
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        if (strcmp(key, entries[i].key) != 0)
            continue;
        if (dict->seen & entries[i].bit)
            return malformed(dict, "each key once");
        dict->seen |= entries[i].bit;
        if (!take(dict, ':'))
            return malformed(dict, "a colon after a key");
        return entries[i].read(dict);
    }
    return malformed(dict, "the keys descr, fortran_order and shape");
}

static int read_dictionary(struct dictionary *dict)
{
    if (!take(dict, '{'))
        return malformed(dict, "a dictionary");
    bool comma = true;
    while (!take(dict, '}')) {
        if (!comma)
            return malformed(dict, "a comma or the end of the dictionary");
        int status = read_entry(dict);
        if (status)
            return status;
        comma = take(dict, ',');
    }
    if (dict->seen != SEEN_ALL)
        return malformed(dict, "the keys descr, fortran_order and shape");
    skip_blanks(dict);
    return dict->at == dict->end ? 0 : malformed(dict, "nothing after the dictionary");
}

static int bad_prefix(char *error, size_t error_size, const char *sentence)
{
    snprintf(error, error_size, "%s", sentence);
    return -EBADMSG;
}

int npy_header_length(const void *data, size_t size, size_t *needed, char *error, size_t error_size)
{
    const uint8_t *bytes = data;
    size_t compared = size < sizeof magic ? size : sizeof magic;
    if (compared && memcmp(bytes, magic, compared) != 0)
        return bad_prefix(error, error_size, "not an npy file: it does not begin with \\x93NUMPY");
    if (size < NPY_PREFIX_MIN) {
        *needed = NPY_PREFIX_MIN;
        return 0;
    }
    if (bytes[6] < 1 || bytes[6] > 3 || bytes[7] != 0)
        return bad_prefix(error, error_size, "npy version not known: expected 1.0, 2.0 or 3.0");
    if (bytes[6] > 1 && size < NPY_PREFIX_MAX) {
        *needed = NPY_PREFIX_MAX;
        return 0;
    }
    size_t length = bytes[8] | (size_t)bytes[9] << 8;
    size_t prefix = NPY_PREFIX_MIN;
    if (bytes[6] > 1) {
        length |= (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
        prefix = NPY_PREFIX_MAX;
    }
    if (length > NPY_HEADER_MAX - prefix)
        return bad_prefix(error, error_size, "npy header longer than 65536 bytes");
    *needed = prefix + length;
    return 0;
}

int npy_header_read(const void *data, size_t size, struct unetserve_shape *shape, int *big_endian,
                    size_t *data_offset, char *error, size_t error_size)
{
    const uint8_t *bytes = data;
    size_t needed;
    int status = npy_header_length(data, size, &needed, error, error_size);
    if (status)
        return status;
    if (size < needed)
        return -EAGAIN;
    const char *text = (const char *)bytes;
    struct dictionary dict = {
        .at = text + (bytes[6] == 1 ? NPY_PREFIX_MIN : NPY_PREFIX_MAX),
        .end = text + needed,
        .error = error,
        .error_size = error_size,
    };
    status = read_dictionary(&dict);
    if (status)
        return status;
    *shape = dict.shape;
    *big_endian = dict.big_endian;
    *data_offset = needed;
    return 0;
}

/* ---- writing ---- */

static const char *descr_of(uint32_t dtype)
{
    for (size_t i = 0; i < TYPE_COUNT; i++)
        if (types[i].dtype == dtype)
            return types[i].descr;
    return NULL;
}

int npy_header_write(const struct unetserve_shape *shape, char *header, size_t size)
{
    char text[256], dims[UNETSERVE_MAX_DIMS * 24 + 4] = "";
    const char *descr = descr_of(shape->dtype);
    if (!descr || shape->rank > UNETSERVE_MAX_DIMS)
        return -EINVAL;
    size_t at = 0;
    for (uint32_t i = 0; i < shape->rank; i++)
        at += (size_t)snprintf(dims + at, sizeof dims - at, "%s%" PRIu64, i ? ", " : "",
                               shape->dims[i]);
    int length = snprintf(text, sizeof text,
                          "{'descr': '%c%s', 'fortran_order': False, 'shape': (%s%s), }",
                          descr[1] == '1' ? '|' : '<', descr, dims, shape->rank == 1 ? "," : "");
    size_t total = (NPY_PREFIX_MIN + (size_t)length + 1 + 63) / 64 * 64;
    if (total > size)
        return -EINVAL;
    memcpy(header, magic, sizeof magic);
    header[6] = 1;
    header[7] = 0;
    header[8] = (char)((total - NPY_PREFIX_MIN) & 0xff);
    header[9] = (char)((total - NPY_PREFIX_MIN) >> 8);
    memset(header + NPY_PREFIX_MIN, ' ', total - NPY_PREFIX_MIN);
    memcpy(header + NPY_PREFIX_MIN, text, (size_t)length);
    header[total - 1] = '\n';
    return (int)total;
}
