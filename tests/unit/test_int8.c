/*
 * Precision int8: what quantise.h decides about values and weights, the file that ranges come from,
 * and the oneDNN backend against the reference backend, which both sum the same integers. Here
 * oneDNN is kept from bfloat16, so that the layers in float agree too; with it, see test_onednn.c.
 */
#include "networks.h"
#include "workers/backends/backends.h"
#include "workers/backends/onednn/onednn.h"
#include "workers/models/unet/quantise_file.h"

#include <errno.h>
#include <stdio.h>

/* A code that one backend rounds up and the other down, where float sums fell between two. */
#define MOST_LOGITS  0.05
#define MOST_AVERAGE 0.004

/* ---- the plan ---- */

static void set_ranges(const struct network *network, float low, float high,
                       struct quantise_ranges *out)
{
    *out = (struct quantise_ranges){.layer_count = network->layer_count};
    out->layers = (struct quantise_range *)calloc(network->layer_count, sizeof *out->layers);
    assert_non_null(out->layers);
    for (size_t i = 0; i < network->layer_count; i++) {
        out->layers[i] = (struct quantise_range){.low = low, .high = high, .known = true};
    }
    quantise_ranges_seal(out);
}

static void the_first_and_what_is_kept_stay_float(void **state)
{
    (void)state;
    struct network network;
    struct quantise_ranges ranges;
    struct quantise_plan plan;
    two_levels(&network, 3, 4, 5, true);
    set_ranges(&network, -1.0F, 3.0F, &ranges);
    ranges.layers[network.layer_count - 1].keep = true;
    assert_int_equal(quantise_plan_create(&network, &ranges, &plan), 0);
    assert_false(plan.values[0].coded);
    assert_false(quantise_layer_is_integer(&network, &plan, 0));
    assert_false(quantise_layer_is_integer(&network, &plan, network.layer_count - 1));
    size_t integers = 0;
    size_t convolutions = 0;
    for (size_t i = 0; i < network.layer_count; i++) {
        convolutions += network.layers[i].weights != NULL;
        integers += quantise_layer_is_integer(&network, &plan, i);
    }
    assert_int_equal(integers, convolutions - 2);
    quantise_plan_free(&plan);
    for (size_t i = 0; i < network.layer_count; i++) {
        ranges.layers[i].known = false;
    }
    assert_int_equal(quantise_plan_create(&network, &ranges, &plan), 0);
    for (size_t i = 0; i < plan.value_count; i++) {
        assert_false(plan.values[i].coded);
    }
    quantise_plan_free(&plan);
    ranges.layer_count--;
    assert_int_equal(quantise_plan_create(&network, &ranges, &plan), -EINVAL);
    quantise_ranges_free(&ranges);
    network_free(&network);
}

/* The halves of a concatenation keep what they are coded with; where one has negative numbers, the
 * border that its convolution reads is coded too. */
static void halves_keep_their_codes(void **state)
{
    (void)state;
    struct network network;
    struct quantise_ranges ranges;
    struct quantise_plan plan;
    start(&network, 3, 2);
    uint32_t skip = conv(&network, 0, 4);
    uint32_t up = conv_up(&network, conv(&network, pool_with(&network, skip, 2, 2, 0), 6), 5);
    uint32_t both = pair(&network, NETWORK_CONCAT, skip, up);
    head(&network, conv(&network, both, 4), 3);
    set_ranges(&network, -1.0F, 4.1F, &ranges);
    ranges.layers[skip - 1].high = 510.0F;
    assert_int_equal(quantise_plan_create(&network, &ranges, &plan), 0);
    const struct quantise_value *joined = &plan.values[both];
    assert_true(joined->coded);
    assert_int_equal(joined->channels, 9);
    assert_int_equal(joined->border, 1);
    assert_int_equal(plan.values[skip].border, 0);
    assert_float_equal(joined->scale[3], 2.0F, 1e-6F);
    assert_float_equal(joined->zero[3], 0.0F, 0.0F); /* its convolution ends in a ReLU */
    assert_float_equal(joined->scale[4], 0.02F, 1e-6F);
    assert_float_equal(joined->zero[4], 50.0F, 0.0F);
    assert_float_equal(joined->steps[4], 50.0F, 1e-3F);
    quantise_plan_free(&plan);
    quantise_ranges_free(&ranges);
    network_free(&network);
}

