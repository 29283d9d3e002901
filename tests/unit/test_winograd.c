/*
 * Winograd's convolutions: the kernels of each instruction set that runs here against sums in
 * double precision, at sizes around those of a tile, a block and a register; then whole networks
 * with them against the reference backend.
 */
#include "networks.h"
#include "workers/backends/backends.h"
#include "workers/backends/onednn/onednn.h"
#include "workers/backends/onednn/onednn_parallel.h"

#include <errno.h>
#include <stdio.h>

#define GUARD      64          /* floats behind a buffer that nobody may write to */
#define GUARD_BITS 0x7fedcba9u /* a NaN: who reads it shows it, too */

/* ---- kernels ---- */

struct shape {
    size_t count;
    size_t height;
    size_t width;
    size_t in;
    size_t out;
    size_t in_gap; /* floats behind a pixel's channels */
    size_t out_gap;
    uint32_t threads;
    bool relu;
};

static size_t kernels(const struct onednn_winograd_kernel *out[2])
{
    struct onednn_isa isa = onednn_isa_detect();
    size_t count = 0;
    if (isa.vector >= ONEDNN_VECTOR_AVX2 && isa.fma) {
        out[count++] = &onednn_winograd_avx2;
    }
    if (isa.vector >= ONEDNN_VECTOR_AVX512) {
        out[count++] = &onednn_winograd_avx512;
    }
    return count;
}

static void guard(float *from, size_t count)
{
    uint32_t bits = GUARD_BITS;
    for (size_t i = 0; i < count; i++) {
        memcpy(from + i, &bits, sizeof bits);
    }
}

static bool is_guard(const float *at)
{
    uint32_t bits = 0;
    memcpy(&bits, at, sizeof bits);
    return bits == GUARD_BITS;
}

/* Aligned, and nothing but guards. */
static float *guarded(size_t count)
{
    size_t bytes = ((count + GUARD) * sizeof(float) + 63) / 64 * 64;
    float *made = (float *)aligned_alloc(64, bytes);
    assert_non_null(made);
    guard(made, bytes / sizeof(float));
    return made;
}

/* Pixels with a gap of guards behind each. */
static float *image(size_t pixels, size_t channels, size_t gap)
{
    float *made = guarded(pixels * (channels + gap));
    for (size_t p = 0; p < pixels; p++) {
        for (size_t c = 0; c < channels; c++) {
            made[p * (channels + gap) + c] = random_float();
        }
    }
    return made;
}

/* One output as its definition has it. */
static double output_of(const struct shape *s, const float *in, const float *weights, double bias,
                        size_t pixel, size_t channel)
{
    size_t n = pixel / (s->height * s->width);
    size_t y = pixel / s->width % s->height;
    size_t x = pixel % s->width;
    double sum = bias;
    for (size_t k = 0; k < 9; k++) {
        size_t row = y + k / 3;
        size_t column = x + k % 3;
        if (row < 1 || row > s->height || column < 1 || column > s->width) {
            continue;
        }
        size_t at = (n * s->height + row - 1) * s->width + column - 1;
        for (size_t i = 0; i < s->in; i++) {
            sum += (double)in[at * (s->in + s->in_gap) + i] *
                   (double)weights[(channel * s->in + i) * 9 + k];
        }
    }
    return s->relu && sum < 0 ? 0 : sum;
}

static void check_outputs(const struct shape *s, const float *in, const float *weights,
                          const float *bias, const float *out)
{
    size_t pixels = s->count * s->height * s->width;
    size_t pitch = s->out + s->out_gap;
    double largest = 1;
    double worst = 0;
    for (size_t p = 0; p < pixels; p++) {
        for (size_t c = 0; c < s->out; c++) {
            double wanted = output_of(s, in, weights, (double)bias[c], p, c);
            double off = fabs(wanted - (double)out[p * pitch + c]);
            largest = fmax(largest, fabs(wanted));
            worst = off <= worst ? worst : off; /* a NaN becomes the worst, too */
        }
        for (size_t c = s->out; c < pitch; c++) {
            assert_true(is_guard(out + p * pitch + c));
        }
    }
    if (!(worst <= 2e-5 * largest)) {
        print_error("%zu x %zux%zu, %zu to %zu, %u threads: off by %g of %g\n", s->count, s->height,
                    s->width, s->in, s->out, s->threads, worst, largest);
    }
    assert_true(worst <= 2e-5 * largest);
    for (size_t i = 0; i < GUARD; i++) {
        assert_true(is_guard(out + pixels * pitch + i));
    }
}

