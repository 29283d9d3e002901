/*
 * Made-up networks and odd sequences on the cuDNN backend, on a double of a GPU or on a GPU: what
 * no popular family has and what no single batch shows. Shapes that differ in one number only, come
 * back after others were dropped for them, or after the arena moved; labels beside logits; a device
 * with little memory; a thread that did not create the instance.
 */
#define MAX_TILES 20
#include "tests/unit/networks.h"

#include "tests/gpu/double/double.h"
#include "workers/backends/backends.h"
#include "workers/backends/cudnn/gpu_layout.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

/* NULL on a real device. */
static void *double_symbol(const char *name)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    return library != NULL ? dlsym(library, name) : NULL;
}

static bool on_double(void)
{
    return double_symbol("gpudouble_fail") != NULL;
}

static long count(const char *call)
{
    double_count_fn *function;
    *(void **)&function = double_symbol("gpudouble_count");
    return function != NULL ? function(call) : 0;
}

static void *create(const struct backend *backend, const struct network *network,
                    const char *precision, uint32_t tile)
{
    char error[1024] = "";
    void *instance = NULL;
    struct backend_options options = {
        .precision = precision, .threads = 2, .preprocess = plain, .tile = tile};
    if (backend->create(network, &options, &instance, error, sizeof error) != 0) {
        fail_msg("%s", error);
    }
    return instance;
}

/* ---- one batch ---- */

/* The same network on both backends. */
struct couple {
    struct network network;
    void *gpu;
    void *reference;
};

static void couple_open(struct couple *couple, const char *precision)
{
    couple->gpu = create(&backend_cudnn, &couple->network, precision, 16);
    couple->reference = create(&backend_reference, &couple->network, "f32", 16);
}

static void couple_close(struct couple *couple)
{
    backend_cudnn.destroy(couple->gpu);
    backend_reference.destroy(couple->reference);
    network_free(&couple->network);
}

/* Labels are what these very logits say, whatever rounding they went through. */
static void check_labels(const struct tiles *tiles)
{
    for (uint32_t i = 0; i < tiles->batch.count; i++) {
        for (size_t p = 0; p < tiles->pixels; p++) {
            size_t best = 0;
            for (size_t c = 1; c < tiles->classes; c++) {
                const float *values = tiles->logits[i] + p;
                best = values[c * tiles->pixels] > values[best * tiles->pixels] ? c : best;
            }
            best = tiles->classes == 1 ? tiles->logits[i][p] > 0.0F : best;
            assert_int_equal(tiles->labels[i][p], best);
        }
    }
}

/* Tiles that were never seen before go through both; the labels alone, too. */
static void couple_run(const struct couple *couple, uint32_t dtype, uint32_t tile_count,
                       uint32_t height, uint32_t width, double error)
{
    struct tiles got;
    struct tiles want;
    tiles_make(&couple->network, dtype, tile_count, height, width, &got);
    tiles_make_like(&couple->network, &got, &want);
    assert_int_equal(backend_cudnn.forward(couple->gpu, &got.batch), 0);
    assert_int_equal(backend_reference.forward(couple->reference, &want.batch), 0);
    struct difference difference = compare(&got, want.labels, want.logits);
    if (!(difference.logits <= error)) {
        fail_msg("%u tiles of %u x %u, type %u: logits are off by %g of the largest", tile_count,
                 height, width, dtype, difference.logits);
    }
    check_labels(&got);
    tiles_free(&got);
    tiles_free(&want);
}

/* ---- networks ---- */

#define MAKERS 9

/* Poolings that are not of 2 x 2 pixels, of what a concatenation takes later. */
static void other_pools(struct network *out)
{
    start(out, 3, 1);
    out->size_min = 8;
    uint32_t a = conv(out, 0, 8);
    uint32_t coarse = upsample(out, conv(out, pool_with(out, a, 3, 2, 0), 8), NETWORK_NEAREST);
    uint32_t smaller = pool_with(out, a, 2, 1, 0);
    uint32_t joined = pair(out, NETWORK_CONCAT, a, pair(out, NETWORK_FIT, coarse, a));
    joined = pair(out, NETWORK_CONCAT, joined, pair(out, NETWORK_FIT, smaller, a));
    head(out, conv(out, joined, 6), 4);
}

