/* Masks as JSON, npy and PNG, read back by other libraries or compared byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unetserve/mask_writer.h"

#include <errno.h>
#include <jansson.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct unetserve_interface model(uint32_t classes)
{
    struct unetserve_interface interface = {.output_field = "output", .class_count = classes};
    for (uint32_t i = 0; i < classes && i < UNETSERVE_MAX_CLASSES; i++) {
        struct unetserve_class *class = &interface.classes[i];
        snprintf(class->name, sizeof class->name, "class %u", i);
        class->code = (uint16_t)(i * 10);
        class->rgb[0] = (uint8_t)(255 - i);
        class->rgb[1] = (uint8_t)(i * 3);
        class->rgb[2] = 77;
    }
    return interface;
}

static struct unetserve_shape mask(uint32_t rank, uint64_t a, uint64_t b, uint64_t c)
{
    return (struct unetserve_shape){.dtype = UNETSERVE_U8, .rank = rank, .dims = {a, b, c}};
}

static void assert_json(const struct unetserve_shape *shape, const uint8_t *labels,
                        const char *expected)
{
    struct unetserve_interface interface = model(3);
    void *out;
    size_t size;
    assert_int_equal(mask_encode(MASK_JSON, &interface, shape, labels, &out, &size), 0);
    assert_int_equal(size, strlen(expected));
    assert_memory_equal(out, expected, size);
    free(out);
}

static void test_json(void **state)
{
    (void)state;
    static const uint8_t labels[] = {0, 1, 20, 255, 9, 100};
    struct unetserve_shape shape = mask(2, 2, 3, 0);
    assert_json(&shape, labels, "{\"output\":[[0,1,20],[255,9,100]]}");
    shape = mask(2, 1, 1, 0);
    assert_json(&shape, labels, "{\"output\":[[0]]}");
    shape = mask(3, 2, 1, 3);
    assert_json(&shape, labels, "{\"output\":[[[0,1,20]],[[255,9,100]]]}");
    shape = mask(3, 1, 3, 2);
    assert_json(&shape, labels, "{\"output\":[[[0,1],[20,255],[9,100]]]}");
}

static void test_json_of_every_label(void **state)
{
    (void)state;
    uint8_t labels[256 * 5];
    for (size_t i = 0; i < sizeof labels; i++)
        labels[i] = (uint8_t)(i % 256 | (i / 256 == 4 ? 0x80 : 0));
    struct unetserve_interface interface = model(256);
    struct unetserve_shape shape = mask(2, 5, 256, 0);
    void *out;
    size_t size;
    assert_int_equal(mask_encode(MASK_JSON, &interface, &shape, labels, &out, &size), 0);
    json_error_t error;
    json_t *root = json_loadb(out, size, 0, &error), *rows = json_object_get(root, "output");
    assert_int_equal(json_array_size(rows), 5);
    for (size_t i = 0; i < sizeof labels; i++)
        assert_int_equal(json_integer_value(json_array_get(json_array_get(rows, i / 256), i % 256)),
                         labels[i]);
    json_decref(root);
    free(out);
}

/* Pairs, what is left of a row, and labels too large for pairs. */
static void test_json_of_labels_up_to(void **state)
{
    (void)state;
    static const unsigned most[] = {0, 1, 9, 10, 11, 63, 64, 99, 100, 255};
    static uint8_t labels[3 * 41];
    static char expected[sizeof labels * 4 + 64];
    srand(3);
    for (size_t i = 0; i < sizeof most / sizeof most[0]; i++)
        for (unsigned width = 1; width <= 41; width++) {
            size_t length = (size_t)sprintf(expected, "{\"output\":[");
            for (unsigned k = 0; k < 3 * width; k++) {
                labels[k] = (uint8_t)((unsigned)rand() % (most[i] + 1));
                length += (size_t)sprintf(expected + length, "%s%u%s", k % width ? "" : "[",
                                          labels[k] & 0xffu, (k + 1) % width ? "," : "],");
            }
            sprintf(expected + length - 1, "]}");
            struct unetserve_shape shape = mask(2, 3, width, 0);
            assert_json(&shape, labels, expected);
        }
}