static void check_shape(const struct onednn_winograd_kernel *kernel, const struct shape *s)
{
    size_t pixels = s->count * s->height * s->width;
    float *in = image(pixels, s->in, s->in_gap);
    float *out = guarded(pixels * (s->out + s->out_gap));
    float *weights = random_floats(s->out * s->in * 9, 0.3F);
    float *bias = random_floats(s->out, 1.0F);
    size_t floats = onednn_winograd_weights_bytes(kernel, s->in, s->out) / sizeof(float);
    float *packed = guarded(floats);
    struct onednn_winograd_layer layer = {.in = in,
                                          .in_pitch = s->in + s->in_gap,
                                          .in_channels = s->in,
                                          .out = out,
                                          .out_pitch = s->out + s->out_gap,
                                          .out_channels = s->out,
                                          .weights = packed,
                                          .bias = bias,
                                          .count = s->count,
                                          .height = s->height,
                                          .width = s->width,
                                          .relu = s->relu};
    onednn_winograd_pack(kernel, weights, s->in, s->out, s->threads, packed);
    size_t room = onednn_winograd_scratch_bytes(kernel, &layer, s->threads) / sizeof(float);
    float *scratch = guarded(room);
    onednn_winograd_run(kernel, &layer, s->threads, scratch);
    check_outputs(s, in, weights, bias, out);
    for (size_t i = 0; i < GUARD; i++) {
        assert_true(is_guard(scratch + room + i) && is_guard(packed + floats + i));
    }
    free(in);
    free(out);
    free(weights);
    free(bias);
    free(packed);
    free(scratch);
}

static void check_all(const struct shape *shape)
{
    const struct onednn_winograd_kernel *all[2];
    size_t count = kernels(all);
    for (size_t i = 0; i < count; i++) {
        check_shape(all[i], shape);
    }
}

/* Every rest that a tile can leave at the right and at the lower border, and none. */
static void every_border(void **state)
{
    (void)state;
    for (size_t height = 1; height <= 9; height++) {
        for (size_t width = 1; width <= 9; width++) {
            struct shape shape = {.count = 1 + height % 2,
                                  .height = height,
                                  .width = width,
                                  .in = 3,
                                  .out = 5,
                                  .threads = 1,
                                  .relu = width % 2 == 0};
            check_all(&shape);
        }
    }
}

/* Channels around those of a register and of a panel; gaps, as halves of concatenations have. */
static void every_count_of_channels(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 2, 7, 8, 9, 11, 12, 15, 16, 17, 31, 32, 33, 48, 65, 130};
    size_t n = sizeof counts / sizeof *counts;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < 3; k++) {
            struct shape shape = {.count = 1,
                                  .height = 6,
                                  .width = 5 + k,
                                  .in = counts[i],
                                  .out = counts[(i * 5 + k * 7 + 3) % n],
                                  .in_gap = k * counts[i] / 2,
                                  .out_gap = k == 1 ? 3 : k * 8,
                                  .threads = 1,
                                  .relu = k == 2};
            check_all(&shape);
        }
    }
}

/* More tiles than a block has, fewer than threads, and panels that are dealt out instead. */
static void every_way_to_deal_out(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {1, 37, 53, 24, 9, 0, 0, 1, true},   {1, 37, 53, 24, 9, 5, 11, 2, true},
        {3, 37, 53, 13, 40, 0, 1, 3, false}, {2, 16, 16, 66, 64, 0, 64, 3, true},
        {1, 8, 8, 130, 97, 0, 0, 2, false},  {1, 8, 8, 18, 130, 0, 0, 5, true},
        {1, 1, 1, 20, 70, 0, 0, 4, false},   {1, 4, 4, 16, 16, 0, 0, 16, true},
        {5, 4, 4, 16, 16, 16, 16, 4, true},  {1, 61, 64, 8, 8, 0, 0, 7, false}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_all(&shapes[i]);
    }
}

