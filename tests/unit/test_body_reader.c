/* Bodies of every format, whole and in pieces; room that grows; shapes that a model takes; the
 * headers of raw bodies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/base64.h"
#include "unetserve/body_reader.h"
#include "unetserve/mask_writer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BODY_MAX = 100000 };

/* A destination that starts small and moves each time it grows, up to a limit. */
struct room {
    char *data;
    size_t capacity;
    size_t limit;
    size_t last_needed;
    int grown;
};

struct result {
    int status;
    struct unetserve_shape shape;
    size_t bytes;
    struct problem problem;
    struct room room;
    size_t fed; /* bytes fed when it was refused */
    bool in_kind;
    enum image_file file;
};

static void *grow(void *opaque, size_t used, size_t needed, size_t *capacity,
                  struct problem *problem)
{
    struct room *room = opaque;
    room->last_needed = needed;
    room->grown++;
    assert_true(needed > room->capacity && used <= room->capacity);
    if (needed > room->limit) {
        problem_set(problem, 413, "Payload too large");
        return NULL;
    }
    char *data = aligned_alloc(64, (needed + 63) / 64 * 64);
    assert_non_null(data);
    if (used)
        memcpy(data, room->data, used);
    free(room->data);
    room->data = data;
    room->capacity = needed;
    *capacity = needed;
    return data;
}

static struct unetserve_interface model(uint32_t dtypes, uint32_t channels, uint32_t max_batch)
{
    return (struct unetserve_interface){
        .input_field = "image",
        .input_dtypes = dtypes,
        .channels = channels,
        .size_multiple = 1,
        .size_min = 1,
        .max_batch = max_batch,
    };
}

enum {
    ALL_TYPES = 1u << UNETSERVE_U8 | 1u << UNETSERVE_I8 | 1u << UNETSERVE_U16 |
                1u << UNETSERVE_I16 | 1u << UNETSERVE_F16 | 1u << UNETSERVE_F32
};

/* piece 0: random lengths of 0 to 20 bytes. */
static void read_body(const struct unetserve_interface *interface, enum body_format format,
                      const struct unetserve_shape *raw, const void *body, size_t size,
                      size_t piece, size_t limit, struct result *result)
{
    struct body_reader reader;
    memset(result, 0, sizeof *result);
    result->room.limit = limit;
    result->status = -1;
    if (body_reader_init(&reader, interface, format, raw, NULL, 0, grow, &result->room,
                         &result->problem))
        return;
    struct unetserve_shape early;
    bool known = body_reader_shape(&reader, &early);
    assert_int_equal(known, format == BODY_RAW || format == BODY_DOCUMENT);
    while (result->fed < size) {
        size_t length = piece ? piece : (size_t)rand() % 21;
        if (length > size - result->fed)
            length = size - result->fed;
        char *copy = malloc(length ? length : 1);
        assert_non_null(copy);
        memcpy(copy, (const char *)body + result->fed, length);
        int status = body_reader_feed(&reader, copy, length, &result->problem);
        free(copy);
        if (status)
            return;
        result->fed += length;
        known = known || body_reader_shape(&reader, &early);
    }
    result->status = body_reader_finish(&reader, &result->shape, &result->bytes, &result->problem);
    if (result->status)
        return;
    result->in_kind = body_reader_in_kind(&reader);
    result->file = body_reader_file(&reader);
    if (format != BODY_FILE && !(format == BODY_JSON && known)) /* that depends on what is in it */
        assert_int_equal(known, format != BODY_JSON);
    if (known)
        assert_memory_equal(&early, &result->shape, sizeof early);
}

static void assert_same(const struct result *a, const struct result *b)
{
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->problem.status, b->problem.status);
    assert_string_equal(a->problem.body, b->problem.body);
    assert_int_equal(a->bytes, b->bytes);
    assert_memory_equal(&a->shape, &b->shape, sizeof a->shape);
    if (a->status == 0 && a->bytes)
        assert_memory_equal(a->room.data, b->room.data, a->bytes);
}

static struct result got;