/* A convolution without ReLU, read by a padded one: it would have to write into a border. */
static void what_has_no_form_stays_float(void **state)
{
    (void)state;
    struct network network;
    struct quantise_ranges ranges;
    struct quantise_plan plan;
    start(&network, 3, 1);
    uint32_t first = conv(&network, 0, 4);
    uint32_t bare = conv_with(&network, first, 4, 3, 1, 1, false);
    uint32_t point = conv_with(&network, conv(&network, bare, 4), 4, 1, 1, 0, false);
    head(&network, point, 3);
    set_ranges(&network, -1.0F, 1.0F, &ranges);
    assert_int_equal(quantise_plan_create(&network, &ranges, &plan), 0);
    assert_true(plan.values[first].coded);
    assert_false(plan.values[bare].coded);
    assert_true(plan.values[point].coded); /* without padding it needs no border */
    assert_int_equal(plan.values[point].border, 0);
    quantise_plan_free(&plan);
    quantise_ranges_free(&ranges);
    network_free(&network);
}

/* Integers times scales are the weights again, to half a step. */
static void weights_become_integers(void **state)
{
    (void)state;
    struct network network;
    struct quantise_ranges ranges;
    struct quantise_plan plan;
    struct quantise_conv integers;
    start(&network, 3, 1);
    uint32_t first = conv(&network, 0, 4);
    uint32_t up = conv_up(&network, first, 5);
    head(&network, up, 2);
    set_ranges(&network, -1.0F, 2.0F, &ranges);
    assert_int_equal(quantise_plan_create(&network, &ranges, &plan), 0);
    assert_true(quantise_layer_is_integer(&network, &plan, up - 1));
    assert_int_equal(quantise_conv_create(&network, &plan, up - 1, &integers), 0);
    assert_int_equal(integers.outputs, 20);
    assert_int_equal(integers.inputs, 4);
    float in = plan.values[first].scale[0];
    float out = plan.values[up].scale[0];
    for (size_t o = 0; o < 20; o++) {
        float largest = 0;
        float step = integers.scale[o] * out; /* of weights times the input's scale */
        for (size_t i = 0; i < 4; i++) {
            float whole = (float)integers.weights[o * 4 + i];
            float weight = network.layers[up - 1].weights[(i * 5 + o % 5) * 4 + o / 5];
            assert_true(fabsf(whole * step - weight * in) <= step * 0.501F);
            largest = fmaxf(largest, fabsf(whole));
        }
        assert_float_equal(largest, 127.0F, 0.0F);
        float bias = integers.bias[o] * step - plan.values[up].zero[0] * out;
        assert_float_equal(bias, network.layers[up - 1].bias[o % 5], 1e-4F);
    }
    quantise_conv_free(&integers);
    quantise_plan_free(&plan);
    quantise_ranges_free(&ranges);
    network_free(&network);
}

/* Each channel has its own steps, and the means reach what reads the value: of a pooled one those
 * that are known of it. */
