#include "unetserve/tensor.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_types(void **state)
{
    static const size_t sizes[] = {0, 1, 1, 2, 2, 2, 4, 8};
    (void)state;
    for (uint32_t dtype = UNETSERVE_NONE; dtype <= UNETSERVE_F64; dtype++) {
        assert_int_equal(unetserve_dtype_size(dtype), sizes[dtype]);
        if (dtype != UNETSERVE_NONE)
            assert_int_equal(unetserve_dtype_parse(unetserve_dtype_name(dtype)), dtype);
    }
    assert_string_equal(unetserve_dtype_name(UNETSERVE_U16), "uint16");
    assert_int_equal(unetserve_dtype_size(UNETSERVE_F64 + 1), 0);
    assert_int_equal(unetserve_dtype_size(UINT32_MAX), 0);
    assert_string_equal(unetserve_dtype_name(UINT32_MAX), "none");
    assert_int_equal(unetserve_dtype_parse("none"), UNETSERVE_NONE);
    assert_int_equal(unetserve_dtype_parse("uint1"), UNETSERVE_NONE);
    assert_int_equal(unetserve_dtype_parse("uint166"), UNETSERVE_NONE);
    assert_int_equal(unetserve_dtype_parse(""), UNETSERVE_NONE);
}

static void test_sizes(void **state)
{
    (void)state;
    uint64_t elements = 7;
    uint64_t bytes = 7;
    struct unetserve_shape shape = {UNETSERVE_U16, 3, {12, 256, 256}};
    assert_int_equal(unetserve_shape_elements(&shape, &elements), 0);
    assert_int_equal(unetserve_shape_bytes(&shape, &bytes), 0);
    assert_int_equal(elements, 12 * 256 * 256);
    assert_int_equal(bytes, 2 * 12 * 256 * 256);
    struct unetserve_shape scalar = {UNETSERVE_F32, 0, {0}};
    assert_int_equal(unetserve_shape_bytes(&scalar, &bytes), 0);
    assert_int_equal(bytes, 4);
    struct unetserve_shape empty = {UNETSERVE_F64, 3, {UINT64_MAX, UINT64_MAX, 0}};
    assert_int_equal(unetserve_shape_bytes(&empty, &bytes), 0);
    assert_int_equal(bytes, 0);
}

static void test_impossible_sizes(void **state)
{
    (void)state;
    uint64_t out = 7;
    struct unetserve_shape huge = {UNETSERVE_U8, 2, {1ull << 32, 1ull << 32}};
    assert_int_equal(unetserve_shape_elements(&huge, &out), -EOVERFLOW);
    struct unetserve_shape wide = {UNETSERVE_F64, 1, {1ull << 61}};
    assert_int_equal(unetserve_shape_elements(&wide, &out), 0);
    out = 7;
    assert_int_equal(unetserve_shape_bytes(&wide, &out), -EOVERFLOW);
    struct unetserve_shape untyped = {UNETSERVE_NONE, 1, {4}};
    assert_int_equal(unetserve_shape_bytes(&untyped, &out), -EINVAL);
    struct unetserve_shape deep = {UNETSERVE_U8, UNETSERVE_MAX_DIMS + 1, {1, 1, 1, 1, 1, 1}};
    assert_int_equal(unetserve_shape_elements(&deep, &out), -EINVAL);
    assert_int_equal(out, 7);
}

static void test_format(void **state)
{
    (void)state;
    char text[256];
    struct unetserve_shape shape = {UNETSERVE_U16, 3, {12, 256, 256}};
    assert_string_equal(unetserve_shape_format(&shape, text, sizeof text), "uint16[12, 256, 256]");
    assert_string_equal(unetserve_shape_format(&shape, text, 8), "uint16[");
    char untouched = 'x';
    unetserve_shape_format(&shape, &untouched, 0);
    assert_int_equal(untouched, 'x');
    struct unetserve_shape hostile = {
        99, UINT32_MAX, {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    unetserve_shape_format(&hostile, text, sizeof text);
    assert_int_equal(strncmp(text, "none[18446744073709551615, ", 27), 0);
    assert_int_equal(text[strlen(text) - 1], ']');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_impossible_sizes),
        cmocka_unit_test(test_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
