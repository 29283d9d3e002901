/*
 * The AMX backend on a software model of the tile instructions: the model itself, instruction by
 * instruction, and whole networks against the reference backend.
 */
#include "networks.h"
#include "tests/amx/amx_model.h"
#include "workers/backends/amx/amx.h"
#include "workers/backends/backends.h"
#include "workers/backends/onednn/onednn.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* In place of the processor's own. */
const struct amx_kernels *amx_kernels_here(char *error, size_t error_size)
{
    (void)error;
    (void)error_size;
    return &amx_modelled;
}

/* ---- the model ---- */

static struct amx_config config_of(size_t rows, size_t pairs)
{
    struct amx_config config = {.palette = 1};
    for (size_t i = 0; i < 3; i++) {
        config.rows[i] = (uint8_t)(i == 2 ? pairs : rows);
        config.row_bytes[i] = (uint16_t)(i == 1 ? 4 * pairs : 64);
    }
    return config;
}

static void configurations_that_a_processor_refuses(void **state)
{
    (void)state;
    struct amx_config good = config_of(16, 16);
    struct amx_config bad[6];
    for (size_t i = 0; i < 6; i++) {
        bad[i] = good;
    }
    bad[0].palette = 2;
    bad[1].reserved[3] = 1;
    bad[2].rows[0] = 17;
    bad[3].row_bytes[1] = 65;
    bad[4].rows[2] = 0;
    bad[5].rows[8] = bad[5].row_bytes[8] = 4;
    for (size_t i = 0; i < 6; i++) {
        amx_fault fault = amx_model_config(&bad[i]);
        assert_non_null(fault);
        assert_memory_equal(fault, "#GP", 3);
    }
    assert_null(amx_model_config(&good));
    amx_model_release();
}

static void instructions_that_a_processor_refuses(void **state)
{
    (void)state;
    static float memory[256];
    struct amx_config config = config_of(16, 16);
    assert_memory_equal(amx_model_load(0, memory, 64), "#UD", 3);
    assert_memory_equal(amx_model_sum(0, 1, 2), "#UD", 3);
    assert_null(amx_model_config(&config));
    assert_memory_equal(amx_model_load(3, memory, 64), "#UD", 3);
    assert_memory_equal(amx_model_store(8, memory, 64), "#UD", 3);
    assert_memory_equal(amx_model_zero(5), "#UD", 3);
    assert_memory_equal(amx_model_sum(0, 1, 1), "#UD", 3);
    assert_memory_equal(amx_model_sum(1, 1, 2), "#UD", 3);
    assert_null(amx_model_sum(0, 1, 2));
    config.rows[2] = 15; /* one pair less than the windows have */
    assert_null(amx_model_config(&config));
    assert_memory_equal(amx_model_sum(0, 1, 2), "#UD", 3);
    config.palette = 0;
    assert_null(amx_model_config(&config));
    assert_memory_equal(amx_model_zero(0), "#UD", 3);
}

/* What is not configured of a tile is neither read nor written, and rows lie a step apart. */
static void tiles_move_what_is_configured(void **state)
{
    (void)state;
    uint8_t from[8 * 100];
    uint8_t to[8 * 80];
    struct amx_config config = config_of(5, 3);
    for (size_t i = 0; i < sizeof from; i++) {
        from[i] = (uint8_t)(i * 37 + 11);
    }
    memset(to, 9, sizeof to);
    assert_null(amx_model_config(&config));
    assert_null(amx_model_load(1, from, 100));
    assert_null(amx_model_store(1, to, 80));
    for (size_t r = 0; r < 8; r++) {
        for (size_t i = 0; i < 80; i++) {
            uint8_t wanted = r < 5 && i < 12 ? from[r * 100 + i] : 9;
            assert_int_equal(to[r * 80 + i], wanted);
        }
    }
    assert_null(amx_model_load(1, from, 0)); /* one row for all */
    assert_null(amx_model_store(1, to, 80));
    assert_memory_equal(to + 4 * 80, from, 12);
    assert_null(amx_model_zero(1));
    assert_null(amx_model_store(1, to, 80));
    assert_int_equal(to[0], 0);
    amx_model_release();
}