static void channels_have_their_own(void **state)
{
    (void)state;
    struct network network;
    struct quantise_ranges ranges;
    struct quantise_plan plan;
    start(&network, 3, 1);
    uint32_t first = conv(&network, 0, 2);
    uint32_t pooled = pool_with(&network, first, 2, 2, 0);
    head(&network, conv(&network, pooled, 2), 2);
    set_ranges(&network, 0.0F, 510.0F, &ranges);
    const struct quantise_channel own[] = {{0.0F, 255.0F, 10.0F}, {0.0F, 51.0F, 4.0F}};
    const struct quantise_channel after[] = {{0.0F, 9.0F, 30.0F}, {0.0F, 9.0F, 5.0F}};
    ranges.layers[first - 1].channels = own;
    ranges.layers[first - 1].channel_count = 2;
    struct packed_hash before = ranges.id;
    quantise_ranges_seal(&ranges);
    assert_memory_not_equal(&before, &ranges.id, sizeof before);
    assert_int_equal(quantise_plan_create(&network, &ranges, &plan), 0);
    assert_float_equal(plan.values[pooled].scale[0], 1.0F, 1e-6F);
    assert_float_equal(plan.values[pooled].scale[1], 0.2F, 1e-6F);
    assert_float_equal(plan.values[pooled].mean[1], 20.0F, 1e-4F);
    quantise_plan_free(&plan);
    ranges.layers[pooled - 1].channels = after;
    ranges.layers[pooled - 1].channel_count = 2;
    assert_int_equal(quantise_plan_create(&network, &ranges, &plan), 0);
    assert_float_equal(plan.values[pooled].scale[1], 0.2F, 1e-6F);
    assert_float_equal(plan.values[pooled].mean[0], 30.0F, 1e-4F);
    assert_float_equal(plan.values[pooled].mean[1], 25.0F, 1e-4F);
    quantise_plan_free(&plan);
    ranges.layers[first - 1].channel_count = 1;
    assert_int_equal(quantise_plan_create(&network, &ranges, &plan), -EINVAL);
    quantise_ranges_free(&ranges);
    network_free(&network);
}

/* What rounding takes away: of a kernel half of one at most, and an input that is its mean
 * everywhere gives what the exact weights give. */
static void rounding_makes_up_for_itself(void **state)
{
    (void)state;
    struct network network;
    struct quantise_ranges ranges;
    struct quantise_plan plan;
    struct quantise_conv integers;
    start(&network, 3, 1);
    uint32_t first = conv(&network, 0, 5);
    uint32_t second = conv(&network, first, 7);
    head(&network, second, 2);
    set_ranges(&network, 0.0F, 255.0F, &ranges); /* steps of 1 */
    struct quantise_channel means[5];
    for (size_t i = 0; i < 5; i++) {
        means[i] = (struct quantise_channel){0.0F, 255.0F, 3.0F + 7.0F * (float)i};
    }
    ranges.layers[first - 1].channels = means;
    ranges.layers[first - 1].channel_count = 5;
    assert_int_equal(quantise_plan_create(&network, &ranges, &plan), 0);
    assert_int_equal(quantise_conv_create(&network, &plan, second - 1, &integers), 0);
    const struct network_layer *layer = &network.layers[second - 1];
    for (size_t o = 0; o < 7; o++) {
        double wanted = layer->bias[o];
        double got = integers.bias[o];
        for (size_t i = 0; i < 5; i++) {
            double exact = 0;
            double whole = 0;
            for (size_t k = 0; k < 9; k++) {
                exact += layer->weights[(o * 5 + i) * 9 + k];
                whole += integers.weights[(o * 5 + i) * 9 + k];
            }
            assert_true(fabs(exact / integers.scale[o] - whole) <= 0.5001);
            wanted += exact * means[i].mean;
            got += whole * means[i].mean;
        }
        assert_float_equal(got * integers.scale[o], wanted, 1e-3 * (1 + fabs(wanted)));
    }
    quantise_conv_free(&integers);
    quantise_plan_free(&plan);
    quantise_ranges_free(&ranges);
    network_free(&network);
}

/* ---- the file ---- */

static const char good_file[] =
    "{\"format\": 1, \"weights\": \"00000000000000020000000000000001\", \"method\": \"mse\", "
    "\"layers\": [{\"layer\": 0, \"name\": \"a\", \"low\": 0, \"high\": 1.5},"
    " {\"layer\": 2, \"name\": \"b\", \"low\": -0.5, \"high\": 1, \"float\": true}]}";

