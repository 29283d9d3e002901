/* npy headers: numpy's own, our own read back, and everything that must be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unetserve/mask_writer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char error[200];

/* A header of the given version around a dictionary's text. Returns its size. */
static size_t make_header(int version, const char *text, size_t padding, char *header)
{
    size_t length = strlen(text) + padding, prefix = version == 1 ? 10 : 12;
    memcpy(header, "\x93NUMPY", 6);
    header[6] = (char)version;
    header[7] = 0;
    for (size_t i = 8; i < prefix; i++)
        header[i] = (char)(length >> (8 * (i - 8)) & 0xff);
    memset(header + prefix, ' ', length);
    memcpy(header + prefix, text, strlen(text));
    return prefix + length;
}

/* Reads from an allocation of exactly size bytes. */
static int read_exact(const char *header, size_t size, struct unetserve_shape *shape,
                      int *big_endian, size_t *offset)
{
    char *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    memcpy(copy, header, size);
    error[0] = '\0';
    int status = npy_header_read(copy, size, shape, big_endian, offset, error, sizeof error);
    free(copy);
    return status;
}

static int read_text(const char *text, struct unetserve_shape *shape, int *big_endian)
{
    char header[512];
    size_t offset, size = make_header(1, text, 5, header);
    int status = read_exact(header, size, shape, big_endian, &offset);
    if (status == 0)
        assert_int_equal(offset, size);
    return status;
}

static void assert_reads(const char *text, const char *expected, int expected_big_endian)
{
    struct unetserve_shape shape;
    int big_endian = -1;
    char what[160];
    if (read_text(text, &shape, &big_endian))
        fail_msg("%s: %s", text, error);
    assert_string_equal(unetserve_shape_format(&shape, what, sizeof what), expected);
    assert_int_equal(big_endian, expected_big_endian);
}

static void assert_refused(const char *text, int expected, const char *sentence)
{
    struct unetserve_shape shape;
    int big_endian;
    int status = read_text(text, &shape, &big_endian);
    if (status != expected || !strstr(error, sentence))
        fail_msg("%s: %d %s, expected %d %s", text, status, error, expected, sentence);
}

/* The beginnings of files that numpy.save wrote (padding as numpy made it). */
static void test_headers_by_numpy(void **state)
{
    (void)state;
    static const char u2[] =
        "\x93NUMPY\x01\x00v\x00{'descr': '<u2', 'fortran_order': False, 'shape': (12, 256, 256), }"
        "                                                  \n";
    static const char f4[] =
        "\x93NUMPY\x01\x00v\x00{'descr': '>f4', 'fortran_order': False, 'shape': (3,), }"
        "                                                            \n";
    static const char f8[] =
        "\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (), }"
        "                                                              \n";
    static const struct {
        const char *bytes;
        size_t size;
        const char *shape;
        int big_endian;
    } files[] = {
        {u2, sizeof u2 - 1, "uint16[12, 256, 256]", 0},
        {f4, sizeof f4 - 1, "float32[3]", 1},
        {f8, sizeof f8 - 1, "float64[]", 0},
    };
    for (size_t i = 0; i < 3; i++) {
        struct unetserve_shape shape;
        int big_endian;
        size_t offset;
        char what[160];
        assert_int_equal(files[i].size, 128);
        assert_int_equal(read_exact(files[i].bytes, 128, &shape, &big_endian, &offset), 0);
        assert_string_equal(unetserve_shape_format(&shape, what, sizeof what), files[i].shape);
        assert_int_equal(big_endian, files[i].big_endian);
        assert_int_equal(offset, 128);
        for (size_t size = 0; size < 128; size++)
            assert_int_equal(read_exact(files[i].bytes, size, &shape, &big_endian, &offset),
                             -EAGAIN);
    }
}

static void test_spellings(void **state)
{
    (void)state;
    assert_reads("{'descr':'<u2','fortran_order':False,'shape':(1,2,3)}", "uint16[1, 2, 3]", 0);
    assert_reads("{\"shape\": (1, 2,), \"descr\": \">i2\", \"fortran_order\": False,}\n",
                 "int16[1, 2]", 1);
    assert_reads(" { 'fortran_order' : False , 'shape' : ( 7 , ) , 'descr' : '|u1' , } \n",
                 "uint8[7]", 0);
    assert_reads("{'descr':'>i1','fortran_order':False,'shape':(1,)}", "int8[1]", 0);
    assert_reads("{'descr':'=f2','fortran_order':False,'shape':(0,18446744073709551615)}",
                 "float16[0, 18446744073709551615]", 0);
    assert_reads("{'descr':'>f8','fortran_order':False,'shape':(1,2,3,4,5,6)}",
                 "float64[1, 2, 3, 4, 5, 6]", 1);
}

static void test_arrays_that_no_model_takes(void **state)
{
    (void)state;
    static const char *const types[] = {"<i4",  "<u4",     "<i8", "<c8", "|b1", "|O", "<U4", "|S3",
                                        "<f16", "<M8[ns]", "|u2", "!f4", "",    "f",  "<f"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        char text[128], quoted[32];
        snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (1,), }",
                 types[i]);
        snprintf(quoted, sizeof quoted, "type '%s'", types[i]);
        assert_refused(text, -ENOTSUP, quoted);
    }
    assert_refused("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", -ENOTSUP,
                   "records");
    assert_refused("{'descr': '<f4', 'fortran_order': True, 'shape': (1,)}", -ENOTSUP, "Fortran");
    assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1)}", -ENOTSUP,
                   "6 dimensions");
}

