/* The reference backend against torch: whole networks of every family, and each operation by
 * itself. */
#include "goldens.h"
#include "workers/backends/backends.h"
#include "workers/models/unet/family.h"
#include "workers/models/unet/weights.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

static const struct backend_options options = {
    .precision = "auto",
    .threads = 1,
    .preprocess = {.scale = 10000.0f, .clip = true, .clip_high = 1.0f},
};

static struct network network_of(const char *path)
{
    char report[4096] = "";
    struct weights weights;
    struct network network;
    if (weights_open(path, &weights, report, sizeof report) < 0)
        fail_msg("%s", report);
    if (family_build(&weights, NULL, &network, report, sizeof report) < 0)
        fail_msg("%s: %s", path, report);
    weights_close(&weights);
    return network;
}

static void label_torch(const struct array *logits, size_t pixel, size_t pixels, uint8_t *label)
{
    const float *values = logits->data;
    if (logits->dims[0] == 1) {
        *label = values[pixel] > 0.0f;
        return;
    }
    *label = 0;
    for (uint32_t c = 1; c < logits->dims[0]; c++)
        if (values[c * pixels + pixel] > values[*label * pixels + pixel])
            *label = (uint8_t)c;
}

/* Within 1e-4 of the largest logit everywhere, and 99.99 % of the labels. */
static void compare(const char *name, const struct array *expected, const float *logits,
                    const uint8_t *labels)
{
    const float *torch = expected->data;
    size_t pixels = (size_t)expected->dims[1] * expected->dims[2];
    float largest = 0.0f;
    float error = 0.0f;
    for (size_t i = 0; i < pixels * expected->dims[0]; i++) {
        largest = fmaxf(largest, fabsf(torch[i]));
        error = fmaxf(error, fabsf(torch[i] - logits[i]));
        assert_false(isnan(logits[i]));
    }
    size_t different = 0;
    for (size_t i = 0; i < pixels; i++) {
        uint8_t label;
        label_torch(expected, i, pixels, &label);
        different += label != labels[i];
    }
    print_message("%-20s error %.1e of the largest logit, %zu of %zu labels differ\n", name,
                  (double)(error / largest), different, pixels);
    assert_true(error <= 1e-4f * largest);
    assert_true(different * 10000 <= pixels);
}

static void check_golden(const char *name, const char *path)
{
    struct network network = network_of(path);
    struct array input = golden_read_npy(name, "input");
    struct array expected = golden_read_npy(name, "logits");
    assert_int_equal(network.in_channels, input.dims[0]);
    assert_int_equal(network.classes, expected.dims[0]);
    size_t pixels = (size_t)input.dims[1] * input.dims[2];
    float *logits = malloc(pixels * expected.dims[0] * sizeof *logits);
    uint8_t *labels = malloc(pixels);
    void *instance = NULL;
    char error[256] = "";
    assert_int_equal(backend_reference.create(&network, &options, &instance, error, sizeof error),
                     0);
    network_free(&network); /* nothing of it may be needed any more */
    assert_string_equal(backend_reference.precision(instance), "f32");
    struct backend_batch batch = {.count = 1,
                                  .dtype = UNETSERVE_U16,
                                  .height = input.dims[1],
                                  .width = input.dims[2],
                                  .inputs = (const void *const[]){input.data},
                                  .labels = (uint8_t *const[]){labels},
                                  .logits = (float *const[]){logits}};
    assert_int_equal(backend_reference.forward(instance, &batch), 0);
    compare(name, &expected, logits, labels);
    backend_reference.destroy(instance);
    free(logits);
    free(labels);
    free(input.data);
    free(expected.data);
}

static void test_goldens_of_every_family(void **state)
{
    static const char *const names[] = {
        "milesial_transposed",
        "milesial_deep",
        "milesial_bilinear",
        "milesial_no_norm",
        "mateuszbuda",
        "aladdinpersson",
        "zhoudaxia233",
        "plain",
        "plain_upwards",
        "cbr",
        "cbr_nested",
        "fepegar",
        "smp",
    };
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[256];
        snprintf(path, sizeof path, GOLDENS "%s.safetensors", names[i]);
        check_golden(names[i], path);
    }
}

static void test_goldens_in_pth(void **state)
{
    static const char *const names[] = {"milesial_checkpoint", "mateuszbuda_bf16",
                                        "zhoudaxia233_views", "cbr_compiled"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[256];
        snprintf(path, sizeof path, GOLDENS "%s.pth", names[i]);
        check_golden(names[i], path);
    }
}