static void files_are_read_and_written(void **state)
{
    (void)state;
    struct quantise_file file;
    struct quantise_file again;
    struct quantise_ranges ranges;
    char error[512] = "";
    assert_int_equal(quantise_file_parse(good_file, strlen(good_file), &file, error, sizeof error),
                     0);
    char *text = quantise_file_print(&file);
    assert_non_null(text);
    assert_int_equal(quantise_file_parse(text, strlen(text), &again, error, sizeof error), 0);
    assert_int_equal(again.count, 2);
    assert_memory_equal(again.entries, file.entries, 2 * sizeof *file.entries);
    free(text);
    quantise_file_free(&again);
    struct network network;
    start(&network, 3, 1);
    head(&network, conv(&network, conv(&network, 0, 4), 4), 2);
    snprintf(network.layers[0].name, sizeof network.layers[0].name, "a");
    snprintf(network.layers[2].name, sizeof network.layers[2].name, "b");
    struct packed_hash weights = {1, 2};
    assert_int_equal(quantise_file_bind(&file, &network, &weights, &ranges, error, sizeof error),
                     0);
    assert_true(ranges.layers[0].known && !ranges.layers[1].known && ranges.layers[2].keep);
    quantise_ranges_free(&ranges);
    weights.low = 3;
    assert_int_equal(quantise_file_bind(&file, &network, &weights, &ranges, error, sizeof error),
                     -EBADMSG);
    assert_non_null(strstr(error, "other weights"));
    weights.low = 1;
    network.layers[2].name[0] = 'c';
    assert_int_equal(quantise_file_bind(&file, &network, &weights, &ranges, error, sizeof error),
                     -EBADMSG);
    assert_non_null(strstr(error, "layer 2"));
    quantise_file_free(&file);
    network_free(&network);
}

static void files_have_channels(void **state)
{
    (void)state;
    static const char text[] =
        "{\"format\":1,\"weights\":\"00000000000000020000000000000001\",\"method\":\"channel\","
        "\"layers\":[{\"layer\":0,\"name\":\"a\",\"low\":-1.0,\"high\":1.5,\"channels\":"
        "[[0.0,1.5,0.75],[-1.0,0.5,-0.125]]}]}";
    struct quantise_file file;
    struct quantise_ranges ranges;
    char error[512] = "";
    assert_int_equal(quantise_file_parse(text, strlen(text), &file, error, sizeof error), 0);
    char *printed = quantise_file_print(&file);
    assert_string_equal(printed, text);
    free(printed);
    struct network network;
    start(&network, 3, 1);
    head(&network, conv(&network, 0, 2), 2);
    snprintf(network.layers[0].name, sizeof network.layers[0].name, "a");
    const struct packed_hash weights = {1, 2};
    assert_int_equal(quantise_file_bind(&file, &network, &weights, &ranges, error, sizeof error),
                     0);
    assert_int_equal(ranges.layers[0].channel_count, 2);
    assert_float_equal(ranges.layers[0].channels[1].mean, -0.125F, 0.0F);
    quantise_ranges_free(&ranges);
    network.layers[0].channels = 3;
    assert_int_equal(quantise_file_bind(&file, &network, &weights, &ranges, error, sizeof error),
                     -EBADMSG);
    assert_non_null(strstr(error, "3 channels, not 2"));
    quantise_file_free(&file);
    network.layers[0].channels = 2;
    network_free(&network);
}