/* What is not a number spreads over its tile, not to others, and ReLU does not hide it. */
static void not_a_number_is_not_hidden(void **state)
{
    (void)state;
    const struct onednn_winograd_kernel *all[2];
    size_t count = kernels(all);
    for (size_t k = 0; k < count; k++) {
        enum { SIDE = 16, IN = 8, OUT = 8 };
        float *in = image(SIDE * SIDE, IN, 0);
        float *weights = random_floats(OUT * IN * 9, 0.3F);
        float *bias = random_floats(OUT, 1.0F);
        float *out = guarded(SIDE * SIDE * OUT);
        float *packed = guarded(onednn_winograd_weights_bytes(all[k], IN, OUT) / sizeof(float));
        in[(size_t)(5 * SIDE + 6) * IN + 3] = nanf("");
        struct onednn_winograd_layer layer = {in,     IN,   IN, out,  OUT,  OUT,
                                              packed, bias, 1,  SIDE, SIDE, true};
        onednn_winograd_pack(all[k], weights, IN, OUT, 1, packed);
        float *scratch = guarded(onednn_winograd_scratch_bytes(all[k], &layer, 1) / sizeof(float));
        onednn_winograd_run(all[k], &layer, 1, scratch);
        for (size_t y = 0; y < SIDE; y++) {
            for (size_t x = 0; x < SIDE; x++) {
                bool near = y >= 4 && y < 8 && x >= 4 && x < 8;
                assert_true(isnan(out[(y * SIDE + x) * OUT]) == near);
            }
        }
        free(in);
        free(weights);
        free(bias);
        free(out);
        free(packed);
        free(scratch);
    }
}

static void what_it_needs_and_where_it_pays(void **state)
{
    (void)state;
    struct onednn_isa isa = {.vector = ONEDNN_VECTOR_BASELINE};
    assert_null(onednn_winograd_select(&isa));
    isa.vector = ONEDNN_VECTOR_AVX2;
    assert_null(onednn_winograd_select(&isa));
    isa.fma = true;
    assert_ptr_equal(onednn_winograd_select(&isa), &onednn_winograd_avx2);
    isa.vector = ONEDNN_VECTOR_AVX512;
    assert_ptr_equal(onednn_winograd_select(&isa), &onednn_winograd_avx512);
    assert_true(onednn_winograd_pays(64, 64, 256, 256));
    assert_true(onednn_winograd_pays(1024, 512, 32, 32));
    assert_true(onednn_winograd_pays(16, 16, 256, 256));
    assert_true(onednn_winograd_pays(64, 8, 29, 29));
    assert_false(onednn_winograd_pays(64, 8, 28, 28));
    assert_false(onednn_winograd_pays(12, 64, 256, 256));
    assert_false(onednn_winograd_pays(64, 4, 256, 256));
    assert_false(onednn_winograd_pays(512, 1024, 16, 16));
}

/* ---- whole networks ---- */

static void *make(const struct backend *backend, const struct network *network,
                  const char *precision, const char *convolution, uint32_t threads)
{
    struct backend_options options = {.precision = precision,
                                      .convolution = convolution,
                                      .threads = threads,
                                      .preprocess = plain};
    char error[256] = "";
    void *instance = NULL;
    assert_int_equal(backend->create(network, &options, &instance, error, sizeof error), 0);
    return instance;
}

/* How many layers of the last run were Winograd's. */
static size_t winograd_layers(const void *instance, const struct network *network)
{
    size_t count = 0;
    for (size_t i = 0; i < network->layer_count; i++) {
        count += strncmp(onednn_implementation(instance, i), "winograd:", 9) == 0 ? 1 : 0;
    }
    return count;
}

static bool has_kernel(void)
{
    struct onednn_isa isa = onednn_isa_detect();
    return onednn_winograd_select(&isa) != NULL;
}

/* Convolutions that qualify: 3 x 3, at stride 1 with padding 1, and wide. */
static size_t wide_layers(const struct network *network)
{
    size_t count = 0;
    for (size_t i = 0; i < network->layer_count && has_kernel(); i++) {
        const struct network_layer *l = &network->layers[i];
        count += l->op == NETWORK_CONV && l->kernel == 3 && l->stride == 1 && l->padding == 1 &&
                         channels_of(network, l->inputs[0]) >= 16 && l->channels >= 8
                     ? 1
                     : 0;
    }
    return count;
}

static void check_network(const struct network *network, uint32_t count, uint32_t height,
                          uint32_t width)
{
    void *reference = make(&backend_reference, network, "f32", NULL, 2);
    void *winograd = make(&backend_onednn, network, "f32", "winograd", 2);
    struct tiles wanted;
    struct tiles got;
    tiles_make(network, UNETSERVE_F32, count, height, width, &wanted);
    tiles_make_like(network, &wanted, &got);
    assert_int_equal(backend_reference.forward(reference, &wanted.batch), 0);
    assert_int_equal(backend_onednn.forward(winograd, &got.batch), 0);
    struct difference d = compare(&got, wanted.labels, wanted.logits);
    assert_true(d.logits <= 1e-4);
    assert_true(d.labels <= 1e-4 + 1.5 / ((double)got.pixels * count));
    assert_int_equal(winograd_layers(winograd, network), wide_layers(network));
    assert_true(!has_kernel() || wide_layers(network) > 0);
    tiles_free(&wanted);
    tiles_free(&got);
    backend_reference.destroy(reference);
    backend_onednn.destroy(winograd);
}

