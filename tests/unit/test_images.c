/* Image files: what their heads say, and what they expand to, whatever way they were written in;
 * and files that lie. */
#include "workers/image_library.h"
#include "workers/images/images.h"

#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tiffio.h>
#include <unistd.h>

#include <cmocka.h>

struct bytes {
    char *data;
    size_t size;
};

static bool always(void *opaque)
{
    unsigned *calls = opaque;
    if (calls)
        ++*calls;
    return true;
}

static bool never(void *opaque)
{
    (void)opaque;
    return false;
}

static enum image_file kind_of(struct bytes file)
{
    return file.size < IMAGE_FILE_MAGIC ? IMAGE_FILE_NONE : image_file_kind(file.data);
}

/* 0 or the refusal's status; *pixels is malloc'd where it is 0. */
static int read_image(struct bytes file, struct unetserve_shape *shape, void **pixels,
                      struct problem *problem)
{
    uint64_t bytes;
    enum image_file kind = kind_of(file);
    if (!kind)
        return 415;
    if (image_file_shape(kind, file.data, file.size, shape, problem))
        return problem->status;
    if (shape->dtype == UNETSERVE_F64)
        shape->dtype = UNETSERVE_F32;
    assert_int_equal(unetserve_shape_bytes(shape, &bytes), 0);
    if (bytes > 64 << 20)
        return 413;
    *pixels = malloc(bytes ? bytes : 1);
    assert_non_null(*pixels);
    struct images_order order = {kind, file.data, file.size, shape, always, NULL};
    int error = unetserve_images()->expand(&order, *pixels, problem);
    if (!error)
        return 0;
    assert_int_equal(error, -EBADMSG);
    free(*pixels);
    *pixels = NULL;
    assert_in_range(problem->status, 400, 422);
    return problem->status;
}

/* ---- TIFF ---- */

struct way {
    uint32_t dtype;
    uint32_t channels, height, width;
    const char *mode; /* libtiff's: w, l or b for the byte order, 8 for BigTIFF */
    int compression, predictor;
    bool separate;
    uint32_t tile; /* 0: strips */
    uint32_t rows; /* in a strip */
};

/* Values that tell where they belong; whole numbers that every type holds. */
static double value_of(const struct way *way, uint64_t c, uint64_t y, uint64_t x)
{
    return (double)((c * 31 + y * 7 + x * 3) % (way->dtype == UNETSERVE_I8 ? 127 : 251));
}

static void put(uint32_t dtype, double value, char *at)
{
    switch (dtype) {
    case UNETSERVE_U8:
    case UNETSERVE_I8: *at = (char)(int)value; break;
    case UNETSERVE_U16:
    case UNETSERVE_I16: memcpy(at, &(uint16_t){(uint16_t)value}, 2); break;
    case UNETSERVE_F32: memcpy(at, &(float){(float)value}, 4); break;
    default: memcpy(at, &value, 8);
    }
}

/* A piece of the image: rows x columns from y, x on, of one band (separate) or of all. */
static void fill_piece(const struct way *way, uint64_t band, uint64_t y, uint64_t x, uint64_t rows,
                       uint64_t columns, char *buffer)
{
    size_t each = unetserve_dtype_size(way->dtype);
    uint64_t samples = way->separate ? 1 : way->channels;
    for (uint64_t i = 0; i < rows; i++)
        for (uint64_t k = 0; k < columns; k++)
            for (uint64_t c = 0; c < samples; c++)
                put(way->dtype, value_of(way, way->separate ? band : c, y + i, x + k),
                    buffer + ((i * columns + k) * samples + c) * each);
}

static void set_tags(TIFF *tiff, const struct way *way)
{
    size_t each = unetserve_dtype_size(way->dtype);
    int format = way->dtype == UNETSERVE_I8 || way->dtype == UNETSERVE_I16 ? SAMPLEFORMAT_INT
                 : way->dtype >= UNETSERVE_F16                             ? SAMPLEFORMAT_IEEEFP
                                                                           : SAMPLEFORMAT_UINT;
    TIFFSetField(tiff, TIFFTAG_IMAGEWIDTH, way->width);
    TIFFSetField(tiff, TIFFTAG_IMAGELENGTH, way->height);
    TIFFSetField(tiff, TIFFTAG_SAMPLESPERPIXEL, way->channels);
    TIFFSetField(tiff, TIFFTAG_BITSPERSAMPLE, (int)(8 * each));
    TIFFSetField(tiff, TIFFTAG_SAMPLEFORMAT, format);
    TIFFSetField(tiff, TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_MINISBLACK);
    TIFFSetField(tiff, TIFFTAG_PLANARCONFIG,
                 way->separate ? PLANARCONFIG_SEPARATE : PLANARCONFIG_CONTIG);
    TIFFSetField(tiff, TIFFTAG_COMPRESSION, way->compression);
    if (way->predictor)
        TIFFSetField(tiff, TIFFTAG_PREDICTOR, way->predictor);
    if (way->tile) {
        TIFFSetField(tiff, TIFFTAG_TILEWIDTH, way->tile);
        TIFFSetField(tiff, TIFFTAG_TILELENGTH, way->tile);
    } else {
        TIFFSetField(tiff, TIFFTAG_ROWSPERSTRIP, way->rows);
    }
}