static void test_demonstration_scene(void **state)
{
    (void)state;
    check_golden("scene_96x112", "packaging/models/s2-worldcover/s2-worldcover-b16.safetensors");
}

static void test_demonstration_pth(void **state)
{
    static const char path[] = "../shared/models/s2-worldcover-b16.pth";
    (void)state;
    if (access(path, R_OK) < 0) {
        print_message("skipped: %s is not there\n", path);
        skip();
    }
    char error[256] = "";
    struct weights pth;
    struct weights safetensors;
    assert_int_equal(weights_open(path, &pth, error, sizeof error), 0);
    assert_int_equal(weights_open("packaging/models/s2-worldcover/s2-worldcover-b16.safetensors",
                                  &safetensors, error, sizeof error),
                     0);
    assert_int_equal(pth.count, safetensors.count);
    for (size_t i = 0; i < pth.count; i++) {
        const struct weights_tensor *a = &pth.tensors[i];
        const struct weights_tensor *b = weights_find(&safetensors, a->name);
        assert_non_null(b);
        assert_int_equal(a->bytes, b->bytes);
        assert_memory_equal(a->data, b->data, a->bytes);
    }
    weights_close(&pth);
    weights_close(&safetensors);
}

/* ---- operations ---- */

static struct weights ops;

static int open_ops(void **state)
{
    char error[256];
    (void)state;
    return weights_open(GOLDENS "ops.safetensors", &ops, error, sizeof error);
}

static int close_ops(void **state)
{
    (void)state;
    weights_close(&ops);
    return 0;
}

static const struct weights_tensor *op_tensor(const char *name)
{
    const struct weights_tensor *tensor = weights_find(&ops, name);
    assert_non_null(tensor);
    return tensor;
}

static float *op_values(const char *name)
{
    const struct weights_tensor *tensor = op_tensor(name);
    float *values = malloc((size_t)tensor->elements * sizeof *values);
    assert_non_null(values);
    assert_int_equal(weights_to_f32(tensor, values), 0);
    return values;
}

/* Run a network of these layers on input (its channels as given) and compare with the tensor
 * expected. */
static void run_op(struct network_layer *layers, size_t count, const float *input,
                   uint32_t channels, uint32_t height, uint32_t width, const char *expected)
{
    const struct weights_tensor *want = op_tensor(expected);
    struct network network = {.in_channels = channels,
                              .size_multiple = 1,
                              .size_min = 1,
                              .layer_count = count,
                              .layers = layers};
    const struct backend_options plain = {.precision = "f32", .preprocess = {.scale = 1.0f}};
    uint32_t c;
    uint32_t h;
    uint32_t w;
    assert_int_equal(network_value_shape(&network, (uint32_t)count, height, width, &c, &h, &w), 0);
    assert_int_equal(c, want->dims[1]);
    assert_int_equal(h, want->dims[2]);
    assert_int_equal(w, want->dims[3]);
    void *instance = NULL;
    char error[256];
    assert_int_equal(backend_reference.create(&network, &plain, &instance, error, sizeof error), 0);
    float *logits = malloc((size_t)want->elements * sizeof *logits);
    float *torch = op_values(expected);
    struct backend_batch batch = {.count = 1,
                                  .dtype = UNETSERVE_F32,
                                  .height = height,
                                  .width = width,
                                  .inputs = (const void *const[]){input},
                                  .logits = (float *const[]){logits}};
    assert_int_equal(backend_reference.forward(instance, &batch), 0);
    for (size_t i = 0; i < want->elements; i++)
        if (!(fabsf(logits[i] - torch[i]) <= 1e-5f))
            fail_msg("%s[%zu]: %g, torch has %g", expected, i, (double)logits[i], (double)torch[i]);
    backend_reference.destroy(instance);
    free(logits);
    free(torch);
}

static void run_single(struct network_layer layer, const char *weights, const char *expected)
{
    float *input = op_values("input");
    char name[64];
    layer.channels = (uint32_t)op_tensor(expected)->dims[1];
    if (weights) {
        snprintf(name, sizeof name, "%s.weight", weights);
        layer.weights = op_values(name);
        snprintf(name, sizeof name, "%s.bias", weights);
        layer.bias = op_values(name);
    }
    run_op(&layer, 1, input, 3, 9, 13, expected);
    free(layer.weights);
    free(layer.bias);
    free(input);
}