static void test_json_key_is_escaped(void **state)
{
    (void)state;
    struct unetserve_interface interface = model(3);
    static const uint8_t labels[1] = {7};
    struct unetserve_shape shape = mask(2, 1, 1, 0);
    /* As long as the field is, without a terminator. */
    memset(interface.output_field, '"', sizeof interface.output_field);
    void *out;
    size_t size;
    assert_int_equal(mask_encode(MASK_JSON, &interface, &shape, labels, &out, &size), 0);
    json_error_t error;
    json_t *root = json_loadb(out, size, 0, &error);
    assert_non_null(root);
    assert_non_null(
        json_object_get(root, "\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\""));
    json_decref(root);
    free(out);
}

static void test_npy(void **state)
{
    (void)state;
    struct unetserve_interface interface = model(3);
    static const uint8_t labels[] = {0, 1, 2, 3, 4, 5};
    struct unetserve_shape shapes[] = {mask(2, 2, 3, 0), mask(3, 3, 1, 2)};
    for (size_t i = 0; i < 2; i++) {
        struct unetserve_shape again;
        int big_endian;
        size_t size, offset;
        char error[160];
        void *out;
        assert_int_equal(mask_encode(MASK_NPY, &interface, &shapes[i], labels, &out, &size), 0);
        assert_int_equal(
            npy_header_read(out, size, &again, &big_endian, &offset, error, sizeof error), 0);
        assert_memory_equal(&again, &shapes[i], sizeof again);
        assert_int_equal(size, offset + sizeof labels);
        assert_memory_equal((char *)out + offset, labels, sizeof labels);
        free(out);
    }
}

static void test_shapes_that_no_format_holds(void **state)
{
    (void)state;
    struct unetserve_interface interface = model(3);
    static const uint8_t labels[8] = {0};
    struct unetserve_shape shapes[] = {
        mask(1, 8, 0, 0),          mask(4, 1, 1, 1),          mask(2, 0, 4, 0),
        mask(2, UINT64_MAX, 0, 0), mask(3, UINT64_MAX, 2, 2), mask(2, 2, 2, 0),
    };
    shapes[5].dtype = UNETSERVE_U16;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int format = MASK_JSON; format <= MASK_PNG; format++) {
            void *out = NULL;
            size_t size;
            assert_int_equal(
                mask_encode((enum mask_format)format, &interface, &shapes[i], labels, &out, &size),
                -EINVAL);
            assert_null(out);
        }
}

/* ---- PNG ---- */

struct source {
    const char *at;
    size_t left;
};

static void read_bytes(png_structp png, png_bytep bytes, size_t size)
{
    struct source *source = png_get_io_ptr(png);
    if (size > source->left)
        png_error(png, "short");
    memcpy(bytes, source->at, size);
    source->at += size;
    source->left -= size;
}

struct image {
    uint32_t width, height;
    int colours, depth, type;
    png_color palette[256];
    uint8_t pixels[64 * 64];
    char text[16384];
};

/* Decode with libpng's reader. Any error of it ends the program: that too fails the test. */
static void decode(const void *data, size_t size, struct image *image)
{
    struct source source = {data, size};
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_colorp palette;
    png_textp text;
    assert_false(setjmp(png_jmpbuf(png)));
    png_set_read_fn(png, &source, read_bytes);
    png_read_info(png, info);
    image->width = png_get_image_width(png, info);
    image->height = png_get_image_height(png, info);
    image->depth = png_get_bit_depth(png, info);
    image->type = png_get_color_type(png, info);
    assert_true(image->width <= 64 && image->height <= 64);
    png_get_PLTE(png, info, &palette, &image->colours);
    memcpy(image->palette, palette, (size_t)image->colours * sizeof *palette);
    assert_int_equal(png_get_text(png, info, &text, NULL), 1);
    assert_string_equal(text[0].key, "Classes");
    snprintf(image->text, sizeof image->text, "%s", text[0].text);
    png_set_packing(png);
    for (uint32_t y = 0; y < image->height; y++)
        png_read_row(png, image->pixels + y * image->width, NULL);
    png_read_end(png, NULL);
    png_destroy_read_struct(&png, &info, NULL);
}

