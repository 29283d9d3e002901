/*
 * Precision int8 on AMX, on the software model of the tile instructions: the integers are the
 * reference backend's to the bit. The first layer is in bfloat16 here and in float there, so where
 * bits count its weights and inputs are small whole numbers, which neither rounds.
 */
#include "networks.h"
#include "tests/amx/amx_model.h"
#include "workers/backends/amx/amx.h"
#include "workers/backends/backends.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* In place of the processor's own. */
const struct amx_kernels *amx_kernels_here(char *error, size_t error_size)
{
    (void)error;
    (void)error_size;
    return &amx_modelled;
}

/* Tiles and what int8 makes of them in the reference backend. */
struct case_of {
    struct tiles wanted;
    struct tiles got;
    struct quantise_ranges ranges;
};

static void case_make(const struct network *network, const struct size *size, bool whole,
                      struct case_of *out)
{
    void *reference = NULL;
    tiles_make(network, UNETSERVE_F32, size->count, size->height, size->width, &out->wanted);
    if (whole) {
        make_whole(&out->wanted, network, 0);
    }
    tiles_make_like(network, &out->wanted, &out->got);
    ranges_make(network, "reference", &plain, &out->wanted.batch, &out->ranges);
    assert_int_equal(try_int8(&backend_reference, network, &out->ranges, 1, &reference), 0);
    assert_int_equal(backend_reference.forward(reference, &out->wanted.batch), 0);
    backend_reference.destroy(reference);
}

static void case_free(struct case_of *one)
{
    tiles_free(&one->wanted);
    tiles_free(&one->got);
    quantise_ranges_free(&one->ranges);
}

/* ---- to the bit ---- */

/* Convolutions of the input: they are in float. */
static void make_first_exact(struct network *network)
{
    for (size_t i = 0; i < network->layer_count; i++) {
        if (network->layers[i].inputs[0] == 0) {
            make_exact_layer(network, i);
        }
    }
}

static void check_equal(const struct network *network, const struct case_of *one, uint32_t threads,
                        const struct size *size)
{
    void *instance = NULL;
    assert_int_equal(try_int8(&backend_amx, network, &one->ranges, threads, &instance), 0);
    assert_string_equal(backend_amx.precision(instance), "int8");
    assert_int_equal(backend_amx.forward(instance, &one->got.batch), 0);
    for (uint32_t i = 0; i < size->count; i++) {
        for (size_t k = 0; k < one->got.pixels * one->got.classes; k++) {
            if (one->got.logits[i][k] != one->wanted.logits[i][k]) {
                print_error("%u x %u, tile %u, logit %zu: %g, not %g\n", size->height, size->width,
                            i, k, (double)one->got.logits[i][k], (double)one->wanted.logits[i][k]);
            }
            assert_true(one->got.logits[i][k] == one->wanted.logits[i][k]);
        }
        assert_memory_equal(one->got.labels[i], one->wanted.labels[i], one->got.pixels);
    }
    backend_amx.destroy(instance);
}

static void check_exact(struct network *network, const struct size *sizes, size_t count)
{
    make_first_exact(network);
    for (size_t i = 0; i < count; i++) {
        struct case_of one;
        case_make(network, &sizes[i], true, &one);
        for (uint32_t threads = 1; threads <= 3; threads += 2) {
            check_equal(network, &one, threads, &sizes[i]);
        }
        case_free(&one);
    }
    network_free(network);
}

static void transposed_unets_to_the_bit(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 64, 4}, {2, 51, 17}, {3, 8, 13}, {1, 5, 7}, {1, 99, 4}};
    struct network network;
    two_levels(&network, 3, 7, 20, true);
    check_exact(&network, sizes, 5);
    two_levels(&network, 12, 16, 1, false);
    check_exact(&network, sizes, 5);
    two_levels(&network, 37, 12, 70, true);
    check_exact(&network, sizes, 5);
}

static void resampled_to_the_bit(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 12, 8}, {2, 2, 6}};
    struct network network;
    resampled(&network, NETWORK_NEAREST);
    check_exact(&network, sizes, 2);
}

/* More weights than a core's cache takes: they are gone through in pieces. */
static void many_weights_to_the_bit(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 3, 3}};
    struct network network;
    start(&network, 16, 1);
    uint32_t wide = conv(&network, 0, 256);
    head(&network, conv(&network, conv(&network, wide, 512), 18), 21);
    check_exact(&network, sizes, 1);
}