static void test_convolutions(void **state)
{
    (void)state;
    run_single(
        (struct network_layer){
            .op = NETWORK_CONV, .kernel = 7, .stride = 2, .padding = 3, .relu = true},
        "weights7", "conv7");
    run_single((struct network_layer){.op = NETWORK_CONV, .kernel = 5, .stride = 1, .padding = 2},
               "weights5", "conv5");
    run_single((struct network_layer){.op = NETWORK_CONV_UP}, "weights_up", "up");
}

static void test_pools_and_upsampling(void **state)
{
    (void)state;
    run_single(
        (struct network_layer){.op = NETWORK_MAX_POOL, .kernel = 3, .stride = 2, .padding = 1},
        NULL, "pool3");
    run_single((struct network_layer){.op = NETWORK_MAX_POOL, .kernel = 2, .stride = 2}, NULL,
               "pool2");
    run_single((struct network_layer){.op = NETWORK_UPSAMPLE, .upsample = NETWORK_NEAREST}, NULL,
               "nearest");
    run_single((struct network_layer){.op = NETWORK_UPSAMPLE, .upsample = NETWORK_BILINEAR}, NULL,
               "bilinear");
    run_single((struct network_layer){.op = NETWORK_UPSAMPLE, .upsample = NETWORK_BILINEAR_ALIGNED},
               NULL, "aligned");
}

/* A 1x1 convolution that hands on one half of six stacked channels. */
static struct network_layer pick(uint32_t first)
{
    static float weights[2][18];
    static float bias[3];
    float *mine = weights[first / 3];
    for (uint32_t c = 0; c < 3; c++)
        mine[c * 6 + first + c] = 1.0f;
    return (struct network_layer){
        .op = NETWORK_CONV, .channels = 3, .kernel = 1, .stride = 1, .weights = mine, .bias = bias};
}

static void test_two_inputs(void **state)
{
    (void)state;
    float *both = malloc(2 * 351 * sizeof *both);
    float *input = op_values("input");
    float *other = op_values("other");
    memcpy(both, input, 351 * sizeof *both);
    memcpy(both + 351, other, 351 * sizeof *both);
    struct network_layer layers[3] = {pick(0), pick(3)};
    layers[2] = (struct network_layer){
        .op = NETWORK_ADD, .inputs = {1, 2}, .channels = 3, .relu = true};
    run_op(layers, 3, both, 6, 9, 13, "add");
    layers[2] = (struct network_layer){.op = NETWORK_CONCAT, .inputs = {2, 1}, .channels = 6};
    run_op(layers, 3, both, 6, 9, 13, "concat");
    free(both);
    free(input);
    free(other);
}

/* FIT takes its size from a second value: here the output of a convolution that changes the size by
 * an odd number. */
static void check_fit(uint32_t kernel, uint32_t padding, const char *expected)
{
    float *input = op_values("input");
    struct network_layer layers[2] = {
        {.op = NETWORK_CONV, .channels = 1, .kernel = kernel, .stride = 1, .padding = padding},
        {.op = NETWORK_FIT, .inputs = {0, 1}, .channels = 3},
    };
    layers[0].weights = calloc((size_t)3 * kernel * kernel, sizeof(float));
    layers[0].bias = calloc(1, sizeof(float));
    assert_true(layers[0].weights && layers[0].bias);
    run_op(layers, 2, input, 3, 9, 13, expected);
    free(layers[0].weights);
    free(layers[0].bias);
    free(input);
}

static void test_fit(void **state)
{
    (void)state;
    check_fit(2, 2, "fit_larger");
    check_fit(4, 0, "fit_smaller");
}

/* ---- what a batch may be ---- */

static unsigned ticks;

static void count_tick(void *opaque)
{
    (void)opaque;
    ticks++;
}