static void write_pieces(TIFF *tiff, const struct way *way)
{
    size_t each = unetserve_dtype_size(way->dtype);
    uint32_t rows = way->tile ? way->tile : way->rows, columns = way->tile ? way->tile : way->width;
    char *buffer = calloc((size_t)rows * columns * way->channels, each);
    uint32_t number = 0;
    assert_non_null(buffer);
    for (uint32_t band = 0; band < (way->separate ? way->channels : 1); band++)
        for (uint32_t y = 0; y < way->height; y += rows)
            for (uint32_t x = 0; x < way->width; x += columns) {
                uint32_t here = way->tile || way->height - y > rows ? rows : way->height - y;
                tmsize_t size = (tmsize_t)((size_t)here * columns *
                                           (way->separate ? 1 : way->channels) * each);
                fill_piece(way, band, y, x, here, columns, buffer);
                tmsize_t put_bytes = way->tile ? TIFFWriteEncodedTile(tiff, number, buffer, size)
                                               : TIFFWriteEncodedStrip(tiff, number, buffer, size);
                assert_int_equal(put_bytes, size);
                number++;
            }
    free(buffer);
}

static struct bytes read_whole(int fd)
{
    off_t size = lseek(fd, 0, SEEK_END);
    struct bytes bytes = {malloc((size_t)size), (size_t)size};
    assert_non_null(bytes.data);
    assert_int_equal(pread(fd, bytes.data, bytes.size, 0), size);
    return bytes;
}

static struct bytes write_tiff(const struct way *way)
{
    char path[] = "/tmp/unetserve-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    TIFF *tiff = TIFFOpen(path, way->mode);
    assert_non_null(tiff);
    set_tags(tiff, way);
    write_pieces(tiff, way);
    TIFFClose(tiff);
    struct bytes file = read_whole(fd);
    close(fd);
    unlink(path);
    return file;
}

static void check_pixels(const struct way *way, const struct unetserve_shape *shape,
                         const char *pixels)
{
    uint32_t stored = way->dtype == UNETSERVE_F64 ? UNETSERVE_F32 : way->dtype;
    size_t each = unetserve_dtype_size(stored), at = 0;
    assert_int_equal(shape->dtype, stored);
    assert_int_equal(shape->rank, 3);
    assert_int_equal(shape->dims[0], way->channels);
    assert_int_equal(shape->dims[1], way->height);
    assert_int_equal(shape->dims[2], way->width);
    for (uint32_t c = 0; c < way->channels; c++)
        for (uint32_t y = 0; y < way->height; y++)
            for (uint32_t x = 0; x < way->width; x++, at += each) {
                char expected[8] = {0};
                put(stored, value_of(way, c, y, x), expected);
                if (memcmp(pixels + at, expected, each) != 0)
                    fail_msg("type %u, compression %d, predictor %d, tile %u, %s: at %u %u %u",
                             way->dtype, way->compression, way->predictor, way->tile, way->mode, c,
                             y, x);
            }
}

static void check_way(const struct way *way)
{
    struct bytes file = write_tiff(way);
    struct unetserve_shape shape;
    struct problem problem;
    void *pixels = NULL;
    problem.body[0] = '\0';
    if (read_image(file, &shape, &pixels, &problem))
        fail_msg("type %u compression %d predictor %d: %s", way->dtype, way->compression,
                 way->predictor, problem.body);
    check_pixels(way, &shape, pixels);
    free(pixels);
    free(file.data);
}