static void read_every_way_within(const struct unetserve_interface *interface,
                                  enum body_format format, const struct unetserve_shape *raw,
                                  const void *body, size_t size, size_t limit)
{
    free(got.room.data);
    read_body(interface, format, raw, body, size, size + 1, limit, &got);
    for (unsigned seed = 0; seed < 4; seed++) {
        struct result other;
        srand(seed);
        read_body(interface, format, raw, body, size, seed == 0, limit, &other);
        assert_same(&got, &other);
        free(other.room.data);
    }
}

static void read_every_way(const struct unetserve_interface *interface, enum body_format format,
                           const struct unetserve_shape *raw, const void *body, size_t size)
{
    read_every_way_within(interface, format, raw, body, size, BODY_MAX);
}

static void assert_problem(int status, const char *words)
{
    assert_int_equal(got.status, -1);
    if (got.problem.status != status || !strstr(got.problem.body, words))
        fail_msg("%d %s, expected %d %s", got.problem.status, got.problem.body, status, words);
}

/* ---- npy ---- */

/* An npy file of shape 2 x 2 x 3 with the given descr around the elements. Returns its size. */
static size_t make_npy(const char *descr, const void *elements, size_t size, char *file)
{
    static const char prefix[10] = {'\x93', 'N', 'U', 'M', 'P', 'Y', 1, 0, 118, 0};
    memcpy(file, prefix, sizeof prefix);
    int length = snprintf(file + 10, 118,
                          "{'descr': '%s', 'fortran_order': False, 'shape': (2, 2, 3), }", descr);
    memset(file + 10 + length, ' ', (size_t)(117 - length));
    file[127] = '\n';
    memcpy(file + 128, elements, size);
    return 128 + size;
}

static void reverse_elements(char *bytes, size_t size, size_t element)
{
    for (size_t at = 0; at < size; at += element)
        for (size_t i = 0; i < element / 2; i++) {
            char swapped = bytes[at + i];
            bytes[at + i] = bytes[at + element - 1 - i];
            bytes[at + element - 1 - i] = swapped;
        }
}

/* Both byte orders of npy, and raw, must give the expected bytes. */
static void check_elements(const char *descr, enum unetserve_dtype dtype, const void *elements,
                           size_t size, const char *expected_shape, const void *expected,
                           size_t expected_size)
{
    struct unetserve_interface interface = model(ALL_TYPES, 2, 1);
    struct unetserve_shape raw = {.dtype = dtype, .rank = 3, .dims = {2, 2, 3}};
    char file[512], name[8], swapped[128], text[160];
    for (int way = 0; way < 3; way++) {
        snprintf(name, sizeof name, "%c%s", way == 1 ? '>' : '<', descr);
        memcpy(swapped, elements, size);
        if (way == 1)
            reverse_elements(swapped, size, size / 12);
        if (way == 2)
            read_every_way(&interface, BODY_RAW, &raw, elements, size);
        else
            read_every_way(&interface, BODY_NPY, NULL, file, make_npy(name, swapped, size, file));
        if (got.status)
            fail_msg("%s: %s", name, got.problem.body);
        assert_string_equal(unetserve_shape_format(&got.shape, text, sizeof text), expected_shape);
        assert_int_equal(got.bytes, expected_size);
        assert_memory_equal(got.room.data, expected, expected_size);
    }
}

static void test_elements_of_every_type(void **state)
{
    (void)state;
    uint8_t u1[12];
    uint16_t u2[12], f2[12];
    float f4[12], narrow[12];
    double f8[12];
    for (int i = 0; i < 12; i++) {
        u1[i] = (uint8_t)(i * 23);
        u2[i] = (uint16_t)(i * 5003);
        f2[i] = (uint16_t)(0x3c00 + i * 77);
        f4[i] = (float)i * -1.7f;
        f8[i] = i * 0.1;
        narrow[i] = (float)f8[i];
    }
    f8[3] = 0x1.fffffefffffffp127; /* just below the midpoint beyond the largest float */
    narrow[3] = 0x1.fffffep127f;
    f8[4] = 1e-300;
    narrow[4] = 0;
    check_elements("u1", UNETSERVE_U8, u1, sizeof u1, "uint8[2, 2, 3]", u1, sizeof u1);
    check_elements("i1", UNETSERVE_I8, u1, sizeof u1, "int8[2, 2, 3]", u1, sizeof u1);
    check_elements("u2", UNETSERVE_U16, u2, sizeof u2, "uint16[2, 2, 3]", u2, sizeof u2);
    check_elements("i2", UNETSERVE_I16, u2, sizeof u2, "int16[2, 2, 3]", u2, sizeof u2);
    check_elements("f2", UNETSERVE_F16, f2, sizeof f2, "float16[2, 2, 3]", f2, sizeof f2);
    check_elements("f4", UNETSERVE_F32, f4, sizeof f4, "float32[2, 2, 3]", f4, sizeof f4);
    check_elements("f8", UNETSERVE_F64, f8, sizeof f8, "float32[2, 2, 3]", narrow, sizeof narrow);
}