static void make(int which, struct network *out)
{
    switch (which) {
    case 0: two_levels(out, 3, 5, 4, true); break;
    case 1: two_levels(out, 17, 20, 1, false); break;
    case 2: two_levels(out, 1, 16, 35, true); break;
    case 3: resampled(out, NETWORK_NEAREST); break;
    case 4: resampled(out, NETWORK_BILINEAR); break;
    case 5: resampled(out, NETWORK_BILINEAR_ALIGNED); break;
    case 6: residual(out); break;
    case 7: other_pools(out); break;
    default: odd(out); break;
    }
}

static void odd_networks(void **state)
{
    (void)state;
    static const struct {
        const char *precision;
        double error;
    } ways[] = {{"f32", 2e-5}, {"f16", 0.01}, {"bf16", 0.06}};
    for (int which = 0; which < MAKERS; which++) {
        for (size_t way = 0; way < 3; way++) {
            struct couple couple;
            make(which, &couple.network);
            couple_open(&couple, ways[way].precision);
            uint32_t step = couple.network.size_multiple;
            for (uint32_t round = 0; round < 3; round++) {
                couple_run(&couple, UNETSERVE_F32, 2, 2 * step + 8, 3 * step + 8, ways[way].error);
            }
            couple_run(&couple, UNETSERVE_F32, 1, 3 * step + 8, 2 * step + 8, ways[way].error);
            couple_close(&couple);
        }
    }
}

/* ---- sequences ---- */

/* A few heights, widths and counts in every combination: often twice or more in a row, and more
 * of them than are kept. */
static void shapes_in_any_order(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {8, 9, 12, 13};
    static const uint32_t counts[] = {1, 2, 3, 9};
    static const uint32_t dtypes[] = {UNETSERVE_F32, UNETSERVE_F32, UNETSERVE_F16};
    struct couple couple;
    two_levels(&couple.network, 3, 5, 4, true);
    couple_open(&couple, "f32");
    for (int i = 0; i < 90; i++) {
        uint32_t bits = random_bits() >> 3;
        uint32_t height = sizes[bits % 4];
        uint32_t width = sizes[bits / 4 % 4];
        uint32_t tile_count = counts[bits / 16 % 4];
        for (uint32_t again = 0; again <= bits / 64 % 4; again++) {
            couple_run(&couple, dtypes[bits / 256 % 3], tile_count, height, width, 2e-5);
        }
    }
    couple_close(&couple);
}

/* Shapes in use, captured or not, before and after one that the arena has to grow for, and after it
 * has shrunk again. */
static void shapes_outlive_the_arena(void **state)
{
    (void)state;
    struct couple couple;
    two_levels(&couple.network, 3, 5, 4, false);
    couple_open(&couple, "f32");
    for (uint32_t large = 24; large <= 72; large += 24) {
        for (uint32_t round = 0; round < 3; round++) {
            couple_run(&couple, UNETSERVE_F32, 1, 8, 9, 2e-5);
            couple_run(&couple, UNETSERVE_F32, 2, 9, 8, 2e-5);
            if (round > 0) {
                couple_run(&couple, UNETSERVE_F32, 1, 9, 12, 2e-5);
            }
        }
        couple_run(&couple, UNETSERVE_F32, 1, large, large + 1, 2e-5);
        for (uint32_t round = 0; round < 3; round++) {
            couple_run(&couple, UNETSERVE_F32, 1, 8, 9, 2e-5);
            couple_run(&couple, UNETSERVE_F32, 1, large, large + 1, 2e-5);
            couple_run(&couple, UNETSERVE_F32, 2, 9, 8, 2e-5);
        }
    }
    for (uint32_t i = 0; i < 20; i++) { /* the large ones are dropped, and their memory */
        couple_run(&couple, UNETSERVE_F32, 1 + i % 2, 8 + i / 2, 8, 2e-5);
        couple_run(&couple, UNETSERVE_F32, 1 + i % 2, 8 + i / 2, 8, 2e-5);
    }
    couple_close(&couple);
}