static void check_png(uint32_t classes, int depth)
{
    static struct image image;
    static uint8_t labels[37 * 53];
    struct unetserve_interface interface = model(classes);
    struct unetserve_shape shape = mask(2, 37, 53, 0);
    for (size_t i = 0; i < sizeof labels; i++)
        labels[i] = (uint8_t)(i * 7 % (classes < 256 ? classes + 3 : 256));
    void *out;
    size_t size;
    assert_int_equal(mask_encode(MASK_PNG, &interface, &shape, labels, &out, &size), 0);
    decode(out, size, &image);
    free(out);
    assert_int_equal(image.width, 53);
    assert_int_equal(image.height, 37);
    assert_int_equal(image.type, PNG_COLOR_TYPE_PALETTE);
    assert_int_equal(image.depth, depth);
    for (size_t i = 0; i < sizeof labels; i++) {
        bool known = labels[i] < classes;
        png_color colour = image.palette[image.pixels[i]];
        const uint8_t black[3] = {0};
        const uint8_t *rgb = known ? interface.classes[labels[i]].rgb : black;
        assert_true(image.pixels[i] < image.colours);
        if (known)
            assert_int_equal(image.pixels[i], labels[i]);
        assert_true(colour.red == rgb[0] && colour.green == rgb[1] && colour.blue == rgb[2]);
    }
}

static void test_png(void **state)
{
    (void)state;
    check_png(1, 1);
    check_png(3, 2);
    check_png(11, 4);
    check_png(15, 4);
    check_png(16, 8);
    check_png(255, 8);
    check_png(256, 8);
}

static void test_png_legend(void **state)
{
    (void)state;
    static struct image image;
    struct unetserve_interface interface = model(3);
    struct unetserve_shape shape = mask(2, 1, 2, 0);
    static const uint8_t labels[2] = {0, 2};
    void *out;
    size_t size;
    strcpy(interface.classes[1].name, "line\nbreak");
    assert_int_equal(mask_encode(MASK_PNG, &interface, &shape, labels, &out, &size), 0);
    decode(out, size, &image);
    assert_string_equal(image.text, "0 0 class 0\n1 10 line break\n2 20 class 2");
    free(out);
    strcpy(interface.classes[1].name, "For\xc3\xaat");
    memset(interface.classes[2].name, 'n', sizeof interface.classes[2].name); /* no terminator */
    assert_int_equal(mask_encode(MASK_PNG, &interface, &shape, labels, &out, &size), 0);
    decode(out, size, &image);
    assert_string_equal(
        image.text,
        "0 0 class 0\n1 10 For\xc3\xaat\n2 20 nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn");
    free(out);
}

static void test_png_refuses_batches(void **state)
{
    (void)state;
    struct unetserve_interface interface = model(3);
    static const uint8_t labels[8] = {0};
    struct unetserve_shape shape = mask(3, 2, 2, 2);
    void *out = NULL;
    size_t size;
    assert_int_equal(mask_encode(MASK_PNG, &interface, &shape, labels, &out, &size), -EINVAL);
    assert_null(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_of_every_label),
        cmocka_unit_test(test_json_of_labels_up_to),
        cmocka_unit_test(test_json_key_is_escaped),
        cmocka_unit_test(test_npy),
        cmocka_unit_test(test_shapes_that_no_format_holds),
        cmocka_unit_test(test_png),
        cmocka_unit_test(test_png_legend),
        cmocka_unit_test(test_png_refuses_batches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