static void check_not_finite(const char *descr, const void *elements, size_t size,
                             const char *words)
{
    struct unetserve_interface interface = model(ALL_TYPES, 2, 1);
    char file[512];
    read_every_way(&interface, BODY_NPY, NULL, file, make_npy(descr, elements, size, file));
    assert_problem(422, words);
    assert_problem(422, "finite");
}

static void test_values_that_are_not_finite(void **state)
{
    (void)state;
    uint16_t f2[12] = {0};
    float f4[12] = {0};
    double f8[12] = {0};
    f2[0] = 0x7c00;
    check_not_finite("<f2", f2, sizeof f2, "[0, 0, 0] is infinite");
    f2[0] = 0xfe01;
    check_not_finite("<f2", f2, sizeof f2, "[0, 0, 0] is NaN");
    f4[11] = NAN;
    check_not_finite("<f4", f4, sizeof f4, "[1, 1, 2] is NaN");
    f4[4] = -INFINITY;
    check_not_finite("<f4", f4, sizeof f4, "[0, 1, 1] is infinite");
    f8[7] = 0x1.ffffffp127;
    check_not_finite("<f8", f8, sizeof f8, "[1, 0, 1] is beyond float32's range");
    f8[6] = INFINITY;
    check_not_finite("<f8", f8, sizeof f8, "[1, 0, 0] is infinite");
    f8[5] = NAN;
    check_not_finite("<f8", f8, sizeof f8, "[0, 1, 2] is NaN");
    reverse_elements((char *)f8, sizeof f8, 8);
    check_not_finite(">f8", f8, sizeof f8, "[0, 1, 2] is NaN");
}

static void test_npy_lengths(void **state)
{
    (void)state;
    struct unetserve_interface interface = model(ALL_TYPES, 2, 1);
    uint16_t u2[13] = {0};
    char file[512];
    size_t size = make_npy("<u2", u2, 26, file);
    read_every_way(&interface, BODY_NPY, NULL, file, size - 2);
    assert_int_equal(got.status, 0);
    read_every_way(&interface, BODY_NPY, NULL, file, size);
    assert_problem(400, "more data than the shape says: uint16[2, 2, 3] is 24 bytes");
    read_every_way(&interface, BODY_NPY, NULL, file, size - 1);
    assert_problem(400, "24 bytes");
    for (size_t cut = 128; cut < size - 2; cut++) {
        char words[96];
        snprintf(words, sizeof words, "expected 24 bytes of data for uint16[2, 2, 3], got %zu",
                 cut - 128);
        read_every_way(&interface, BODY_NPY, NULL, file, cut);
        assert_problem(400, words);
    }
    for (size_t cut = 0; cut < 128; cut += 9) {
        read_every_way(&interface, BODY_NPY, NULL, file, cut);
        assert_problem(400, "within the npy header");
    }
}

static void test_npy_is_refused_at_its_header(void **state)
{
    (void)state;
    struct unetserve_interface interface = model(ALL_TYPES, 3, 1);
    char file[512], zeros[96] = {0};
    struct result result;
    static const char *const types[] = {"<u2", "<i4", "|O", "<c8"};
    for (size_t i = 0; i < 4; i++) {
        size_t size = make_npy(types[i], zeros, sizeof zeros, file);
        read_every_way(&interface, BODY_NPY, NULL, file, size);
        assert_problem(422, i == 0 ? "2 channels, expected 3" : types[i]);
        read_body(&interface, BODY_NPY, NULL, file, size, 1, BODY_MAX, &result);
        assert_int_equal(result.fed, 127); /* before any data */
        free(result.room.data);
    }
    interface = model(1u << UNETSERVE_U8 | 1u << UNETSERVE_U16, 2, 1);
    read_every_way(&interface, BODY_NPY, NULL, file, make_npy("<f8", zeros, sizeof zeros, file));
    assert_problem(422, "the model takes uint8, uint16");
    read_every_way(&interface, BODY_NPY, NULL, "PK\x03\x04 is a zip", 13);
    assert_problem(400, "not an npy file");
    file[10] = '[';
    read_every_way(&interface, BODY_NPY, NULL, file, 200);
    assert_problem(400, "malformed npy header");
}