static void test_tiff_in_every_way(void **state)
{
    (void)state;
    static const uint32_t types[] = {UNETSERVE_U8,  UNETSERVE_I8,  UNETSERVE_U16,
                                     UNETSERVE_I16, UNETSERVE_F32, UNETSERVE_F64};
    static const int compressions[] = {COMPRESSION_NONE, COMPRESSION_LZW, COMPRESSION_ADOBE_DEFLATE,
                                       COMPRESSION_PACKBITS, COMPRESSION_ZSTD};
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++)
        for (size_t k = 0; k < sizeof compressions / sizeof compressions[0]; k++)
            for (unsigned bits = 0; bits < 16; bits++) {
                bool predicts = bits & 8 && compressions[k] != COMPRESSION_NONE &&
                                compressions[k] != COMPRESSION_PACKBITS;
                struct way way = {
                    .dtype = types[t],
                    .channels = 5,
                    .height = 21,
                    .width = 35,
                    .mode = bits & 4 ? "wb"
                            : k % 2  ? "w8"
                                     : "wl",
                    .compression = compressions[k],
                    /* libtiff 4.5 writes the floating-point predictor wrongly for big-endian files.
                     */
                    .predictor = !predicts                  ? 0
                                 : types[t] < UNETSERVE_F16 ? 2
                                 : bits & 4                 ? 0
                                                            : 3,
                    .separate = bits & 1,
                    .tile = bits & 2 ? 16 : 0,
                    .rows = 4,
                };
                check_way(&way);
            }
}

static void test_tiff_of_one_band_and_one_strip(void **state)
{
    (void)state;
    check_way(&(struct way){UNETSERVE_U16, 1, 64, 48, "w", COMPRESSION_LZW, 2, false, 0, 64});
    check_way(&(struct way){UNETSERVE_U16, 1, 64, 48, "w", COMPRESSION_NONE, 0, true, 0, 1});
    check_way(&(struct way){UNETSERVE_U8, 12, 1, 1, "w", COMPRESSION_NONE, 0, false, 0, 1});
    check_way(&(struct way){UNETSERVE_F32, 3, 5, 7, "w", COMPRESSION_ZSTD, 0, false, 128, 0});
}

/* ---- PNG ---- */