static void test_batches_and_refusals(void **state)
{
    (void)state;
    struct network network = network_of(GOLDENS "mateuszbuda.safetensors");
    struct backend_options counted = options;
    counted.tick = count_tick;
    counted.precision = "int8";
    void *instance = NULL;
    char error[256] = "";
    assert_int_equal(backend_reference.create(&network, &counted, &instance, error, sizeof error),
                     -EINVAL);
    assert_non_null(strstr(error, "int8"));
    counted.precision = "f32";
    assert_int_equal(backend_reference.create(&network, &counted, &instance, error, sizeof error),
                     0);
    static uint8_t images[2][3 * 16 * 24];
    static uint8_t labels[2][16 * 24];
    static float logits[2][16 * 24];
    for (size_t i = 0; i < sizeof images[1]; i++)
        images[1][i] = (uint8_t)(i * 37);
    struct backend_batch batch = {.count = 2,
                                  .dtype = UNETSERVE_U8,
                                  .height = 16,
                                  .width = 24,
                                  .inputs = (const void *const[]){images[0], images[1]},
                                  .labels = (uint8_t *const[]){labels[0], labels[1]},
                                  .logits = (float *const[]){logits[0], logits[1]}};
    ticks = 0;
    assert_int_equal(backend_reference.forward(instance, &batch), 0);
    assert_int_equal(ticks, 2 * network.layer_count);
    assert_memory_not_equal(logits[0], logits[1], sizeof logits[0]);
    for (size_t i = 0; i < sizeof labels[0]; i++)
        assert_int_equal(labels[1][i], logits[1][i] > 0.0f);
    batch.height = 20; /* no multiple of 8 */
    assert_int_equal(backend_reference.forward(instance, &batch), -EINVAL);
    batch.height = 16;
    batch.dtype = UNETSERVE_F64;
    assert_int_equal(backend_reference.forward(instance, &batch), -EINVAL);
    backend_reference.destroy(instance);
    network_free(&network);
}

static void test_preprocess(void **state)
{
    (void)state;
    const struct backend_preprocess clipped = {
        .offset = -1000.0f, .scale = 100.0f, .clip = true, .clip_low = -1.0f, .clip_high = 1.0f};
    float out[4];
    backend_preprocess_f32(&clipped, UNETSERVE_U16, (const uint16_t[]){0, 950, 1050, 65535}, 4,
                           out);
    assert_true(out[0] == -1.0f && out[1] == -0.5f && out[2] == 0.5f && out[3] == 1.0f);
    backend_preprocess_f32(&clipped, UNETSERVE_F32, (const float[]){NAN, 1000.0f, -INFINITY, 1e9f},
                           4, out);
    assert_true(isnan(out[0]) && out[1] == 0.0f && out[2] == -1.0f && out[3] == 1.0f);
    const struct backend_preprocess open_ended = {.offset = 1.0f, .scale = 2.0f};
    backend_preprocess_f32(&open_ended, UNETSERVE_I8, (const int8_t[]){-128, -1, 0, 127}, 4, out);
    assert_true(out[0] == -63.5f && out[1] == 0.0f && out[2] == 0.5f && out[3] == 64.0f);
    backend_preprocess_f32(&open_ended, UNETSERVE_I16, (const int16_t[]){-32768, 1, 3, 32767}, 4,
                           out);
    assert_true(out[0] == -16383.5f && out[1] == 1.0f && out[2] == 2.0f && out[3] == 16384.0f);
    backend_preprocess_f32(&open_ended, UNETSERVE_U8, (const uint8_t[]){0, 1, 3, 255}, 4, out);
    assert_true(out[0] == 0.5f && out[1] == 1.0f && out[2] == 2.0f && out[3] == 128.0f);
    /* 1.0, -2.0, the smallest subnormal, infinity */
    backend_preprocess_f32(&open_ended, UNETSERVE_F16,
                           (const uint16_t[]){0x3c00, 0xc000, 0x0001, 0x7c00}, 4, out);
    assert_true(out[0] == 1.0f && out[1] == -0.5f && out[2] == (0x1p-24f + 1.0f) / 2.0f &&
                isinf(out[3]));
}

static void test_backend_list(void **state)
{
    (void)state;
    const struct backend *const *list = backend_list();
    size_t count = 0;
    for (; list[count]; count++)
        assert_ptr_equal(backend_find(list[count]->name), list[count]);
    assert_true(count >= 2);
    assert_ptr_equal(backend_find("reference"), &backend_reference);
    assert_null(backend_find("abacus"));
    const struct backend *best = backend_find("auto");
    char reason[256];
    assert_non_null(best);
    assert_int_equal(best->probe(reason, sizeof reason), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens_of_every_family),
        cmocka_unit_test(test_goldens_in_pth),
        cmocka_unit_test(test_demonstration_scene),
        cmocka_unit_test(test_demonstration_pth),
        cmocka_unit_test_setup_teardown(test_convolutions, open_ops, close_ops),
        cmocka_unit_test_setup_teardown(test_pools_and_upsampling, open_ops, close_ops),
        cmocka_unit_test_setup_teardown(test_two_inputs, open_ops, close_ops),
        cmocka_unit_test_setup_teardown(test_fit, open_ops, close_ops),
        cmocka_unit_test(test_batches_and_refusals),
        cmocka_unit_test(test_preprocess),
        cmocka_unit_test(test_backend_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