static void test_npy_written_by_ourselves(void **state)
{
    (void)state;
    struct unetserve_interface interface = model(ALL_TYPES, 2, 4);
    struct unetserve_shape shape = {.dtype = UNETSERVE_I16, .rank = 4, .dims = {3, 2, 5, 7}};
    char file[1024];
    int header = npy_header_write(&shape, file, sizeof file);
    assert_true(header > 0);
    for (int i = 0; i < 420; i++)
        file[header + i] = (char)i;
    read_every_way(&interface, BODY_NPY, NULL, file, (size_t)header + 420);
    assert_int_equal(got.status, 0);
    assert_memory_equal(&got.shape, &shape, sizeof shape);
    assert_memory_equal(got.room.data, file + header, 420);
}

/* ---- room ---- */

static void test_room_is_asked_for_once_the_shape_is_known(void **state)
{
    (void)state;
    struct unetserve_interface interface = model(ALL_TYPES, 12, 1);
    struct unetserve_shape raw = {.dtype = UNETSERVE_F64, .rank = 3, .dims = {12, 64, 64}};
    read_every_way_within(&interface, BODY_RAW, &raw, "", 0, 1000);
    assert_problem(413, "too large");
    assert_int_equal(got.room.last_needed, 12 * 64 * 64 * 4);

    raw.dims[1] = raw.dims[2] = UINT64_C(1) << 31;
    read_every_way(&interface, BODY_RAW, &raw, "", 0);
    assert_problem(413, "too large");
    raw.dims[1] = raw.dims[2] = UINT64_MAX;
    read_every_way(&interface, BODY_RAW, &raw, "", 0);
    assert_problem(413, "float64[12, 18446744073709551615");
}

static void test_json_grows(void **state)
{
    (void)state;
    struct unetserve_interface interface = model(ALL_TYPES, 2, 1);
    static char body[BODY_MAX];
    char *at = body + sprintf(body, "{\"image\":[");
    for (int i = 0; i < 2 * 30 * 40; i++) {
        static const char *const opens[] = {"[[", "],[", ",", "]],[["};
        const char *open = i == 0          ? opens[0]
                           : i % 1200 == 0 ? opens[3]
                           : i % 40 == 0   ? opens[1]
                                           : opens[2];
        at += sprintf(at, "%s%d", open, i);
    }
    at += sprintf(at, "]]]}");
    read_every_way(&interface, BODY_JSON, NULL, body, (size_t)(at - body));
    assert_int_equal(got.status, 0);
    assert_int_equal(got.bytes, 9600);
    assert_int_equal(got.room.capacity, 9600); /* never asked for more than the array can need */
    assert_true(got.room.grown > 2);
    for (int i = 0; i < 2400; i++)
        assert_true(((float *)(void *)got.room.data)[i] == (float)i);
    read_every_way_within(&interface, BODY_JSON, NULL, body, (size_t)(at - body), 9599);
    assert_problem(413, "Payload too large");
}

static void test_no_room_and_nobody_to_ask(void **state)
{
    (void)state;
    struct unetserve_interface interface = model(ALL_TYPES, 1, 1);
    struct body_reader reader;
    struct problem problem = {0};
    _Alignas(64) char room[8];
    static const char body[] = "{\"image\":[[[1,2,3]]]}";
    assert_int_equal(body_reader_init(&reader, &interface, BODY_JSON, NULL, room, sizeof room, NULL,
                                      NULL, &problem),
                     0);
    assert_int_equal(body_reader_feed(&reader, body, sizeof body - 1, &problem), -1);
    assert_int_equal(problem.status, 413);
}