/* A convolution that is kept in float hands codes on, and takes numbers from one that sums them. */
static void kept_layers_stay_in_float(void **state)
{
    (void)state;
    struct network network;
    struct case_of one;
    void *instance = NULL;
    static const struct size size = {2, 21, 18};
    two_levels(&network, 3, 8, 5, true);
    case_make(&network, &size, false, &one);
    one.ranges.layers[network.layer_count - 1].keep = true;
    one.ranges.layers[1].keep = true;
    quantise_ranges_seal(&one.ranges);
    void *reference = NULL;
    assert_int_equal(try_int8(&backend_reference, &network, &one.ranges, 1, &reference), 0);
    assert_int_equal(backend_reference.forward(reference, &one.wanted.batch), 0);
    assert_int_equal(try_int8(&backend_amx, &network, &one.ranges, 2, &instance), 0);
    assert_int_equal(backend_amx.forward(instance, &one.got.batch), 0);
    struct difference d = compare(&one.got, one.wanted.labels, one.wanted.logits);
    assert_true(d.logits <= 0.1 && d.average <= 0.01);
    backend_reference.destroy(reference);
    backend_amx.destroy(instance);
    case_free(&one);
    network_free(&network);
}

/* ---- near ---- */

static void check_near(struct network *network, const struct size *sizes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct case_of one;
        void *instance = NULL;
        case_make(network, &sizes[i], false, &one);
        assert_int_equal(try_int8(&backend_amx, network, &one.ranges, 2, &instance), 0);
        assert_int_equal(backend_amx.forward(instance, &one.got.batch), 0);
        struct difference d = compare(&one.got, one.wanted.labels, one.wanted.logits);
        if (d.logits > 0.1 || d.average > 0.01) {
            print_error("%u x %u, batch %u: off by %g, %g on average\n", sizes[i].height,
                        sizes[i].width, sizes[i].count, d.logits, d.average);
        }
        assert_true(d.logits <= 0.1 && d.average <= 0.01);
        backend_amx.destroy(instance);
        case_free(&one);
    }
    network_free(network);
}

static void every_network_is_near(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 24, 16}, {2, 8, 8}};
    struct network network;
    for (int mode = NETWORK_NEAREST; mode <= NETWORK_BILINEAR_ALIGNED; mode++) {
        resampled(&network, (enum network_upsample)mode);
        check_near(&network, sizes, 2);
    }
    residual(&network);
    check_near(&network, sizes, 2);
    odd(&network);
    check_near(&network, sizes, 2);
    two_levels(&network, 12, 16, 11, true);
    check_near(&network, sizes, 2);
}

/* ---- ranges and files ---- */

static void without_ranges_it_is_refused(void **state)
{
    (void)state;
    struct network network;
    struct case_of one;
    void *instance = NULL;
    static const struct size size = {1, 8, 8};
    resampled(&network, NETWORK_NEAREST);
    case_make(&network, &size, false, &one);
    assert_int_equal(try_int8(&backend_amx, &network, NULL, 1, &instance), -EINVAL);
    one.ranges.layers[0].channel_count--;
    assert_int_equal(try_int8(&backend_amx, &network, &one.ranges, 1, &instance), -EINVAL);
    one.ranges.layers[0].channel_count++;
    one.ranges.layer_count--;
    assert_int_equal(try_int8(&backend_amx, &network, &one.ranges, 1, &instance), -EINVAL);
    assert_null(instance);
    one.ranges.layer_count++;
    case_free(&one);
    network_free(&network);
}

/* What one instance packed another one maps, and bfloat16 does not take it for its own. */
static void packed_weights_are_shared(void **state)
{
    (void)state;
    static const struct size size = {1, 13, 10};
    char directory[] = "/tmp/unetserve-test-XXXXXX";
    struct network network;
    struct case_of one;
    assert_non_null(mkdtemp(directory));
    two_levels(&network, 5, 8, 4, true);
    make_first_exact(&network);
    case_make(&network, &size, true, &one);
    struct backend_options options = {.precision = "bf16",
                                      .threads = 1,
                                      .preprocess = plain,
                                      .ranges = &one.ranges,
                                      .cache_dir = directory,
                                      .weights_id = {1, 2}};
    for (int i = 0; i < 3; i++) {
        char error[256] = "";
        void *instance = NULL;
        struct network bare;
        assert_int_equal(backend_copy_network(&network, &bare), 0);
        options.precision = i == 0 ? "bf16" : "int8";
        assert_int_equal(
            backend_amx.create(i == 2 ? &bare : &network, &options, &instance, error, sizeof error),
            0); /* the third time there are no weights but those in the file */
        assert_int_equal(backend_amx.forward(instance, &one.got.batch), 0);
        if (i > 0) {
            assert_memory_equal(one.got.logits[0], one.wanted.logits[0],
                                one.got.pixels * one.got.classes * sizeof(float));
        }
        backend_amx.destroy(instance);
        free(bare.layers);
    }
    case_free(&one);
    network_free(&network);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", directory);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transposed_unets_to_the_bit),
        cmocka_unit_test(resampled_to_the_bit),
        cmocka_unit_test(many_weights_to_the_bit),
        cmocka_unit_test(kept_layers_stay_in_float),
        cmocka_unit_test(every_network_is_near),
        cmocka_unit_test(without_ranges_it_is_refused),
        cmocka_unit_test(packed_weights_are_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