static void bad_files_are_refused(void **state)
{
    (void)state;
#define FILE_OF(layers)                                                                            \
    "{\"format\": 1, \"weights\": \"00000000000000020000000000000001\", \"layers\": " layers "}"
#define ENTRY_WITH(channels)                                                                       \
    "[{\"layer\": 0, \"name\": \"a\", \"low\": 0, \"high\": 1, \"channels\": " channels "}]"
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        FILE_OF("[]"),
        FILE_OF("{}"),
        FILE_OF("[1]"),
        FILE_OF("[{\"layer\": 0}]"),
        FILE_OF("[{\"layer\": -1, \"name\": \"a\", \"low\": 0, \"high\": 1}]"),
        FILE_OF("[{\"layer\": 1024, \"name\": \"a\", \"low\": 0, \"high\": 1}]"),
        FILE_OF("[{\"layer\": 0, \"name\": \"a\", \"low\": 1, \"high\": 1}]"),
        FILE_OF("[{\"layer\": 0, \"name\": \"a\", \"low\": 0, \"high\": 1e300}]"),
        FILE_OF("[{\"layer\": 0, \"name\": \"a\", \"low\": 0, \"high\": 1, \"x\": 1}]"),
        FILE_OF(ENTRY_WITH("[]")),
        FILE_OF(ENTRY_WITH("1")),
        FILE_OF(ENTRY_WITH("[[0, 1]]")),
        FILE_OF(ENTRY_WITH("[[0, 1, 0.5, 1]]")),
        FILE_OF(ENTRY_WITH("[[0, 1, 0.5], [0, 1, true]]")),
        FILE_OF(ENTRY_WITH("[[0.5, 1, 0.5]]")),
        FILE_OF(ENTRY_WITH("[[0, 1, 2]]")),
        FILE_OF(ENTRY_WITH("[[0, 1e300, 0]]")),
        FILE_OF("[{\"layer\": 0, \"name\": \"a\", \"low\": 0, \"high\": 1},"
                "{\"layer\": 0, \"name\": \"a\", \"low\": 0, \"high\": 1}]"),
        "{\"format\": 2, \"weights\": \"00000000000000020000000000000001\", \"layers\": "
        "[{\"layer\": 0, \"name\": \"a\", \"low\": 0, \"high\": 1}]}",
        "{\"format\": 1, \"weights\": \"2\", \"layers\": "
        "[{\"layer\": 0, \"name\": \"a\", \"low\": 0, \"high\": 1}]}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct quantise_file file = {.count = 77};
        char error[512] = "";
        int rc = quantise_file_parse(bad[i], strlen(bad[i]), &file, error, sizeof error);
        if (rc != -EBADMSG) {
            print_error("%s: %d\n", bad[i], rc);
        }
        assert_int_equal(rc, -EBADMSG);
        assert_true(error[0] != '\0');
        assert_int_equal(file.count, 77);
    }
}

/* ---- backends ---- */

static bool has_vnni(void)
{
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    unsigned wide = (unsigned)dnnl_cpu_isa_avx512_core_vnni;
    unsigned narrow = (unsigned)dnnl_cpu_isa_avx2_vnni;
    return (isa & wide) == wide || (isa & narrow) == narrow;
}

/* int8 stays near f32, whose ranges it has: were it wrong about a scale or a zero, it would not. */
static void check_near_f32(const struct network *network, void *instance, const struct tiles *exact)
{
    struct tiles coded;
    tiles_make_like(network, exact, &coded);
    assert_int_equal(backend_reference.forward(instance, &coded.batch), 0);
    struct difference d = compare(&coded, exact->labels, exact->logits);
    if (d.average > 0.03) {
        print_error("int8 is off from f32 by %g, %g on average\n", d.logits, d.average);
    }
    assert_true(d.average <= 0.03);
    tiles_free(&coded);
}

static void check_size(const struct network *network, struct size size, uint32_t threads)
{
    struct tiles exact;
    struct tiles wanted;
    struct tiles got;
    struct quantise_ranges ranges;
    void *reference = NULL;
    void *instance = NULL;
    tiles_make(network, UNETSERVE_F32, size.count, size.height, size.width, &exact);
    ranges_make(network, "reference", &plain, &exact.batch, &ranges);
    tiles_make_like(network, &exact, &wanted);
    tiles_make_like(network, &exact, &got);
    assert_int_equal(try_int8(&backend_reference, network, &ranges, 1, &reference), 0);
    assert_string_equal(backend_reference.precision(reference), "int8");
    check_near_f32(network, reference, &exact);
    assert_int_equal(backend_reference.forward(reference, &wanted.batch), 0);
    if (!has_vnni()) {
        assert_int_equal(try_int8(&backend_onednn, network, &ranges, threads, &instance), -EINVAL);
    } else {
        assert_int_equal(try_int8(&backend_onednn, network, &ranges, threads, &instance), 0);
        assert_string_equal(backend_onednn.precision(instance), "int8");
        assert_int_equal(backend_onednn.forward(instance, &got.batch), 0);
        backend_onednn.destroy(instance);
        struct difference d = compare(&got, wanted.labels, wanted.logits);
        if (d.logits > MOST_LOGITS || d.average > MOST_AVERAGE) {
            print_error("%ux%u batch %u: off by %g, %g on average\n", size.height, size.width,
                        size.count, d.logits, d.average);
        }
        assert_true(d.logits <= MOST_LOGITS && d.average <= MOST_AVERAGE);
    }
    backend_reference.destroy(reference);
    quantise_ranges_free(&ranges);
    tiles_free(&exact);
    tiles_free(&wanted);
    tiles_free(&got);
}