static void test_documents(void **state)
{
    (void)state;
    struct unetserve_interface interface = {.input_kind = UNETSERVE_DOCUMENT};
    char body[3000];
    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (char)(i * 7);
    read_every_way(&interface, BODY_DOCUMENT, NULL, body, sizeof body);
    assert_int_equal(got.status, 0);
    assert_int_equal(got.shape.rank, 0);
    assert_int_equal(got.bytes, sizeof body);
    assert_memory_equal(got.room.data, body, sizeof body);
    read_every_way(&interface, BODY_DOCUMENT, NULL, body, 0);
    assert_int_equal(got.status, 0);
    assert_int_equal(got.bytes, 0);
    read_every_way_within(&interface, BODY_DOCUMENT, NULL, body, sizeof body, 2999);
    assert_problem(413, "Payload too large");
}

/* ---- files ---- */

/* A PNG's head; nothing here looks at what follows. */
static const char png_head[] =
    "\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x05\0\0\0\x04\x08\x02\0\0\0crc-IDAT";

/* 5 x 4 x 3 of 8 bits, as three tags and three bits; no strips. */
static const char tiff_head[] = "MM\0\x2a\0\0\0\x08\0\x04"
                                "\1\0\0\3\0\0\0\1\0\5\0\0"
                                "\1\1\0\3\0\0\0\1\0\4\0\0"
                                "\1\2\0\3\0\0\0\3\0\0\0\x3e"
                                "\1\x15\0\3\0\0\0\1\0\3\0\0"
                                "\0\0\0\0\0\x08\0\x08\0\x08";

static void test_image_files_are_kept_and_told(void **state)
{
    (void)state;
    struct unetserve_interface rgb = model(ALL_TYPES, 3, 1);
    static const struct {
        const char *body;
        size_t size;
    } files[] = {{png_head, sizeof png_head}, {tiff_head, sizeof tiff_head}};
    for (size_t i = 0; i < 2; i++) {
        read_every_way(&rgb, BODY_FILE, NULL, files[i].body, files[i].size);
        assert_int_equal(got.status, 0);
        assert_int_equal(got.bytes, files[i].size);
        assert_memory_equal(got.room.data, files[i].body, files[i].size);
        struct unetserve_shape shape = {.dtype = UNETSERVE_U8, .rank = 3, .dims = {3, 4, 5}};
        assert_memory_equal(&got.shape, &shape, sizeof shape);
    }
}

static void test_image_files_that_do_not_fit(void **state)
{
    (void)state;
    struct unetserve_interface twelve = model(ALL_TYPES, 12, 1);
    read_every_way(&twelve, BODY_FILE, NULL, png_head, sizeof png_head);
    assert_problem(422, "3 channels, expected 12");
    free(got.room.data);
    read_body(&twelve, BODY_FILE, NULL, png_head, sizeof png_head, 1, BODY_MAX, &got);
    assert_true(got.fed < IMAGE_FILE_PNG_HEAD); /* by its head */
    read_every_way(&twelve, BODY_FILE, NULL, tiff_head, sizeof tiff_head);
    assert_problem(422, "3 channels, expected 12");
    read_every_way(&twelve, BODY_FILE, NULL, tiff_head, 20);
    assert_problem(400, "beyond the end");
    read_every_way(&twelve, BODY_FILE, NULL, png_head, 20);
    assert_problem(400, "truncated");
    read_every_way(&twelve, BODY_FILE, NULL, png_head, 7);
    assert_problem(400, "a file of 7 bytes is neither npy nor TIFF nor PNG");
    read_every_way(&twelve, BODY_FILE, NULL, "GIF89a, a long time ago", 23);
    assert_problem(415, "neither npy nor TIFF nor PNG");
}

/* npy and raw bytes are read as they are when their type was told. */
static void test_other_files(void **state)
{
    (void)state;
    struct unetserve_interface one = model(ALL_TYPES, 1, 1);
    struct unetserve_shape shape = {.dtype = UNETSERVE_U16, .rank = 3, .dims = {1, 4, 5}};
    char npy[256 + 40];
    int header = npy_header_write(&shape, npy, 256);
    assert_true(header > 0);
    for (int i = 0; i < 40; i++)
        npy[header + i] = (char)(i * 5);
    read_every_way(&one, BODY_FILE, NULL, npy, (size_t)header + 40);
    assert_int_equal(got.status, 0);
    assert_int_equal(got.bytes, 40);
    assert_memory_equal(got.room.data, npy + header, 40);
    read_every_way(&one, BODY_FILE, &shape, npy + header, 40);
    assert_int_equal(got.status, 0);
    assert_memory_equal(&got.shape, &shape, sizeof shape);
    assert_memory_equal(got.room.data, npy + header, 40);
    read_every_way(&one, BODY_FILE, &shape, npy + header, 38);
    assert_problem(400, "truncated");
}