/* One sum of one pair: before + (a b + c d). */
static float sum_of(float before, float a, float b, float c, float d)
{
    float factors[4] = {a, c, b, d};
    uint16_t halves[4];
    struct amx_config config = {.palette = 1, .rows = {1, 1, 1}, .row_bytes = {4, 4, 4}};
    float after = 0;
    for (size_t i = 0; i < 4; i++) {
        uint32_t bits = 0;
        memcpy(&bits, &factors[i], sizeof bits);
        halves[i] = (uint16_t)(bits >> 16);
    }
    assert_null(amx_model_config(&config));
    assert_null(amx_model_load(0, &before, 4));
    assert_null(amx_model_load(1, &halves[0], 4));
    assert_null(amx_model_load(2, &halves[2], 4));
    assert_null(amx_model_sum(0, 1, 2));
    assert_null(amx_model_store(0, &after, 4));
    amx_model_release();
    return after;
}

static void sums_round_as_the_instruction_does(void **state)
{
    (void)state;
    assert_float_equal(sum_of(1, 2, 3, 4, 5), 27, 0);
    /* The pair is summed before it meets what was there: 2^24 + (1 + 1), not (2^24 + 1) + 1. */
    assert_float_equal(sum_of(16777216.0F, 1, 1, 1, 1), 16777218.0F, 0);
    /* To nearest even. */
    assert_float_equal(sum_of(16777216.0F, 1, 1, 0, 0), 16777216.0F, 0);
    assert_float_equal(sum_of(16777218.0F, 1, 1, 0, 0), 16777220.0F, 0);
    /* Denormal numbers are zeros: before, as factors, and as results. */
    assert_float_equal(sum_of(0x1p-130F, 1, 1, 0, 0), 1, 0);
    assert_true(sum_of(0x1p-130F, 0, 0, 0, 0) == 0);
    assert_true(sum_of(0, 0x1p-130F, 0x1p100F, 0, 0) == 0);
    assert_true(sum_of(0, 0x1p-70F, 0x1p-70F, 0, 0) == 0);
    assert_true(sum_of(0, 0x1p-63F, 0x1p-63F, 0, 0) == 0x1p-126F);
    assert_true(isinf(sum_of(0, 0x1p100F, 0x1p100F, 0, 0)));
    assert_true(isnan(sum_of(0, INFINITY, 0, 0, 0)));
}

/* Words of four unsigned bytes with four signed ones; 32 bits wrap around. */
static void whole_sums(void **state)
{
    (void)state;
    static const uint8_t a[2][8] = {{1, 2, 3, 4, 255, 0, 0, 255}, {255, 255, 255, 255, 0, 0, 0, 7}};
    static const int8_t b[2][12] = {{1, -1, 2, -2, 127, 127, 127, 127, 0, 0, 0, 0},
                                    {-128, 9, 9, 1, 0, 0, 0, -5, 0, 0, 0, 0}};
    static const int32_t before[2][3] = {{5, 0, -7}, {0, INT32_MAX, 0}};
    struct amx_config config = {.palette = 1, .rows = {2, 2, 2}, .row_bytes = {12, 8, 12}};
    int32_t after[2][3] = {{0}};
    assert_null(amx_model_config(&config));
    assert_null(amx_model_load(0, before, 12));
    assert_null(amx_model_load(1, a, 8));
    assert_null(amx_model_load(2, b, 12));
    assert_null(amx_model_sum_codes(0, 1, 2));
    assert_null(amx_model_store(0, after, 12));
    assert_int_equal(after[0][0], 5 + (1 - 2 + 6 - 8) + 255 * (1 - 128));
    assert_int_equal(after[0][1], 127 * 10 - 5 * 255);
    assert_int_equal(after[0][2], -7);
    assert_int_equal(after[1][0], 7);
    assert_int_equal(after[1][1], INT32_MIN + (127 * 4 * 255 - 35 - 1));
    assert_int_equal(after[1][2], 0);
    assert_memory_equal(amx_model_sum_codes(0, 1, 1), "#UD", 3);
    config.rows[2] = 1;
    assert_null(amx_model_config(&config));
    assert_memory_equal(amx_model_sum_codes(0, 1, 2), "#UD", 3);
    amx_model_release();
}

static void sum_of_numbers_alone(const struct amx_block *block)
{
    struct amx_block numbers = *block;
    numbers.scale = NULL;
    amx_modelled.sum(&numbers);
}