static void check_network(struct network *network, const struct size *sizes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        check_size(network, sizes[i], 1 + (uint32_t)i % 2);
    }
    network_free(network);
}

static void transposed_convolutions(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 16, 16}, {2, 21, 18}, {3, 8, 13}, {1, 5, 7}};
    struct network network;
    two_levels(&network, 12, 8, 11, true);
    check_network(&network, sizes, 4);
    two_levels(&network, 3, 16, 3, false);
    check_network(&network, sizes, 4);
    two_levels(&network, 37, 6, 70, true);
    check_network(&network, sizes, 4);
}

static void resampling(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 12, 8}, {2, 2, 6}};
    for (int mode = NETWORK_NEAREST; mode <= NETWORK_BILINEAR_ALIGNED; mode++) {
        struct network network;
        resampled(&network, (enum network_upsample)mode);
        check_network(&network, sizes, 2);
    }
}

static void residual_encoders(void **state)
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

static void without_ranges_it_is_refused(void **state)
{
    (void)state;
    struct network network;
    struct quantise_ranges ranges;
    void *instance = NULL;
    resampled(&network, NETWORK_NEAREST);
    assert_int_equal(try_int8(&backend_reference, &network, NULL, 1, &instance), -EINVAL);
    assert_int_equal(try_int8(&backend_onednn, &network, NULL, 1, &instance), -EINVAL);
    set_ranges(&network, 0, 1, &ranges);
    ranges.layer_count--;
    assert_int_equal(try_int8(&backend_reference, &network, &ranges, 1, &instance), -EINVAL);
    assert_int_equal(try_int8(&backend_onednn, &network, &ranges, 1, &instance), -EINVAL);
    quantise_ranges_free(&ranges);
    network_free(&network);
}

/* Both backends show the same numbers, whatever the order in which they lie. */
static void backends_show_their_layers(void **state)
{
    (void)state;
    struct network network;
    struct quantise_ranges a;
    struct quantise_ranges b;
    struct tiles tiles;
    two_levels(&network, 3, 8, 5, true);
    tiles_make(&network, UNETSERVE_F32, 2, 13, 10, &tiles);
    ranges_make(&network, "reference", &plain, &tiles.batch, &a);
    ranges_make(&network, "onednn", &plain, &tiles.batch, &b);
    for (size_t i = 0; i < network.layer_count; i++) {
        assert_true(a.layers[i].known && b.layers[i].known);
        assert_float_equal(a.layers[i].low, b.layers[i].low, 1e-4F);
        assert_float_equal(a.layers[i].high, b.layers[i].high, 1e-4F);
        for (uint32_t c = 0; c < network.layers[i].channels; c++) {
            assert_float_equal(a.layers[i].channels[c].high, b.layers[i].channels[c].high, 1e-4F);
            assert_float_equal(a.layers[i].channels[c].mean, b.layers[i].channels[c].mean, 1e-3F);
        }
    }
    quantise_ranges_free(&a);
    quantise_ranges_free(&b);
    tiles_free(&tiles);
    network_free(&network);
}

int main(void)
{
    (void)dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_vnni);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_and_what_is_kept_stay_float),
        cmocka_unit_test(halves_keep_their_codes),
        cmocka_unit_test(what_has_no_form_stays_float),
        cmocka_unit_test(weights_become_integers),
        cmocka_unit_test(channels_have_their_own),
        cmocka_unit_test(rounding_makes_up_for_itself),
        cmocka_unit_test(files_are_read_and_written),
        cmocka_unit_test(files_have_channels),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(transposed_convolutions),
        cmocka_unit_test(resampling),
        cmocka_unit_test(residual_encoders),
        cmocka_unit_test(odd_networks),
        cmocka_unit_test(without_ranges_it_is_refused),
        cmocka_unit_test(backends_show_their_layers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