/* ---- in flight ---- */

#define FLIGHTS 4

/* A batch that was submitted. */
struct flight {
    struct tiles got;
    struct tiles want;
    uint64_t mark;
};

static void flight_begin(const struct couple *couple, uint32_t tile_count, uint32_t height,
                         uint32_t width, struct flight *out)
{
    tiles_make(&couple->network, UNETSERVE_F32, tile_count, height, width, &out->got);
    tiles_make_like(&couple->network, &out->got, &out->want);
    assert_int_equal(backend_reference.forward(couple->reference, &out->want.batch), 0);
    assert_int_equal(backend_cudnn.submit(couple->gpu, &out->got.batch, &out->mark), 0);
}

static void flight_end(const struct couple *couple, struct flight *flight)
{
    uint64_t come = 0;
    assert_int_equal(backend_cudnn.collect(couple->gpu, flight->mark, &come), 0);
    assert_true(come >= flight->mark);
    struct difference difference = compare(&flight->got, flight->want.labels, flight->want.logits);
    assert_true(difference.logits <= 2e-5);
    check_labels(&flight->got);
    tiles_free(&flight->got);
    tiles_free(&flight->want);
}

/* Batches of different shapes, which nobody waits for until some more are under way: each may need
 * a lane, an arena or a place among the shapes that another one uses. */
static void batches_in_flight_of_any_shape(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {8, 9, 13, 40};
    struct couple couple;
    struct flight flights[FLIGHTS];
    two_levels(&couple.network, 3, 5, 4, true);
    couple_open(&couple, "f32");
    for (uint32_t i = 0; i < 80; i++) {
        uint32_t bits = random_bits() >> 3;
        if (i >= FLIGHTS) {
            flight_end(&couple, &flights[i % FLIGHTS]);
        }
        flight_begin(&couple, bits / 16 % 5 == 0 ? 9 : 1 + bits / 16 % 3, sizes[bits % 4],
                     sizes[bits / 4 % 4], &flights[i % FLIGHTS]);
    }
    for (uint32_t i = 0; i < FLIGHTS; i++) {
        flight_end(&couple, &flights[i]);
    }
    couple_close(&couple);
}

/* Whoever sees the descriptor readable finds just what was submitted come, and nothing more. */
static void the_descriptor_tells_what_has_come(void **state)
{
    (void)state;
    struct couple couple;
    unsetenv("GPUDOUBLE_WAIT"); /* while there are no other threads */
    two_levels(&couple.network, 3, 5, 4, true);
    couple_open(&couple, "f32");
    for (uint32_t i = 0; i < 6; i++) {
        struct flight flight;
        uint64_t come = 0;
        flight_begin(&couple, 1 + i % 3, 8, 9, &flight);
        struct pollfd told = {.fd = backend_cudnn.descriptor(couple.gpu), .events = POLLIN};
        while (poll(&told, 1, 60000) < 0) {
            assert_int_equal(errno, EINTR);
        }
        assert_int_equal(told.revents, POLLIN);
        assert_int_equal(backend_cudnn.collect(couple.gpu, 0, &come), 0);
        assert_int_equal(come, flight.mark);
        flight_end(&couple, &flight);
    }
    couple_close(&couple);
    setenv("GPUDOUBLE_WAIT", "first", 1);
}

/* ---- circumstances ---- */