static void sum_and_forget(const struct amx_block *block)
{
    amx_modelled.sum(block);
    block->sums[17] += 1.0F;
}

/* What a processor is asked before its tiles are used. */
static void wrong_sums_are_noticed(void **state)
{
    (void)state;
    struct amx_kernels kernels = amx_modelled;
    assert_true(amx_kernels_are_right(&kernels));
    kernels.sum = sum_of_numbers_alone;
    assert_false(amx_kernels_are_right(&kernels));
    kernels.sum = sum_and_forget;
    assert_false(amx_kernels_are_right(&kernels));
}

/* ---- networks ---- */

static void *make(const struct backend *backend, const struct network *network, uint32_t threads,
                  const char *precision)
{
    struct backend_options options = {
        .precision = precision, .threads = threads, .preprocess = plain};
    char error[256] = "";
    void *instance = NULL;
    int code = backend->create(network, &options, &instance, error, sizeof error);
    if (code != 0) {
        print_error("create: %s\n", error);
    }
    assert_int_equal(code, 0);
    return instance;
}

/* Labels and logits against the reference's, in f32: what bfloat16 makes of them. */
static void check_size(void *reference, void *instance, const struct network *network,
                       const struct size *size)
{
    struct tiles wanted;
    struct tiles got;
    tiles_make(network, UNETSERVE_F32, size->count, size->height, size->width, &wanted);
    tiles_make_like(network, &wanted, &got);
    assert_int_equal(backend_find("reference")->forward(reference, &wanted.batch), 0);
    assert_int_equal(backend_amx.forward(instance, &got.batch), 0);
    struct difference d = compare(&got, wanted.labels, wanted.logits);
    double most_labels = 0.03 + 1.5 / ((double)got.pixels * size->count);
    if (d.logits > 0.05 || d.labels > most_labels) {
        print_error("%u x %u, batch %u: logits off by %g, labels by %g\n", size->height,
                    size->width, size->count, d.logits, d.labels);
    }
    assert_true(d.logits <= 0.05 && d.labels <= most_labels);
    tiles_free(&wanted);
    tiles_free(&got);
}

static void check_network(struct network *network, const struct size *sizes, size_t count)
{
    void *reference = make(backend_find("reference"), network, 1, "f32");
    void *instance = make(&backend_amx, network, 2, "auto");
    for (size_t i = 0; i < count; i++) {
        check_size(reference, instance, network, &sizes[i]);
    }
    backend_amx.destroy(instance);
    backend_find("reference")->destroy(reference);
    network_free(network);
}

static void transposed_unet_at_any_size(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 24, 20}, {2, 9, 18}, {1, 5, 7}};
    struct network network;
    two_levels(&network, 12, 16, 11, true);
    check_network(&network, sizes, 3);
    two_levels(&network, 3, 6, 3, false);
    check_network(&network, sizes, 3);
}

static void many_channels_and_many_classes(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 12, 16}, {2, 4, 9}};
    struct network network;
    two_levels(&network, 37, 16, 70, true);
    check_network(&network, sizes, 2);
    two_levels(&network, 1, 4, 1, true);
    check_network(&network, sizes, 2);
}

static void every_way_to_upsample(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 12, 8}, {2, 2, 6}};
    for (int mode = NETWORK_NEAREST; mode <= NETWORK_BILINEAR_ALIGNED; mode++) {
        struct network network;
        resampled(&network, (enum network_upsample)mode);
        check_network(&network, sizes, 2);
    }
}

static void residual_encoder(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 24, 16}, {2, 8, 8}};
    struct network network;
    residual(&network);
    check_network(&network, sizes, 2);
}

static void odd_networks(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 10, 12}, {3, 6, 6}};
    struct network network;
    odd(&network);
    check_network(&network, sizes, 2);
}