static struct bytes write_png(const struct way *way, int colours, int bits, int interlace)
{
    FILE *file = tmpfile();
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    size_t row_bytes = (size_t)way->width * way->channels * 2;
    png_bytep *rows = calloc(way->height, sizeof *rows);
    assert_non_null(file);
    assert_non_null(rows);
    png_init_io(png, file);
    png_set_IHDR(png, info, way->width, way->height, bits, colours, interlace,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    if (bits == 16)
        png_set_swap(png);
    for (uint32_t y = 0; y < way->height; y++) {
        rows[y] = malloc(row_bytes);
        assert_non_null(rows[y]);
        fill_piece(way, 0, y, 0, 1, way->width, (char *)rows[y]);
    }
    png_write_image(png, rows);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    for (uint32_t y = 0; y < way->height; y++)
        free(rows[y]);
    free(rows);
    fflush(file);
    struct bytes bytes = read_whole(fileno(file));
    fclose(file);
    return bytes;
}

static void test_png_in_every_way(void **state)
{
    (void)state;
    static const int colours[] = {PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_GRAY_ALPHA,
                                  PNG_COLOR_TYPE_RGB, PNG_COLOR_TYPE_RGB_ALPHA};
    for (uint32_t channels = 1; channels <= 4; channels++)
        for (unsigned bits = 0; bits < 8; bits++) {
            struct way way = {.dtype = bits & 1 ? UNETSERVE_U16 : UNETSERVE_U8,
                              .channels = channels,
                              .height = bits & 4 ? 3 : 33,
                              .width = bits & 4 ? 2 : 41};
            struct bytes file = write_png(&way, colours[channels - 1], bits & 1 ? 16 : 8,
                                          bits & 2 ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE);
            struct unetserve_shape shape;
            struct problem problem;
            void *pixels;
            assert_int_equal(read_image(file, &shape, &pixels, &problem), 0);
            check_pixels(&way, &shape, pixels);
            free(pixels);
            free(file.data);
        }
}

/* Two colours and 2 x 1 pixels of one bit: 1, 0; the same as gray. */
static void test_png_of_less_than_a_byte(void **state)
{
    (void)state;
    FILE *file = tmpfile();
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_color palette[2] = {{1, 2, 3}, {40, 50, 60}};
    png_byte alpha[2] = {0, 128};
    png_byte row = 0x80;
    assert_non_null(file);
    png_init_io(png, file);
    png_set_IHDR(png, info, 2, 1, 1, PNG_COLOR_TYPE_PALETTE, 0, 0, 0);
    png_set_PLTE(png, info, palette, 2);
    png_set_tRNS(png, info, alpha, 2, NULL);
    png_write_info(png, info);
    png_write_row(png, &row);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    fflush(file);
    struct bytes bytes = read_whole(fileno(file));
    fclose(file);
    struct unetserve_shape shape;
    struct problem problem;
    void *pixels;
    assert_int_equal(read_image(bytes, &shape, &pixels, &problem), 0);
    assert_int_equal(shape.dims[0], 3);
    assert_memory_equal(pixels, ((uint8_t[]){40, 1, 50, 2, 60, 3}), 6);
    free(pixels);
    free(bytes.data);
}

/* ---- what is refused ---- */

static void put16(struct bytes file, size_t at, uint16_t value)
{
    memcpy(file.data + at, &value, 2);
}

/* Where the entry of a tag begins in a little-endian classic file. */
static size_t entry_of(struct bytes file, uint16_t tag)
{
    uint32_t at;
    uint16_t count, number;
    memcpy(&at, file.data + 4, 4);
    memcpy(&count, file.data + at, 2);
    for (uint16_t i = 0; i < count; i++) {
        memcpy(&number, file.data + at + 2 + 12u * i, 2);
        if (number == tag)
            return at + 2 + 12u * i;
    }
    fail_msg("no tag %u", tag);
    return 0;
}

static struct bytes usual_tiff(void)
{
    return write_tiff(
        &(struct way){UNETSERVE_U16, 3, 32, 32, "wl", COMPRESSION_ADOBE_DEFLATE, 2, false, 0, 8});
}

static int status_of(struct bytes file, struct problem *problem)
{
    struct unetserve_shape shape;
    void *pixels = NULL;
    int status = read_image(file, &shape, &pixels, problem);
    free(pixels);
    return status;
}

static void expect_refusal(struct bytes file, int status, const char *word)
{
    struct problem problem = {0};
    int came = status_of(file, &problem);
    if (came != status || !strstr(problem.body, word))
        fail_msg("%d %s, not %d with %s", came, problem.body, status, word);
    free(file.data);
}

static void test_tiff_that_is_refused(void **state)
{
    (void)state;
    static const struct {
        uint16_t tag, value;
        int status;
        const char *word;
    } cases[] = {
        {256, 0, 400, "without pixels"},
        {257, 0, 400, "without pixels"},
        {256, 4000, 400, "cannot be read"},
        {257, 40, 400, "cannot be read"},
        {259, 7, 422, "compression 7"},
        {259, 34712, 422, "compression"},
        {259, 5, 400, "cannot be read"},
        {262, 3, 422, "PhotometricInterpretation 3"},
        {262, 6, 422, "Photometric"},
        {277, 0, 400, "without pixels"},
        {277, 65535, 400, "BitsPerSample"},
        {278, 0, 400, ""},
        {284, 9, 400, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bytes file = usual_tiff();
        size_t entry = entry_of(file, cases[i].tag);
        put16(file, entry + 2, 3);
        memcpy(file.data + entry + 4, &(uint32_t){1}, 4);
        put16(file, entry + 8, cases[i].value);
        if (cases[i].tag == 278) { /* rows in a strip: 0 is taken for all */
            struct problem problem;
            (void)status_of(file, &problem);
            free(file.data);
        } else {
            expect_refusal(file, cases[i].status, cases[i].word);
        }
    }
}

/* Every strip is the whole file, or lies beyond its end. */
static void test_tiff_that_lies_about_its_strips(void **state)
{
    (void)state;
    struct way way = {UNETSERVE_U8, 1, 4096, 64, "wl", COMPRESSION_ADOBE_DEFLATE, 0, false, 0, 1};
    struct bytes file = write_tiff(&way);
    uint32_t offset;
    memcpy(&offset, file.data + entry_of(file, 279) + 8, 4);
    size_t each = file.data[entry_of(file, 279) + 2] == 3 ? 2 : 4;
    for (size_t i = 0; i < 4096; i++)
        memcpy(file.data + offset + i * each, each == 2 ? "\xff\xff" : "\xff\xff\0\0", each);
    expect_refusal(file, 400, "overlap");
    file = usual_tiff();
    memcpy(&offset, file.data + entry_of(file, 273) + 8, 4);
    memcpy(file.data + offset, "\xff\xff\xff\x7f", 4);
    expect_refusal(file, 400, "cannot be read");
}

static void test_tiff_of_strange_tiles(void **state)
{
    (void)state;
    struct way way = {UNETSERVE_U8, 1, 16, 16, "wl", COMPRESSION_NONE, 0, false, 16, 0};
    struct bytes file = write_tiff(&way);
    for (uint16_t tag = 322; tag <= 323; tag++) {
        size_t entry = entry_of(file, tag);
        put16(file, entry + 2, 4);
        memcpy(file.data + entry + 8, &(uint32_t){0x7ffffff0}, 4);
    }
    expect_refusal(file, 400, "");
}

/* Cut anywhere: refused, or (where only what nobody needs was cut off) read. */
static void test_cut_files(void **state)
{
    (void)state;
    struct way png = {.dtype = UNETSERVE_U8, .channels = 3, .height = 9, .width = 9};
    struct bytes files[2] = {usual_tiff(), write_png(&png, PNG_COLOR_TYPE_RGB, 8, 0)};
    for (size_t i = 0; i < 2; i++) {
        size_t refused = 0;
        for (size_t size = 0; size < files[i].size; size++) {
            struct bytes cut = {malloc(size ? size : 1), size}; /* so that ASan sees its end */
            struct problem problem;
            assert_non_null(cut.data);
            memcpy(cut.data, files[i].data, size);
            refused += status_of(cut, &problem) != 0;
            free(cut.data);
        }
        assert_true(refused > files[i].size * 9 / 10);
        free(files[i].data);
    }
}

static void test_numbers_that_are_not_finite(void **state)
{
    (void)state;
    struct way way = {UNETSERVE_F32, 2, 8, 8, "wl", COMPRESSION_NONE, 0, false, 0, 8};
    struct bytes file = write_tiff(&way);
    uint32_t offset;
    memcpy(&offset, file.data + entry_of(file, 273) + 8, 4);
    memcpy(file.data + offset + 4, "\0\0\xc0\x7f", 4);
    expect_refusal(file, 422, "");
    way.dtype = UNETSERVE_F64; /* one that is finite and becomes infinite */
    file = write_tiff(&way);
    memcpy(&offset, file.data + entry_of(file, 273) + 8, 4);
    memcpy(file.data + offset + 8, &(double){1e300}, 8);
    expect_refusal(file, 422, "");
}

static void test_giving_up(void **state)
{
    (void)state;
    struct way png = {.dtype = UNETSERVE_U8, .channels = 3, .height = 200, .width = 9};
    struct bytes files[2] = {usual_tiff(), write_png(&png, PNG_COLOR_TYPE_RGB, 8, 0)};
    for (size_t i = 0; i < 2; i++) {
        struct unetserve_shape shape;
        struct problem problem;
        char pixels[3 * 200 * 32 * 2];
        unsigned calls = 0;
        assert_int_equal(
            image_file_shape(kind_of(files[i]), files[i].data, files[i].size, &shape, &problem), 0);
        struct images_order order = {
            kind_of(files[i]), files[i].data, files[i].size, &shape, never, NULL};
        assert_int_equal(unetserve_images()->expand(&order, pixels, &problem), -ECANCELED);
        order.go_on = always;
        order.opaque = &calls;
        assert_int_equal(unetserve_images()->expand(&order, pixels, &problem), 0);
        assert_true(calls > 0);
        shape.dims[1]++; /* not what the gateway read */
        assert_int_equal(unetserve_images()->expand(&order, pixels, &problem), -EBADMSG);
        free(files[i].data);
    }
}

/* It is not beside this program: that is said, and nothing else happens. */
static void test_without_the_library(void **state)
{
    (void)state;
    struct bytes file = usual_tiff();
    struct unetserve_shape shape = {.dtype = UNETSERVE_U16, .rank = 3, .dims = {3, 32, 32}};
    struct problem problem;
    char pixels[3 * 32 * 32 * 2];
    struct images_order order = {IMAGE_FILE_TIFF, file.data, file.size, &shape, always, NULL};
    assert_int_equal(image_library_expand(&order, pixels, &problem), -EBADMSG);
    assert_int_equal(problem.status, 415);
    free(file.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiff_in_every_way),
        cmocka_unit_test(test_tiff_of_one_band_and_one_strip),
        cmocka_unit_test(test_png_in_every_way),
        cmocka_unit_test(test_png_of_less_than_a_byte),
        cmocka_unit_test(test_tiff_that_is_refused),
        cmocka_unit_test(test_tiff_that_lies_about_its_strips),
        cmocka_unit_test(test_tiff_of_strange_tiles),
        cmocka_unit_test(test_cut_files),
        cmocka_unit_test(test_numbers_that_are_not_finite),
        cmocka_unit_test(test_giving_up),
        cmocka_unit_test(test_without_the_library),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