/* ---- files in JSON ---- */

static void test_base64(void **state)
{
    (void)state;
    static const struct {
        const char *text, *bytes; /* NULL: refused */
    } cases[] = {
        {"", ""},        {"Zg==", "f"},        {"Zm8=", "fo"},
        {"Zm9v", "foo"}, {"Zm9vYg==", "foob"}, {" Zm\r\n9 v\t", "foo"},
        {"Zg=", NULL},   {"Zg", NULL},         {"Z===", NULL},
        {"=", NULL},     {"Zg==Zg==", NULL},   {"Zg=v", NULL},
        {"Zm9-", NULL},  {"Zm9\x80", NULL},    {"Zm8==", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t step = 1; step < 6; step++) {
            struct base64 base64 = {0};
            char out[64];
            size_t size = strlen(cases[i].text), used = 0, made;
            int failed = 0;
            for (size_t at = 0; at < size && !failed; at += step, used += failed ? 0 : made) {
                size_t length = size - at < step ? size - at : step;
                failed = base64_feed(&base64, cases[i].text + at, length, out + used, &made);
            }
            failed = failed || !base64_whole(&base64);
            assert_int_equal(failed, cases[i].bytes == NULL);
            if (failed)
                continue;
            assert_int_equal(used, strlen(cases[i].bytes));
            assert_memory_equal(out, cases[i].bytes, used);
            if (!strpbrk(cases[i].text, " \t")) {
                base64_encode(out, used, out + 32);
                assert_memory_equal(out + 32, cases[i].text, size);
            }
        }
}

/* A document around a file in base64, with what JSON allows inside a string. */
static size_t write_document(const char *head, const void *file, size_t size, bool escapes,
                             char *text)
{
    char letters[2000];
    size_t count = BASE64_LETTERS(size), at = (size_t)sprintf(text, "%s", head);
    assert_true(count < sizeof letters);
    base64_encode(file, size, letters);
    for (size_t i = 0; i < count; i++) {
        if (escapes && letters[i] == '/')
            text[at++] = '\\';
        if (escapes && (letters[i] == '=' || i % 50 == 7))
            at += (size_t)sprintf(text + at, "\\u%04x", (unsigned)letters[i]);
        else
            text[at++] = letters[i];
        if (escapes && i % 76 == 75)
            at += (size_t)sprintf(text + at, "\\r\\n");
    }
    static const char tail[] = "\", \"more\": [\"text\", {}]}";
    memcpy(text + at, tail, sizeof tail);
    return at + sizeof tail - 1;
}

static void test_files_in_json(void **state)
{
    (void)state;
    static const char *const heads[] = {"{\"image\": \"", "{\"a\": \"b\", \"image_data\":\""};
    struct unetserve_interface rgb = model(1u << UNETSERVE_U8, 3, 1); /* no float32: no arrays */
    char npy[256 + 60], text[8000];
    struct unetserve_shape shape = {.dtype = UNETSERVE_U8, .rank = 3, .dims = {3, 4, 5}};
    int header = npy_header_write(&shape, npy, 256);
    for (int i = 0; i < 60; i++)
        npy[header + i] = (char)(i * 37);
    for (size_t i = 0; i < 4; i++) {
        size_t size = write_document(heads[i / 2], npy, (size_t)header + 60, i % 2, text);
        read_every_way(&rgb, BODY_JSON, NULL, text, size);
        assert_int_equal(got.status, 0);
        assert_memory_equal(&got.shape, &shape, sizeof shape);
        assert_int_equal(got.bytes, 60);
        assert_memory_equal(got.room.data, npy + header, 60);
        assert_int_equal(got.in_kind, i / 2);
        size = write_document(heads[i / 2], png_head, sizeof png_head, i % 2, text);
        read_every_way(&rgb, BODY_JSON, NULL, text, size);
        assert_int_equal(got.status, 0);
        assert_int_equal(got.file, IMAGE_FILE_PNG);
        assert_memory_equal(got.room.data, png_head, sizeof png_head);
    }
}

static void test_files_in_json_that_are_refused(void **state)
{
    (void)state;
    struct unetserve_interface rgb = model(ALL_TYPES, 3, 1);
    static const struct {
        const char *text;
        int status;
        const char *words;
    } cases[] = {
        {"{\"image\": \"\"}", 400, "a file of 0 bytes"},
        {"{\"image\": \"Zm9v\"}", 400, "a file of 3 bytes"},
        {"{\"image\": \"Zm9\"}", 422, "in base64"},
        {"{\"image_data\": \"[[[1]]]\"}", 422, "\"image_data\""},
        {"{\"image\": \"\\ud800\"}", 422, "in base64"},
        {"{\"image\": \"\xc3\xa9\"}", 422, "in base64"},
        {"{\"image\": \"Zm9vYmFyYmF6\"}", 415, "neither npy nor TIFF nor PNG"},
        {"{\"image_data\": [[[1]]]}", 422, "valid string"},
        {"{\"image_data\": 1}", 422, "valid string"},
        {"{\"image\": [\"Zm9v\"]}", 422, "valid list"},
        {"{\"image\": \"Zm9v", 422, "Unterminated string"},
        {"{\"image\": \"AAAA\", \"image_data\": \"\"}", 422, "twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        read_every_way(&rgb, BODY_JSON, NULL, cases[i].text, strlen(cases[i].text));
        assert_problem(cases[i].status, cases[i].words);
    }
}

/* ---- shapes and headers ---- */

static void check_shape(const struct unetserve_interface *interface, struct unetserve_shape shape,
                        const char *words)
{
    struct problem problem = {0};
    int status = body_check_shape(interface, &shape, &problem);
    if (!words) {
        assert_int_equal(status, 0);
        return;
    }
    assert_int_equal(status, -1);
    assert_int_equal(problem.status, 422);
    if (!strstr(problem.body, words))
        fail_msg("%s, expected %s", problem.body, words);
}

static void test_check_shape(void **state)
{
    (void)state;
    struct unetserve_interface interface = model(1u << UNETSERVE_U16 | 1u << UNETSERVE_F32, 12, 4);
    interface.size_multiple = 16;
    interface.size_min = 32;
    interface.size_max = 512;
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_U16, 3, {12, 256, 512}}, NULL);
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_F64, 4, {4, 12, 32, 32}}, NULL);
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_U8, 3, {12, 256, 256}},
                "takes uint16, float32");
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_NONE, 3, {12, 256, 256}},
                "takes uint16, float32");
    check_shape(&interface, (struct unetserve_shape){77, 3, {12, 256, 256}},
                "takes uint16, float32");
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_U16, 2, {256, 256}},
                "2 dimensions, expected 3");
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_U16, 5, {1, 1, 12, 256, 256}},
                "5 dimensions");
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_U16, 0, {0}}, "0 dimensions");
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_U16, 3, {11, 256, 256}},
                "uint16[11, 256, 256] does not fit the model: 11 channels, expected 12");
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_U16, 3, {256, 256, 12}},
                "256 channels, expected 12; channels come first, not last");
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_U16, 4, {5, 12, 256, 256}},
                "batch of 5, expected 1 to 4");
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_U16, 4, {0, 12, 256, 256}},
                "batch of 0");
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_U16, 3, {12, 250, 256}},
                "height 250 is not a multiple of 16");
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_U16, 3, {12, 256, 16}},
                "width 16 is less than 32");
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_U16, 3, {12, 528, 256}},
                "height 528 is more than 512");
    interface.max_batch = 1;
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_U16, 4, {1, 12, 256, 256}},
                "4 dimensions, expected 3");
    interface.size_multiple = interface.size_min = interface.size_max = interface.channels = 0;
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_U16, 3, {7, 1, 99999}}, NULL);
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_U16, 3, {7, 0, 1}},
                "height 0 is less than 1");
    check_shape(&interface, (struct unetserve_shape){UNETSERVE_U16, 3, {0, 1, 1}}, "0 channels");
}