static void every_type_of_input(void **state)
{
    (void)state;
    static const uint32_t dtypes[] = {UNETSERVE_U8, UNETSERVE_I8, UNETSERVE_U16, UNETSERVE_I16,
                                      UNETSERVE_F16};
    struct network network;
    two_levels(&network, 5, 4, 4, true);
    void *reference = make(backend_find("reference"), &network, 1, "f32");
    void *instance = make(&backend_amx, &network, 1, "auto");
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        struct tiles wanted;
        struct tiles got;
        tiles_make(&network, dtypes[i], 2, 9, 11, &wanted);
        tiles_make_like(&network, &wanted, &got);
        assert_int_equal(backend_find("reference")->forward(reference, &wanted.batch), 0);
        assert_int_equal(backend_amx.forward(instance, &got.batch), 0);
        assert_true(compare(&got, wanted.labels, wanted.logits).logits <= 0.05);
        tiles_free(&wanted);
        tiles_free(&got);
    }
    backend_find("reference")->destroy(reference);
    backend_amx.destroy(instance);
    network_free(&network);
}

/* Labels alone and logits alone are what they are together. */
static void answers_are_optional(void **state)
{
    (void)state;
    struct network network;
    two_levels(&network, 3, 4, 5, true);
    void *instance = make(&backend_amx, &network, 2, "auto");
    struct tiles both;
    struct tiles one;
    tiles_make(&network, UNETSERVE_F32, 2, 6, 19, &both);
    tiles_make_like(&network, &both, &one);
    assert_int_equal(backend_amx.forward(instance, &both.batch), 0);
    one.batch.logits = NULL;
    assert_int_equal(backend_amx.forward(instance, &one.batch), 0);
    one.batch.labels = NULL;
    one.batch.logits = one.logits;
    assert_int_equal(backend_amx.forward(instance, &one.batch), 0);
    for (size_t i = 0; i < 2; i++) {
        assert_memory_equal(both.labels[i], one.labels[i], both.pixels);
        assert_memory_equal(both.logits[i], one.logits[i],
                            both.pixels * both.classes * sizeof(float));
    }
    tiles_free(&both);
    tiles_free(&one);
    backend_amx.destroy(instance);
    network_free(&network);
}

static void what_does_not_suit_is_left_to_others(void **state)
{
    (void)state;
    /* int8 without ranges */
    static const char *const precisions[] = {"f32", "int8", "f16"};
    struct network network;
    resampled(&network, NETWORK_NEAREST);
    for (size_t i = 0; i < 3; i++) {
        struct backend_options options = {
            .precision = precisions[i], .threads = 1, .preprocess = plain};
        char error[256] = "";
        void *instance = NULL;
        assert_int_equal(backend_amx.create(&network, &options, &instance, error, sizeof error),
                         -EINVAL);
        assert_true(error[0] != '\0' && instance == NULL);
        bool suits = backend_choose("auto", &network, precisions[i]) == &backend_amx;
        assert_true(suits == (strcmp(precisions[i], "int8") == 0));
    }
    assert_ptr_equal(backend_choose("auto", &network, "auto"), &backend_amx);
    assert_ptr_equal(backend_choose("onednn", &network, "auto"), &backend_onednn);
    network.layers[0].kernel = 17;
    assert_ptr_not_equal(backend_choose("auto", &network, "auto"), &backend_amx);
    network.layers[0].kernel = 3;
    network_free(&network);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct network network;
    resampled(&network, NETWORK_NEAREST);
    void *instance = make(&backend_amx, &network, 1, "bf16");
    static const struct backend_batch bad[] = {
        {.count = 1, .dtype = UNETSERVE_F32, .height = 7, .width = 8},
        {.count = 1, .dtype = UNETSERVE_F32, .height = 8, .width = 0},
        {.count = 0, .dtype = UNETSERVE_F32, .height = 8, .width = 8},
        {.count = 1, .dtype = UNETSERVE_F64, .height = 8, .width = 8},
        {.count = 1, .dtype = UNETSERVE_U8, .height = 65536, .width = 65536},
        {.count = UINT32_MAX, .dtype = UNETSERVE_U8, .height = 8, .width = 8},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(backend_amx.forward(instance, &bad[i]), -EINVAL);
    }
    backend_amx.destroy(instance);
    network.layers[3].channels = 3; /* not what its input has */
    instance = make(&backend_amx, &network, 1, "bf16");
    static const struct backend_batch good = {
        .count = 1, .dtype = UNETSERVE_U8, .height = 8, .width = 8};
    assert_int_equal(backend_amx.forward(instance, &good), -EINVAL);
    backend_amx.destroy(instance);
    network_free(&network);
}

/* ---- to the bit ---- */

