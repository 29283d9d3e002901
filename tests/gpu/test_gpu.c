/*
 * The cuDNN backend against the reference backend: on a double of a GPU (make test-gpu-double), or
 * on a GPU (make test-gpu). Every golden network, every element type of tiles, odd sizes, batches,
 * first runs and captured ones.
 */
#include "tests/gpu/against_reference.h"

#include "workers/models/unet/half.h"

#include <errno.h>
#include <glob.h>

struct bound {
    const char *precision;
    double error;
};

static const struct bound bounds[] = {{"f32", 2e-5}, {"f16", 0.01}, {"bf16", 0.06}};

static void check(const struct bound *bound, uint32_t dtype, uint32_t count, uint32_t height,
                  uint32_t width, const struct backend_preprocess *preprocess)
{
    struct backend_options options = wishes(bound->precision);
    options.preprocess = *preprocess;
    void *gpu = start(&backend_cudnn, &options);
    assert_string_equal(backend_cudnn.precision(gpu), bound->precision);
    options.precision = "f32";
    void *reference = start(&backend_reference, &options);
    for (int round = 0; round < 4; round++) { /* step by step, captured, launched, launched */
        struct tiles got = make_tiles(dtype, count, height, width);
        struct tiles want = got;
        struct tiles answers = make_tiles(dtype, count, height, width);
        memcpy(want.labels, answers.labels, sizeof want.labels);
        memcpy(want.logits, answers.logits, sizeof want.logits);
        assert_int_equal(run(&backend_cudnn, gpu, dtype, &got), 0);
        assert_int_equal(run(&backend_reference, reference, dtype, &want), 0);
        double error = compare(&got, &want);
        if (error > bound->error) {
            print_error("%s, %u tiles of %u x %u, type %u, round %d: error %g\n", bound->precision,
                        count, height, width, dtype, round, error);
        }
        assert_true(error <= bound->error);
        free_tiles(&got);
        free_tiles(&answers);
    }
    backend_cudnn.destroy(gpu);
    backend_reference.destroy(reference);
}

static const struct backend_preprocess plain = {.scale = 1.0f};

static void every_family(void **state)
{
    (void)state;
    glob_t found;
    assert_int_equal(glob("tests/goldens/[!r]*.safetensors", 0, NULL, &found), 0);
    assert_true(found.gl_pathc > 8);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        if (strstr(found.gl_pathv[i], "ops.") != NULL) {
            continue;
        }
        open_network(found.gl_pathv[i]);
        uint32_t multiple = network->size_multiple;
        uint32_t size = (network->size_min > 32 ? network->size_min : 32) / multiple * multiple;
        uint32_t odd = multiple > 1 ? multiple : 5;
        check(&bounds[i % 3], UNETSERVE_F32, 1 + i % 2, size, size + odd, &plain);
        check(&bounds[0], UNETSERVE_F32, 1, size + odd, size, &plain);
        source_close(&source);
    }
    globfree(&found);
}

static void every_type_of_tile(void **state)
{
    (void)state;
    static const struct backend_preprocess steps[] = {
        {.scale = 255.0f},
        {.offset = 3.0f, .scale = 128.0f},
        {.offset = -1000.0f, .scale = 10000.0f, .clip = true, .clip_low = 0.0f, .clip_high = 0.5f},
        {.offset = 100.0f, .scale = 10000.0f, .clip = true, .clip_low = -0.1f, .clip_high = 1.0f},
        {.scale = 1.0f},
        {.offset = 0.5f, .scale = 2.0f}};
    open_network("tests/goldens/milesial_transposed.safetensors");
    for (uint32_t dtype = UNETSERVE_U8; dtype <= UNETSERVE_F32; dtype++) {
        check(&bounds[0], dtype, 2, 24, 37, &steps[dtype - 1]);
        check(&bounds[2], dtype, 2, 24, 37, &steps[dtype - 1]);
    }
    source_close(&source);
}

static void every_batch(void **state)
{
    (void)state;
    static const uint32_t counts[] = {1, 2, 5, 8, 20};
    open_network("tests/goldens/milesial_bilinear.safetensors");
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        check(&bounds[0], UNETSERVE_F32, counts[i], 17, 19, &plain);
    }
    source_close(&source);
}