static void test_malformed(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "{",
        "{}",
        "[]",
        "{'descr'",
        "{'descr':",
        "{'descr':'<f4",
        "{'descr':'<f4'",
        "{'descr':'<f4','fortran_order':False}",
        "{'descr':'<f4','fortran_order':False,'shape':(1,)",
        "{'descr':'<f4','fortran_order':False,'shape':(1,)}x",
        "{'descr':'<f4','fortran_order':False,'shape':(1,)}}",
        "{'descr':'<f4','fortran_order':0,'shape':(1,)}",
        "{'descr':'<f4','fortran_order':False,'shape':(1)}",
        "{'descr':'<f4','fortran_order':False,'shape':[1]}",
        "{'descr':'<f4','fortran_order':False,'shape':(1,,2)}",
        "{'descr':'<f4','fortran_order':False,'shape':(,)}",
        "{'descr':'<f4','fortran_order':False,'shape':(1 2)}",
        "{'descr':'<f4','fortran_order':False,'shape':(-1,2)}",
        "{'descr':'<f4','fortran_order':False,'shape':(01,2)}",
        "{'descr':'<f4','fortran_order':False,'shape':(18446744073709551616,2)}",
        "{'descr':'<f4','fortran_order':False,'shape':(1,),'more':1}",
        "{'descr':'<f4','descr':'<f4','fortran_order':False,'shape':(1,)}",
        "{'descr':'<f4' 'fortran_order':False,'shape':(1,)}",
        "{'descr' '<f4','fortran_order':False,'shape':(1,)}",
        "{'descr':'<\\x664','fortran_order':False,'shape':(1,)}",
        "{,'descr':'<f4','fortran_order':False,'shape':(1,)}",
        "{descr:'<f4','fortran_order':False,'shape':(1,)}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_refused(texts[i], -EBADMSG, "malformed npy header");
}

static void test_prefix(void **state)
{
    (void)state;
    static char header[70000];
    struct unetserve_shape shape;
    int big_endian;
    size_t offset;
    static const char text[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }";
    for (int version = 1; version <= 3; version++) {
        size_t size = make_header(version, text, 300, header);
        assert_int_equal(read_exact(header, size, &shape, &big_endian, &offset), 0);
        assert_int_equal(offset, size);
        assert_int_equal(read_exact(header, size - 1, &shape, &big_endian, &offset), -EAGAIN);
    }
    size_t size = make_header(2, text, 65536 - 12 - strlen(text), header);
    assert_int_equal(size, 65536);
    assert_int_equal(read_exact(header, size, &shape, &big_endian, &offset), 0);
    make_header(2, text, 65537 - 12 - strlen(text), header);
    assert_int_equal(read_exact(header, 12, &shape, &big_endian, &offset), -EBADMSG);
    memset(header + 8, 0xff, 4);
    assert_int_equal(read_exact(header, 12, &shape, &big_endian, &offset), -EBADMSG);
    make_header(4, text, 3, header);
    assert_int_equal(read_exact(header, 12, &shape, &big_endian, &offset), -EBADMSG);
    assert_int_equal(read_exact("\x93NUMPX", 6, &shape, &big_endian, &offset), -EBADMSG);
    assert_int_equal(read_exact("{", 1, &shape, &big_endian, &offset), -EBADMSG);
    assert_int_equal(read_exact("", 0, &shape, &big_endian, &offset), -EAGAIN);
}

static void test_written_is_read_back(void **state)
{
    (void)state;
    srand(5);
    for (int i = 0; i < 2000; i++) {
        struct unetserve_shape shape = {.dtype = 1 + (uint32_t)rand() % 7,
                                        .rank = (uint32_t)rand() % 7},
                               again;
        for (uint32_t d = 0; d < shape.rank; d++)
            shape.dims[d] = (uint64_t)rand() << (rand() % 33);
        char header[256];
        int big_endian;
        size_t offset;
        int size = npy_header_write(&shape, header, sizeof header);
        assert_true(size > 0);
        assert_int_equal(size % 64, 0);
        assert_int_equal(header[size - 1], '\n');
        assert_int_equal(read_exact(header, (size_t)size, &again, &big_endian, &offset), 0);
        assert_memory_equal(&shape, &again, sizeof shape);
        assert_int_equal(big_endian, 0);
        assert_int_equal(offset, size);
    }
}

static void test_write_refuses(void **state)
{
    (void)state;
    char header[256];
    struct unetserve_shape shape = {.dtype = UNETSERVE_NONE, .rank = 1, .dims = {1}};
    assert_int_equal(npy_header_write(&shape, header, sizeof header), -EINVAL);
    shape.dtype = 99;
    assert_int_equal(npy_header_write(&shape, header, sizeof header), -EINVAL);
    shape = (struct unetserve_shape){.dtype = UNETSERVE_U8, .rank = UNETSERVE_MAX_DIMS + 1};
    assert_int_equal(npy_header_write(&shape, header, sizeof header), -EINVAL);
    shape.rank = 1;
    assert_int_equal(npy_header_write(&shape, header, 127), -EINVAL);
    assert_int_equal(npy_header_write(&shape, header, 128), 128);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers_by_numpy),
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_arrays_that_no_model_takes),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_written_is_read_back),
        cmocka_unit_test(test_write_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