/* Then there are no numbers left in its memory, if it begins with none. */
static void run_with_nothing(void *instance, const struct network *network, const struct size *size)
{
    struct tiles tiles;
    tiles_make(network, UNETSERVE_F32, size->count, size->height, size->width, &tiles);
    make_whole(&tiles, network, NAN);
    assert_int_equal(backend_amx.forward(instance, &tiles.batch), 0);
    tiles_free(&tiles);
}

static void check_exact_size(void *reference, void *instance, const struct network *network,
                             const struct size *size)
{
    struct tiles wanted;
    struct tiles got;
    tiles_make(network, UNETSERVE_F32, size->count, size->height, size->width, &wanted);
    make_whole(&wanted, network, 0);
    tiles_make_like(network, &wanted, &got);
    run_with_nothing(instance, network, size);
    assert_int_equal(backend_find("reference")->forward(reference, &wanted.batch), 0);
    assert_int_equal(backend_amx.forward(instance, &got.batch), 0);
    for (uint32_t i = 0; i < size->count; i++) {
        for (size_t k = 0; k < got.pixels * got.classes; k++) {
            if (got.logits[i][k] != wanted.logits[i][k]) {
                print_error("%u x %u, tile %u, logit %zu: %g, not %g\n", size->height, size->width,
                            i, k, (double)got.logits[i][k], (double)wanted.logits[i][k]);
            }
            assert_true(got.logits[i][k] == wanted.logits[i][k]);
        }
        assert_memory_equal(got.labels[i], wanted.labels[i], got.pixels);
    }
    tiles_free(&wanted);
    tiles_free(&got);
}

static void check_exact(struct network *network, const struct size *sizes, size_t count,
                        uint32_t most_threads)
{
    for (size_t i = 0; i < network->layer_count; i++) {
        make_exact_layer(network, i);
    }
    void *reference = make(backend_find("reference"), network, 1, "f32");
    for (uint32_t threads = 1; threads <= most_threads; threads += 2) {
        void *instance = make(&backend_amx, network, threads, "bf16");
        for (size_t i = 0; i < count; i++) {
            check_exact_size(reference, instance, network, &sizes[i]);
        }
        backend_amx.destroy(instance);
    }
    backend_find("reference")->destroy(reference);
    network_free(network);
}

static void exact_unets(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 64, 4}, {2, 51, 17}, {3, 8, 13}, {1, 5, 7}, {1, 99, 4}};
    struct network network;
    two_levels(&network, 3, 7, 20, true);
    check_exact(&network, sizes, 5, 3);
    two_levels(&network, 12, 16, 1, false);
    check_exact(&network, sizes, 5, 3);
}

static void exact_odd_networks(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 24, 8}, {2, 8, 8}};
    struct network network;
    residual(&network);
    check_exact(&network, sizes, 2, 3);
    odd(&network);
    check_exact(&network, sizes, 2, 3);
    resampled(&network, NETWORK_NEAREST);
    check_exact(&network, sizes, 2, 3);
}

/* More weights than a core's cache takes: they are gone through in pieces. */
static void exact_with_many_weights(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 3, 3}};
    struct network network;
    start(&network, 16, 1);
    uint32_t wide = conv(&network, 0, 256);
    head(&network, conv(&network, conv(&network, wide, 256), 18), 21);
    check_exact(&network, sizes, 1, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configurations_that_a_processor_refuses),
        cmocka_unit_test(instructions_that_a_processor_refuses),
        cmocka_unit_test(tiles_move_what_is_configured),
        cmocka_unit_test(sums_round_as_the_instruction_does),
        cmocka_unit_test(whole_sums),
        cmocka_unit_test(wrong_sums_are_noticed),
        cmocka_unit_test(transposed_unet_at_any_size),
        cmocka_unit_test(many_channels_and_many_classes),
        cmocka_unit_test(every_way_to_upsample),
        cmocka_unit_test(residual_encoder),
        cmocka_unit_test(odd_networks),
        cmocka_unit_test(every_type_of_input),
        cmocka_unit_test(answers_are_optional),
        cmocka_unit_test(what_does_not_suit_is_left_to_others),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(exact_unets),
        cmocka_unit_test(exact_odd_networks),
        cmocka_unit_test(exact_with_many_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