static void test_raw_headers(void **state)
{
    (void)state;
    static const struct {
        const char *shape, *dtype, *expected;
    } right[] = {
        {"12,256,256", "uint16", "uint16[12, 256, 256]"},
        {" 1 ,\t2, 3 ", " float64 ", "float64[1, 2, 3]"},
        {"18446744073709551615", "int8", "int8[18446744073709551615]"},
        {"1,2,3,4,5,6", "float16", "float16[1, 2, 3, 4, 5, 6]"},
        {"012,0", "uint8", "uint8[12, 0]"},
    };
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        struct unetserve_shape shape;
        struct problem problem;
        char text[160];
        assert_int_equal(body_parse_raw_headers(right[i].shape, right[i].dtype, &shape, &problem),
                         0);
        assert_string_equal(unetserve_shape_format(&shape, text, sizeof text), right[i].expected);
    }
    static const struct {
        const char *shape, *dtype, *words;
    } wrong[] = {
        {NULL, "uint8", "X-Unetserve-Shape"},
        {"1,2", NULL, "X-Unetserve-Dtype"},
        {"", "uint8", "Shape: expected"},
        {"1,", "uint8", "got '1,'"},
        {",1", "uint8", "Shape"},
        {"1,,2", "uint8", "Shape"},
        {"-1,2", "uint8", "Shape"},
        {"+1,2", "uint8", "Shape"},
        {"1 2", "uint8", "Shape"},
        {"12x256", "uint8", "Shape"},
        {"1.0", "uint8", "Shape"},
        {"18446744073709551616", "uint8", "Shape"},
        {"1,1,1,1,1,1,1", "uint8", "up to 6"},
        {"(1,2)", "uint8", "Shape"},
        {"1", "int32", "got 'int32'"},
        {"1", "", "Dtype"},
        {"1", "none", "Dtype"},
        {"1", "UINT8", "Dtype"},
        {"1", "uint8 uint8", "Dtype"},
        {"1", "float64float64float64", "Dtype"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct unetserve_shape shape;
        struct problem problem;
        assert_int_equal(body_parse_raw_headers(wrong[i].shape, wrong[i].dtype, &shape, &problem),
                         -1);
        assert_int_equal(problem.status, 400);
        if (!strstr(problem.body, wrong[i].words))
            fail_msg("%s, expected %s", problem.body, wrong[i].words);
    }
}