static void whole_networks(void **state)
{
    (void)state;
    struct network network;
    two_levels(&network, 12, 16, 11, true);
    check_network(&network, 1, 37, 53);
    check_network(&network, 3, 20, 24);
    network_free(&network);
    two_levels(&network, 3, 19, 5, false);
    check_network(&network, 2, 31, 16);
    network_free(&network);
    start(&network, 20, 1); /* the first layer and the last, strides and kernels that stay direct */
    uint32_t x = conv(&network, 0, 21);
    x = conv_with(&network, x, 24, 3, 2, 1, true);
    x = conv_with(&network, x, 24, 5, 1, 2, true);
    x = upsample(&network, conv_with(&network, x, 24, 1, 1, 0, true), NETWORK_NEAREST);
    (void)conv_with(&network, x, 9, 3, 1, 1, false);
    check_network(&network, 2, 22, 18);
    network_free(&network);
}

/* Logits of one instance, run tile by tile or all at once. */
static void logits_of(void *instance, const struct tiles *tiles, bool together)
{
    if (together) {
        assert_int_equal(backend_onednn.forward(instance, &tiles->batch), 0);
    }
    for (uint32_t i = 0; i < tiles->batch.count && !together; i++) {
        struct backend_batch one = backend_part(&tiles->batch, i, 1);
        one.logits = &tiles->batch.logits[i];
        one.labels = NULL;
        assert_int_equal(backend_onednn.forward(instance, &one), 0);
    }
}

static bool same_logits(const struct tiles *a, const struct tiles *b)
{
    bool same = true;
    for (uint32_t i = 0; i < a->batch.count; i++) {
        same = same &&
               memcmp(a->logits[i], b->logits[i], a->pixels * a->classes * sizeof(float)) == 0;
    }
    return same;
}

struct choice {
    const char *precision;
    const char *convolution;
    uint32_t threads;
    bool together;
};

/* Whoever runs a tile, and beside what, its numbers are the same; and which layers are Winograd's
 * follows from the two words alone. */
static void choices(void **state)
{
    (void)state;
    static const struct choice all[] = {
        {"f32", "winograd", 2, true},  {"f32", "winograd", 1, false}, {"f32", "winograd", 3, true},
        {"f32", "direct", 2, true},    {"f32", "auto", 2, true},      {"f32", NULL, 2, true},
        {"auto", "direct", 2, true},   {"auto", "auto", 2, true},     {"auto", NULL, 2, true},
        {"auto", "winograd", 2, true},
    };
    struct network network;
    two_levels(&network, 12, 16, 11, true);
    struct tiles winograd;
    struct tiles direct;
    tiles_make(&network, UNETSERVE_F32, 3, 40, 28, &winograd);
    tiles_make_like(&network, &winograd, &direct);
    void *first = make(&backend_onednn, &network, "f32", "direct", 2);
    logits_of(first, &direct, true);
    assert_int_equal(winograd_layers(first, &network), 0);
    backend_onednn.destroy(first);
    first = make(&backend_onednn, &network, "f32", "winograd", 2);
    logits_of(first, &winograd, true);
    backend_onednn.destroy(first);
    assert_true(same_logits(&winograd, &direct) != has_kernel());
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const struct choice *c = &all[i];
        void *instance = make(&backend_onednn, &network, c->precision, c->convolution, c->threads);
        bool f32 = strcmp(backend_onednn.precision(instance), "f32") == 0;
        bool asked = c->convolution != NULL && strcmp(c->convolution, "winograd") == 0;
        bool left = c->convolution == NULL || strcmp(c->convolution, "auto") == 0;
        bool wanted = asked || (left && strcmp(c->precision, "auto") == 0);
        struct tiles got;
        tiles_make_like(&network, &direct, &got);
        logits_of(instance, &got, c->together);
        assert_int_equal(winograd_layers(instance, &network),
                         f32 && wanted ? wide_layers(&network) : 0);
        assert_true(!f32 || same_logits(&got, wanted ? &winograd : &direct));
        tiles_free(&got);
        backend_onednn.destroy(instance);
    }
    tiles_free(&winograd);
    tiles_free(&direct);
    network_free(&network);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_border),
        cmocka_unit_test(every_count_of_channels),
        cmocka_unit_test(every_way_to_deal_out),
        cmocka_unit_test(not_a_number_is_not_hidden),
        cmocka_unit_test(what_it_needs_and_where_it_pays),
        cmocka_unit_test(whole_networks),
        cmocka_unit_test(choices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