/* With room for one tile's activations at a time, eight go one after the other. */
static void little_memory_is_enough(void **state)
{
    (void)state;
    if (!on_double()) {
        skip();
    }
    struct couple couple;
    struct gpu_layout layout;
    char bytes[32];
    two_levels(&couple.network, 3, 20, 4, true);
    assert_int_equal(gpu_layout_create(&couple.network, GPU_F32, 1, 64, 64, &layout), 0);
    snprintf(bytes, sizeof bytes, "%zu", layout.arena_bytes * 11 / 2);
    gpu_layout_free(&layout);
    setenv("GPUDOUBLE_MEMORY", bytes, 1);
    couple_open(&couple, "f32");
    couple_run(&couple, UNETSERVE_F32, 8, 64, 64, 2e-5);
    couple_run(&couple, UNETSERVE_F32, 2, 64, 64, 2e-5);
    couple_close(&couple);
    unsetenv("GPUDOUBLE_MEMORY");
}

static void *run_elsewhere(void *argument)
{
    const struct couple *couple = (const struct couple *)argument;
    couple_run(couple, UNETSERVE_F32, 2, 8, 9, 2e-5);
    return NULL;
}

/* cmocka's failures do not cross threads: a failure there ends the program, which is as good. */
static void any_thread_may_run_it(void **state)
{
    (void)state;
    pthread_t thread;
    struct couple couple;
    unsetenv("GPUDOUBLE_WAIT"); /* while there are no other threads */
    two_levels(&couple.network, 3, 5, 4, true);
    couple_open(&couple, "f32");
    assert_int_equal(pthread_create(&thread, NULL, run_elsewhere, &couple), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    couple_run(&couple, UNETSERVE_F32, 2, 8, 9, 2e-5);
    couple_close(&couple);
    setenv("GPUDOUBLE_WAIT", "first", 1);
}

/* What was found to be fastest is what runs, at the first start and when it is read again. */
static void the_fastest_engines_run(void **state)
{
    (void)state;
    if (!on_double()) {
        skip();
    }
    char directory[] = "/tmp/test-networks-XXXXXX";
    char command[64];
    struct network network;
    assert_non_null(mkdtemp(directory));
    two_levels(&network, 3, 20, 4, true);
    for (int start_number = 0; start_number < 2; start_number++) {
        char error[1024] = "";
        void *gpu = NULL;
        struct backend_options options = {.precision = "bf16",
                                          .threads = 1,
                                          .preprocess = plain,
                                          .tile = 16,
                                          .max_batch = 4,
                                          .cache_dir = directory,
                                          .timing_s = 3600};
        assert_int_equal(backend_cudnn.create(&network, &options, &gpu, error, sizeof error), 0);
        long slower = count(DOUBLE_SLOWER);
        for (uint32_t tile_count = 1; tile_count <= 4; tile_count += 3) {
            struct tiles tiles;
            tiles_make(&network, UNETSERVE_F32, tile_count, 16, 16, &tiles);
            assert_int_equal(backend_cudnn.forward(gpu, &tiles.batch), 0);
            tiles_free(&tiles);
        }
        assert_int_equal(count(DOUBLE_SLOWER), slower);
        backend_cudnn.destroy(gpu);
    }
    snprintf(command, sizeof command, "rm -r %s", directory);
    assert_int_equal(system(command), 0);
    network_free(&network);
}

int main(int argc, char **argv)
{
    setenv("GPUDOUBLE_WAIT", "first", 1); /* the double runs things when this thread waits */
    if (argc == 2) {
        cmocka_set_test_filter(argv[1]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_networks),
        cmocka_unit_test(shapes_in_any_order),
        cmocka_unit_test(shapes_outlive_the_arena),
        cmocka_unit_test(batches_in_flight_of_any_shape),
        cmocka_unit_test(the_descriptor_tells_what_has_come),
        cmocka_unit_test(little_memory_is_enough),
        cmocka_unit_test(any_thread_may_run_it),
        cmocka_unit_test(the_fastest_engines_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