static void test_raw_is_refused_at_once(void **state)
{
    (void)state;
    struct unetserve_interface interface = model(ALL_TYPES, 12, 1);
    struct unetserve_shape raw = {.dtype = UNETSERVE_U8, .rank = 3, .dims = {11, 2, 2}};
    read_every_way(&interface, BODY_RAW, &raw, "x", 1);
    assert_problem(422, "11 channels, expected 12");
    assert_int_equal(got.fed, 0);
    raw.dims[0] = 12;
    char body[49] = {0};
    read_every_way(&interface, BODY_RAW, &raw, body, 48);
    assert_int_equal(got.status, 0);
    read_every_way(&interface, BODY_RAW, &raw, body, 49);
    assert_problem(400, "more data");
    read_every_way(&interface, BODY_RAW, &raw, body, 0);
    assert_problem(400, "got 0");
}

static int free_room(void **state)
{
    (void)state;
    free(got.room.data);
    got.room.data = NULL;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elements_of_every_type),
        cmocka_unit_test(test_values_that_are_not_finite),
        cmocka_unit_test(test_npy_lengths),
        cmocka_unit_test(test_npy_is_refused_at_its_header),
        cmocka_unit_test(test_npy_written_by_ourselves),
        cmocka_unit_test(test_room_is_asked_for_once_the_shape_is_known),
        cmocka_unit_test(test_json_grows),
        cmocka_unit_test(test_no_room_and_nobody_to_ask),
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_image_files_are_kept_and_told),
        cmocka_unit_test(test_image_files_that_do_not_fit),
        cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_base64),
        cmocka_unit_test(test_files_in_json),
        cmocka_unit_test(test_files_in_json_that_are_refused),
        cmocka_unit_test(test_check_shape),
        cmocka_unit_test(test_raw_headers),
        cmocka_unit_test(test_raw_is_refused_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, free_room);
}
