/* Which coding an answer goes out in, and a compressor that works in pieces. */
#include "gateway/compress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include <cmocka.h>

static struct config config;

static int fresh(void **state)
{
    (void)state;
    config_init(&config);
    compress_configure(&config);
    return 0;
}

static int choose(const char *accept)
{
    enum coding coding = CODING_IDENTITY;
    struct problem problem = {0};
    if (compress_choose(accept, &coding, &problem) == 0)
        return (int)coding;
    assert_int_equal(problem.status, 406);
    return -1;
}

static void test_choice(void **state)
{
    (void)state;
    static const struct {
        const char *accept;
        int coding; /* -1: 406 */
    } cases[] = {
        {NULL, CODING_IDENTITY},
        {"", CODING_IDENTITY},
        {"gzip", CODING_GZIP},
        {"GZIP", CODING_GZIP},
        {"x-gzip", CODING_GZIP},
        {"gzip, deflate, br, zstd", CODING_ZSTD},
        {"gzip, deflate", CODING_GZIP},
        {"gzip;q=0.8, zstd;q=0.5", CODING_GZIP},
        {"gzip ; q=0.8 , zstd", CODING_ZSTD},
        {"gzip;q=0", CODING_IDENTITY},
        {"gzip;q=0.000, zstd;q=0", CODING_IDENTITY},
        {"gzip;q=0.5, identity;q=0.9", CODING_IDENTITY},
        {"gzip;q=0.5, identity;q=0.5", CODING_GZIP},
        {"gzip;q=0.001", CODING_GZIP},
        {"gzip;q=2", CODING_IDENTITY},
        {"gzip;level=9", CODING_IDENTITY},
        {"gzipped", CODING_IDENTITY},
        {"br", CODING_IDENTITY},
        {"*", CODING_ZSTD},
        {"*, zstd;q=0", CODING_GZIP},
        {"*;q=0", -1},
        {"br, *;q=0", -1},
        {"identity;q=0", -1},
        {"identity;q=0, gzip;q=0.1", CODING_GZIP},
        {"*;q=0, identity", CODING_IDENTITY},
        {"identity", CODING_IDENTITY},
        {",,;,", CODING_IDENTITY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (choose(cases[i].accept) != cases[i].coding)
            fail_msg("%s: %d", cases[i].accept, choose(cases[i].accept));
}

static void test_what_is_not_offered(void **state)
{
    (void)state;
    config.zstd_level = 0;
    assert_int_equal(choose("gzip, zstd"), CODING_GZIP);
    config.gzip_level = 0;
    assert_int_equal(choose("gzip, zstd"), CODING_IDENTITY);
    assert_int_equal(choose("identity;q=0, gzip"), -1);
    assert_false(compress_fits("application/json", 100000));
}

static void test_types_and_sizes(void **state)
{
    (void)state;
    assert_true(compress_fits("application/json", 1000));
    assert_false(compress_fits("application/json", 999));
    assert_true(compress_fits("text/plain; version=0.0.4", 5000));
    assert_true(compress_fits("application/x-npy", 5000));
    assert_false(compress_fits("image/png", 5000));
    assert_false(compress_fits(NULL, 5000));
    config.compress_min_bytes = 0;
    assert_true(compress_fits("application/json", 1));
    assert_false(compress_fits("application/json", 0));
}

/* As much noise as text. */
static char *make_body(size_t size)
{
    char *body = malloc(size);
    assert_non_null(body);
    uint32_t noise = 1;
    for (size_t i = 0; i < size; i++) {
        noise = noise * 1664525u + 1013904223u;
        body[i] = i % 8192 < 4096 ? (char)(noise >> 24) : "[1,2],"[i % 6];
    }
    return body;
}

static size_t unpack(enum coding coding, const char *packed, size_t size, char *out, size_t room)
{
    if (coding == CODING_ZSTD) {
        size_t unpacked = ZSTD_decompress(out, room, packed, size);
        return ZSTD_isError(unpacked) ? 0 : unpacked;
    }
    z_stream zlib = {.next_in = (Bytef *)packed,
                     .avail_in = (uInt)size,
                     .next_out = (Bytef *)out,
                     .avail_out = (uInt)room};
    assert_int_equal(inflateInit2(&zlib, 15 + 16), Z_OK);
    assert_int_equal(inflate(&zlib, Z_FINISH), Z_STREAM_END);
    assert_int_equal(zlib.avail_in, 0);
    inflateEnd(&zlib);
    return zlib.total_out;
}

static void round_trip(enum coding coding, size_t size, size_t step)
{
    char *body = make_body(size);
    char *packed = malloc(2 * size + 1024), *back = malloc(size + 1);
    assert_true(packed && back);
    struct compressor *compressor = compressor_open(coding, body, size);
    assert_non_null(compressor);
    size_t used = 0;
    ssize_t made;
    while ((made = compressor_read(compressor, packed + used, step)) > 0) {
        assert_true((size_t)made <= step);
        used += (size_t)made;
        assert_true(used + step <= 2 * size + 1024);
    }
    assert_int_equal(made, 0);
    assert_int_equal(compressor_read(compressor, packed, step), 0);
    assert_int_equal(unpack(coding, packed, used, back, size + 1), size);
    assert_memory_equal(back, body, size);
    compressor_close(compressor, false);
    free(packed);
    free(back);
}

static void test_round_trips(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 1000, COMPRESS_PIECE, COMPRESS_PIECE + 1,
                                   3 * COMPRESS_PIECE + 17};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        round_trip(CODING_GZIP, sizes[i], 64);
        round_trip(CODING_ZSTD, sizes[i], 64);
        round_trip(CODING_GZIP, sizes[i], 1000);
        round_trip(CODING_ZSTD, sizes[i], 1000);
    }
}

static void test_closed_in_the_middle(void **state)
{
    (void)state;
    char out[100];
    for (enum coding coding = CODING_GZIP; coding <= CODING_ZSTD; coding++) {
        char *body = make_body(100000);
        struct compressor *compressor = compressor_open(coding, body, 100000);
        assert_non_null(compressor);
        assert_true(compressor_read(compressor, out, sizeof out) > 0);
        compressor_close(compressor, true);
        free(body);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_choice, fresh),
        cmocka_unit_test_setup(test_what_is_not_offered, fresh),
        cmocka_unit_test_setup(test_types_and_sizes, fresh),
        cmocka_unit_test_setup(test_round_trips, fresh),
        cmocka_unit_test_setup(test_closed_in_the_middle, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