/* More shapes than are kept, of growing and shrinking arenas, and back again. */
static void shapes_come_and_go(void **state)
{
    (void)state;
    open_network("tests/goldens/milesial_transposed.safetensors");
    struct backend_options options = wishes("f32");
    void *gpu = start(&backend_cudnn, &options);
    void *reference = start(&backend_reference, &options);
    for (uint32_t i = 0; i < 44; i++) {
        uint32_t size = 16 + i * 7 % 22;
        struct tiles got = make_tiles(UNETSERVE_F32, 1 + i % 2, size, 16 + i % 3);
        struct tiles want = make_tiles(UNETSERVE_F32, 1 + i % 2, size, 16 + i % 3);
        for (uint32_t t = 0; t < got.count; t++) {
            memcpy(want.inputs[t], got.inputs[t],
                   (size_t)network->in_channels * got.height * got.width * sizeof(float));
        }
        assert_int_equal(run(&backend_cudnn, gpu, UNETSERVE_F32, &got), 0);
        assert_int_equal(run(&backend_reference, reference, UNETSERVE_F32, &want), 0);
        assert_true(compare(&got, &want) < 2e-5);
        free_tiles(&got);
        free_tiles(&want);
    }
    backend_cudnn.destroy(gpu);
    backend_reference.destroy(reference);
    source_close(&source);
}

static void wrong_wishes_are_refused(void **state)
{
    (void)state;
    open_network("tests/goldens/milesial_transposed.safetensors");
    static const char *const precisions[] = {"int8", "f64"};
    char error[512];
    void *instance = NULL;
    for (size_t i = 0; i < 2; i++) {
        struct backend_options options = wishes(precisions[i]);
        error[0] = '\0';
        assert_int_equal(backend_cudnn.create(network, &options, &instance, error, sizeof error),
                         -EINVAL);
        assert_non_null(strstr(error, precisions[i]));
    }
    struct backend_options options = wishes("auto");
    options.device = 700;
    assert_int_equal(backend_cudnn.create(network, &options, &instance, error, sizeof error),
                     -ENODEV);
    assert_non_null(strstr(error, "700"));
    options.device = 0;
    void *gpu = start(&backend_cudnn, &options);
    struct tiles tiles = make_tiles(UNETSERVE_F32, 1, 16, 16);
    assert_int_equal(run(&backend_cudnn, gpu, UNETSERVE_F64, &tiles), -EINVAL);
    tiles.height = 1;
    assert_int_equal(run(&backend_cudnn, gpu, UNETSERVE_F32, &tiles), -EINVAL);
    tiles.height = 16;
    assert_int_equal(run(&backend_cudnn, gpu, UNETSERVE_F32, &tiles), 0);
    free_tiles(&tiles);
    backend_cudnn.destroy(gpu);
    source_close(&source);
}

static void weights_are_rounded_to_nearest(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) { /* every half is itself */
        float value = half_to_f32((uint16_t)bits);
        if (value == value) {
            assert_int_equal(gpu_weights_narrow(GPU_F16, value), bits);
        }
        value = bfloat16_to_f32((uint16_t)bits);
        if (value == value) {
            assert_int_equal(gpu_weights_narrow(GPU_BF16, value), bits);
        }
    }
    assert_int_equal(gpu_weights_narrow(GPU_F16, 65519.0f), 0x7bff);
    assert_int_equal(gpu_weights_narrow(GPU_F16, 65520.0f), 0x7c00);
    assert_int_equal(gpu_weights_narrow(GPU_F16, 1.00048828125f), 0x3c00); /* half way: to even */
    assert_int_equal(gpu_weights_narrow(GPU_F16, 0x1.8p-24f), 0x0002);
    assert_int_equal(gpu_weights_narrow(GPU_F16, -0x1p-25f), 0x8000);
    assert_int_equal(gpu_weights_narrow(GPU_BF16, 1.00390625f), 0x3f80);
    assert_true(gpu_weights_narrow(GPU_F16, NAN) == 0x7e00);
}

int main(int argc, char **argv)
{
    begin_program(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_rounded_to_nearest),
        cmocka_unit_test(wrong_wishes_are_refused),
        cmocka_unit_test(every_family),
        cmocka_unit_test(every_type_of_tile),
        cmocka_unit_test(every_batch),
        cmocka_unit_test(shapes_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
