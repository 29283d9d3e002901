/*
 * The oneDNN backend against the reference backend, on small random networks that together have
 * every operation, and its own bookkeeping: shapes that come and go, more of them than it keeps,
 * sizes that do not fit.
 */
#include "networks.h"
#include "workers/backends/backends.h"
#include "workers/backends/onednn/onednn.h"
#include "workers/backends/onednn/onednn_packed.h"

#include <errno.h>
#include <glob.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static const struct backend_preprocess tutorial = {
    .offset = 0, .scale = 10000, .clip = true, .clip_low = 0, .clip_high = 1};

static void *make_with(const struct backend *backend, const struct network *network,
                       const char *precision, const struct backend_preprocess *preprocess,
                       const struct quantise_ranges *ranges)
{
    struct backend_options options = {
        .precision = precision, .threads = 2, .preprocess = *preprocess, .ranges = ranges};
    char error[256] = "";
    void *instance = NULL;
    int code = backend->create(network, &options, &instance, error, sizeof error);
    if (code != 0) {
        print_error("create: %s\n", error);
    }
    assert_int_equal(code, 0);
    return instance;
}

static void *make(const struct backend *backend, const struct network *network,
                  const char *precision, const struct backend_preprocess *preprocess)
{
    return make_with(backend, network, precision, preprocess, NULL);
}

static bool has_vnni(void)
{
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    unsigned wide = (unsigned)dnnl_cpu_isa_avx512_core_vnni;
    unsigned narrow = (unsigned)dnnl_cpu_isa_avx2_vnni;
    return (isa & wide) == wide || (isa & narrow) == narrow;
}

static bool has_bf16(void)
{
    struct onednn_isa isa = onednn_isa_detect();
    unsigned wanted = (unsigned)dnnl_cpu_isa_avx512_core_bf16;
    return ((unsigned)dnnl_get_effective_cpu_isa() & wanted) == wanted &&
           (isa.avx512_bf16 || isa.amx_bf16);
}

static const struct difference most_exact = {.labels = 1e-4, .logits = 1e-4};
static const struct difference most_rounded = {.labels = 0.03, .logits = 0.05};
static const struct difference most_coded = {.labels = 0.15, .logits = 0.1};

/* A batch on the reference, which is what the answers of `instance` are held against. */
static void check_against(void *reference, void *instance, const struct network *network,
                          uint32_t dtype, uint32_t count, uint32_t height, uint32_t width,
                          const struct difference *most)
{
    struct tiles wanted;
    struct tiles got;
    tiles_make(network, dtype, count, height, width, &wanted);
    tiles_make_like(network, &wanted, &got);
    assert_int_equal(backend_find("reference")->forward(reference, &wanted.batch), 0);
    assert_int_equal(backend_onednn.forward(instance, &got.batch), 0);
    struct difference d = compare(&got, wanted.labels, wanted.logits);
    /* Tiles here have a few hundred pixels: one of them may be a draw. */
    double most_labels = most->labels + 1.5 / ((double)got.pixels * count);
    if (d.logits > most->logits || d.labels > most_labels) {
        print_error("%ux%u batch %u: logits off by %g, labels by %g\n", height, width, count,
                    d.logits, d.labels);
    }
    assert_true(d.logits <= most->logits && d.labels <= most_labels);
    tiles_free(&wanted);
    tiles_free(&got);
}

/* Integers of int8 are the reference's, to the bit (test_int8.c); here the layers in float are
 * bf16. */
static void check_int8(const struct network *network, uint32_t dtype, uint32_t count,
                       uint32_t height, uint32_t width, const struct backend_preprocess *preprocess)
{
    struct tiles tiles;
    struct quantise_ranges ranges;
    tiles_make(network, dtype, count, height, width, &tiles);
    ranges_make(network, "reference", preprocess, &tiles.batch, &ranges);
    void *reference = make_with(backend_find("reference"), network, "int8", preprocess, &ranges);
    void *instance = make_with(&backend_onednn, network, "int8", preprocess, &ranges);
    check_against(reference, instance, network, dtype, count, height, width, &most_coded);
    backend_find("reference")->destroy(reference);
    backend_onednn.destroy(instance);
    quantise_ranges_free(&ranges);
    tiles_free(&tiles);
}

static void check_network(struct network *network, const struct size *sizes, size_t size_count,
                          const struct backend_preprocess *preprocess, uint32_t dtype)
{
    void *reference = make(backend_find("reference"), network, "f32", preprocess);
    void *exact = make(&backend_onednn, network, "f32", preprocess);
    void *rounded = has_bf16() ? make(&backend_onednn, network, "bf16", preprocess) : NULL;
    for (size_t i = 0; i < size_count; i++) {
        struct size s = sizes[i];
        check_against(reference, exact, network, dtype, s.count, s.height, s.width, &most_exact);
        if (rounded != NULL) {
            check_against(reference, rounded, network, dtype, s.count, s.height, s.width,
                          &most_rounded);
        }
        if (has_vnni()) {
            check_int8(network, dtype, s.count, s.height, s.width, preprocess);
        }
    }
    backend_find("reference")->destroy(reference);
    backend_onednn.destroy(exact);
    if (rounded != NULL) {
        backend_onednn.destroy(rounded);
    }
    network_free(network);
}

/* ---- tests ---- */

static void transposed_unet_at_any_size(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 16, 16}, {2, 21, 18}, {3, 8, 13}, {1, 5, 7}};
    struct network network;
    two_levels(&network, 12, 8, 11, true);
    check_network(&network, sizes, 4, &plain, UNETSERVE_F32);
    two_levels(&network, 3, 6, 3, false);
    check_network(&network, sizes, 4, &plain, UNETSERVE_F32);
}

static void many_channels_and_many_classes(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 12, 12}, {2, 4, 9}};
    struct network network;
    two_levels(&network, 37, 16, 70, true);
    check_network(&network, sizes, 2, &plain, UNETSERVE_F32);
}

static void one_class_is_a_threshold(void **state)
{
    (void)state;
    static const struct size sizes[] = {{2, 12, 16}};
    struct network network;
    two_levels(&network, 1, 4, 1, true);
    check_network(&network, sizes, 1, &plain, UNETSERVE_F32);
}

static void every_way_to_upsample(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 12, 8}, {2, 2, 6}};
    for (int mode = NETWORK_NEAREST; mode <= NETWORK_BILINEAR_ALIGNED; mode++) {
        struct network network;
        resampled(&network, (enum network_upsample)mode);
        check_network(&network, sizes, 2, &plain, UNETSERVE_F32);
    }
}

static void residual_encoder(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 24, 16}, {2, 8, 8}};
    struct network network;
    residual(&network);
    check_network(&network, sizes, 2, &plain, UNETSERVE_F32);
}

static void odd_networks(void **state)
{
    (void)state;
    static const struct size sizes[] = {{1, 10, 12}, {3, 6, 6}};
    struct network network;
    odd(&network);
    check_network(&network, sizes, 2, &plain, UNETSERVE_F32);
}

static void every_type_of_input(void **state)
{
    (void)state;
    static const struct size sizes[] = {{2, 9, 11}};
    static const uint32_t dtypes[] = {UNETSERVE_U8,  UNETSERVE_I8,  UNETSERVE_U16,
                                      UNETSERVE_I16, UNETSERVE_F16, UNETSERVE_F32};
    struct backend_preprocess bytes = {.offset = 3, .scale = 127, .clip = false};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        struct network network;
        two_levels(&network, 5, 4, 4, true);
        bool words = dtypes[i] == UNETSERVE_U16 || dtypes[i] == UNETSERVE_I16;
        check_network(&network, sizes, 1, words ? &tutorial : &bytes, dtypes[i]);
    }
}

static void check_same(void *instance, struct tiles *tiles, struct tiles *again)
{
    for (uint32_t i = 0; i < tiles->batch.count; i++) {
        again->inputs[i] = tiles->inputs[i];
    }
    assert_int_equal(backend_onednn.forward(instance, &again->batch), 0);
    for (uint32_t i = 0; i < tiles->batch.count; i++) {
        assert_memory_equal(tiles->labels[i], again->labels[i], tiles->pixels);
        assert_memory_equal(tiles->logits[i], again->logits[i],
                            tiles->pixels * tiles->classes * sizeof(float));
        again->inputs[i] = NULL;
    }
}

/* The same tiles give the same bits, whatever shapes ran meanwhile: some that are kept, then more
 * than are kept. */
static void shapes_come_and_go(void **state)
{
    (void)state;
    struct network network;
    two_levels(&network, 3, 4, 4, true);
    void *instance = make(&backend_onednn, &network, "auto", &plain);
    struct tiles first;
    struct tiles again;
    tiles_make(&network, UNETSERVE_F32, 2, 12, 20, &first);
    tiles_make(&network, UNETSERVE_F32, 2, 12, 20, &again);
    for (uint32_t i = 0; i < first.batch.count; i++) {
        free((void *)(uintptr_t)again.inputs[i]);
    }
    assert_int_equal(backend_onednn.forward(instance, &first.batch), 0);
    check_same(instance, &first, &again);
    for (uint32_t i = 0; i < ONEDNN_PLANS + 3; i++) {
        struct tiles other;
        tiles_make(&network, UNETSERVE_F32, 1 + i % 3, 4 + i * 3, 40 - i, &other);
        assert_int_equal(backend_onednn.forward(instance, &other.batch), 0);
        tiles_free(&other);
        if (i < 3) {
            check_same(instance, &first, &again);
        }
    }
    check_same(instance, &first, &again);
    tiles_free(&first);
    tiles_free(&again);
    backend_onednn.destroy(instance);
    network_free(&network);
}

static void answers_are_optional(void **state)
{
    (void)state;
    struct network network;
    two_levels(&network, 3, 4, 4, true);
    void *instance = make(&backend_onednn, &network, "f32", &plain);
    struct tiles tiles;
    tiles_make(&network, UNETSERVE_F32, 1, 8, 8, &tiles);
    assert_int_equal(backend_onednn.forward(instance, &tiles.batch), 0);
    uint8_t before[64];
    memcpy(before, tiles.labels[0], sizeof before);
    memset(tiles.labels[0], 255, sizeof before);
    tiles.batch.logits = NULL;
    assert_int_equal(backend_onednn.forward(instance, &tiles.batch), 0);
    assert_memory_equal(before, tiles.labels[0], sizeof before);
    tiles.batch.logits = tiles.logits;
    tiles.batch.labels = NULL;
    assert_int_equal(backend_onednn.forward(instance, &tiles.batch), 0);
    tiles_free(&tiles);
    backend_onednn.destroy(instance);
    network_free(&network);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct network network;
    resampled(&network, NETWORK_NEAREST);
    void *instance = make(&backend_onednn, &network, "f32", &plain);
    static const struct backend_batch bad[] = {
        {.count = 1, .dtype = UNETSERVE_F32, .height = 7, .width = 8},
        {.count = 1, .dtype = UNETSERVE_F32, .height = 8, .width = 0},
        {.count = 0, .dtype = UNETSERVE_F32, .height = 8, .width = 8},
        {.count = 1, .dtype = UNETSERVE_F64, .height = 8, .width = 8},
        {.count = 1, .dtype = 99, .height = 8, .width = 8},
        {.count = 1, .dtype = UNETSERVE_U8, .height = 65536, .width = 65536},
        {.count = UINT32_MAX, .dtype = UNETSERVE_U8, .height = 8, .width = 8},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(backend_onednn.forward(instance, &bad[i]), -EINVAL);
    }
    struct tiles good;
    tiles_make(&network, UNETSERVE_F32, 1, 8, 8, &good);
    assert_int_equal(backend_onednn.forward(instance, &good.batch), 0);
    tiles_free(&good);
    backend_onednn.destroy(instance);
    network_free(&network);
}

/* Tiles that are too large to run together run one after the other, as if they had come so. */
static void large_batches_run_in_parts(void **state)
{
    (void)state;
    enum { MOST_BYTES = 50 << 20, SIZE = 512 };
    struct network network;
    start(&network, 2, 1);
    uint32_t wide = conv_with(&network, 0, 16, 1, 1, 0, true);
    head(&network, conv_with(&network, wide, 16, 1, 1, 0, true), 3);
    struct backend_options options = {.precision = "f32", .threads = 1, .preprocess = plain};
    char error[256] = "";
    void *instance = NULL;
    assert_int_equal(backend_onednn.create(&network, &options, &instance, error, sizeof error), 0);
    struct tiles tiles;
    tiles_make(&network, UNETSERVE_U8, 3, SIZE, SIZE, &tiles);
    tiles.batch.labels = NULL;
    assert_int_equal(backend_onednn.forward(instance, &tiles.batch), 0);
    assert_in_range(onednn_arena_bytes(instance), MOST_BYTES / 2 + 1, MOST_BYTES);
    size_t bytes = tiles.pixels * tiles.classes * sizeof(float);
    float *alone = (float *)malloc(bytes);
    assert_non_null(alone);
    for (uint32_t i = 0; i < 3; i++) {
        struct backend_batch one = tiles.batch;
        one.count = 1;
        one.inputs = &tiles.inputs[i];
        one.logits = &alone;
        assert_int_equal(backend_onednn.forward(instance, &one), 0);
        assert_memory_equal(alone, tiles.logits[i], bytes);
    }
    free(alone);
    tiles_free(&tiles);
    backend_onednn.destroy(instance);
    network_free(&network);
}

/* A huge image's memory goes when others have run for a while, and it comes again to the bit. */
static void memory_of_a_huge_image_goes(void **state)
{
    (void)state;
    struct network network;
    two_levels(&network, 3, 4, 4, true);
    void *instance = make(&backend_onednn, &network, "auto", &plain);
    struct tiles huge;
    struct tiles again;
    struct tiles usual;
    tiles_make(&network, UNETSERVE_U8, 1, 256, 256, &huge);
    tiles_make_like(&network, &huge, &again);
    tiles_make(&network, UNETSERVE_U8, 1, 32, 32, &usual);
    assert_int_equal(backend_onednn.forward(instance, &huge.batch), 0);
    size_t most = onednn_arena_bytes(instance);
    for (uint32_t i = 0; i < ONEDNN_LATELY - 1; i++) {
        assert_int_equal(backend_onednn.forward(instance, &usual.batch), 0);
        assert_int_equal(onednn_arena_bytes(instance), most);
    }
    assert_int_equal(backend_onednn.forward(instance, &usual.batch), 0);
    assert_true(onednn_arena_bytes(instance) < most / 4);
    assert_int_equal(backend_onednn.forward(instance, &again.batch), 0);
    assert_int_equal(onednn_arena_bytes(instance), most);
    assert_memory_equal(again.labels[0], huge.labels[0], huge.pixels);
    tiles_free(&huge);
    tiles_free(&again);
    tiles_free(&usual);
    backend_onednn.destroy(instance);
    network_free(&network);
}

static void check_refused(const struct network *network, const char *precision, uint32_t threads)
{
    struct backend_options options = {
        .precision = precision, .threads = threads, .preprocess = plain};
    char error[256] = "";
    void *instance = &error;
    assert_int_equal(backend_onednn.create(network, &options, &instance, error, sizeof error),
                     -EINVAL);
    assert_true(error[0] != '\0');
    assert_ptr_equal(instance, &error);
}

/* What is told about a precision before there is a network. */
static void check_named(const char *precision, bool there)
{
    char error[256] = "";
    int code = backend_onednn.check_precision(precision, error, sizeof error);
    assert_int_equal(code, there ? 0 : -EINVAL);
    assert_int_equal(error[0] == '\0', there);
}

static void precisions(void **state)
{
    (void)state;
    struct network network;
    resampled(&network, NETWORK_NEAREST);
    check_refused(&network, "int8", 1);
    check_refused(&network, "f16", 1);
    check_refused(&network, "", 1);
    check_refused(&network, "f32", 0);
    void *instance = make(&backend_onednn, &network, "auto", &plain);
    assert_string_equal(backend_onednn.precision(instance), has_bf16() ? "bf16" : "f32");
    backend_onednn.destroy(instance);
    if (!has_bf16()) {
        check_refused(&network, "bf16", 1);
    }
    check_named("auto", true);
    check_named("f32", true);
    check_named("bf16", has_bf16());
    check_named("int8", has_vnni());
    check_named("f16", false);
    network.layers[3].channels = 3; /* not what its input has */
    check_refused(&network, "f32", 1);
    network_free(&network);
}

static void blocked(const struct onednn_weights *weights, dnnl_format_tag_t tag,
                    dnnl_memory_desc_t *out)
{
    assert_int_equal(dnnl_memory_desc_init_by_tag(out, 4, weights->dims, dnnl_f32, tag),
                     dnnl_success);
}

/* Two forms of the weights are kept, a third waits for room; none loses a value on the way from one
 * to the next. */
static void forms_of_weights(void **state)
{
    (void)state;
    struct onednn_machine machine = {0};
    assert_int_equal(dnnl_engine_create(&machine.engine, dnnl_cpu, 0), dnnl_success);
    assert_int_equal(dnnl_stream_create(&machine.stream, machine.engine, dnnl_stream_default_flags),
                     dnnl_success);
    struct network network;
    start(&network, 5, 1);
    conv(&network, 0, 7);
    struct onednn_weights weights;
    assert_int_equal(onednn_weights_create(&machine, &network.layers[0], ONEDNN_F32, 5, &weights),
                     0);
    dnnl_memory_desc_t first;
    dnnl_memory_desc_t second;
    dnnl_memory_desc_t third;
    blocked(&weights, dnnl_OIhw8i8o, &first);
    blocked(&weights, dnnl_OIhw16i16o, &second);
    blocked(&weights, dnnl_oihw, &third);
    dnnl_memory_t memory[4] = {NULL};
    assert_int_equal(onednn_weights_get(&machine, &weights, &first, &memory[0]), 0);
    assert_int_equal(onednn_weights_get(&machine, &weights, &second, &memory[1]), 0);
    assert_int_equal(onednn_weights_get(&machine, &weights, &first, &memory[2]), 0);
    assert_ptr_equal(memory[0], memory[2]);
    assert_ptr_not_equal(memory[0], memory[1]);
    assert_int_equal(onednn_weights_get(&machine, &weights, &third, &memory[3]), -EBUSY);
    onednn_weights_drop_second(&weights);
    assert_int_equal(onednn_weights_get(&machine, &weights, &third, &memory[3]), 0);
    void *data = NULL;
    assert_int_equal(dnnl_memory_get_data_handle(memory[3], &data), dnnl_success);
    assert_memory_equal(data, network.layers[0].weights, sizeof(float) * 5 * 7 * 9);
    onednn_weights_free(&weights);
    dnnl_stream_destroy(machine.stream);
    dnnl_engine_destroy(machine.engine);
    network_free(&network);
}

/* ---- packed weights that instances share ---- */

/* A cache directory, the network that is loaded when the file is no good, and what happened. */
struct sharing {
    char directory[32];
    const struct quantise_ranges *ranges;
    const struct network *network;
    unsigned loads;
    unsigned warnings;
    unsigned notes;
    unsigned winograd; /* notes that layers are */
    const char *convolution;
    char last[512];
};

static int load_shared(void *opaque, const struct network **out, char *error, size_t error_size)
{
    (void)error;
    (void)error_size;
    struct sharing *sharing = (struct sharing *)opaque;
    sharing->loads++;
    *out = sharing->network;
    return 0;
}

static void log_shared(void *opaque, int level, const char *text)
{
    struct sharing *sharing = (struct sharing *)opaque;
    if (strstr(text, "Winograd") != NULL) {
        sharing->winograd++;
        return;
    }
    *(level < 6 ? &sharing->warnings : &sharing->notes) += 1;
    strncpy(sharing->last, text, sizeof sharing->last - 1);
}

/* An instance for the plan of sharing->network, which itself has no weights; and its logits. */
static void run_shared(struct sharing *sharing, const char *precision, struct tiles *tiles)
{
    static struct network_layer layers[64];
    struct network bare = *sharing->network;
    for (size_t i = 0; i < bare.layer_count; i++) {
        layers[i] = sharing->network->layers[i];
        layers[i].weights = NULL;
        layers[i].bias = NULL;
    }
    bare.layers = layers;
    struct backend_options options = {.precision = precision,
                                      .convolution = sharing->convolution,
                                      .threads = 2,
                                      .preprocess = plain,
                                      .opaque = sharing,
                                      .cache_dir = sharing->directory,
                                      .weights_id = {1, 2},
                                      .load = load_shared,
                                      .ranges = sharing->ranges,
                                      .log = log_shared};
    char error[256] = "";
    void *instance = NULL;
    sharing->loads = sharing->warnings = sharing->notes = sharing->winograd = 0;
    assert_int_equal(backend_onednn.create(&bare, &options, &instance, error, sizeof error), 0);
    assert_int_equal(backend_onednn.forward(instance, &tiles->batch), 0);
    backend_onednn.destroy(instance);
}

static void damage(const char *directory)
{
    glob_t found;
    char pattern[64];
    snprintf(pattern, sizeof pattern, "%s/packed-*", directory);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    FILE *file = fopen(found.gl_pathv[0], "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 5000, SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, 5000, SEEK_SET), 0);
    assert_true(fputc(byte ^ 1, file) != EOF);
    fclose(file);
    globfree(&found);
}

static bool has_winograd(void)
{
    struct onednn_isa isa = onednn_isa_detect();
    return onednn_winograd_select(&isa) != NULL;
}

static void check_sharing(const char *precision, const char *convolution)
{
    struct sharing sharing = {.directory = "/tmp/test_onednn-XXXXXX", .convolution = convolution};
    struct network network;
    two_levels(&network, 5, 12, 7, true); /* counts of channels that are padded */
    sharing.network = &network;
    assert_non_null(mkdtemp(sharing.directory));
    struct tiles tiles;
    struct tiles shared;
    tiles_make(&network, UNETSERVE_F32, 2, 20, 24, &tiles);
    shared = tiles;
    for (uint32_t i = 0; i < 2; i++) {
        shared.logits[i] = (float *)malloc(tiles.pixels * tiles.classes * sizeof(float));
        assert_non_null(shared.logits[i]);
    }
    shared.batch.logits = shared.logits;
    struct quantise_ranges ranges;
    ranges_make(&network, "reference", &plain, &tiles.batch, &ranges);
    sharing.ranges = strcmp(precision, "int8") == 0 ? &ranges : NULL;
    struct backend_options options = {.precision = precision,
                                      .convolution = convolution,
                                      .threads = 2,
                                      .preprocess = plain,
                                      .ranges = sharing.ranges};
    char error[256] = "";
    void *instance = NULL;
    assert_int_equal(backend_onednn.create(&network, &options, &instance, error, sizeof error), 0);
    assert_int_equal(backend_onednn.forward(instance, &tiles.batch), 0);
    backend_onednn.destroy(instance);
    bool winograd = strcmp(convolution, "winograd") == 0 && has_winograd();
    /* packed, then mapped, damaged and packed again, mapped, and no cache at all */
    static const unsigned loads[] = {1, 0, 1, 0, 1};
    static const unsigned warnings[] = {0, 0, 1, 0, 1};
    static const unsigned notes[] = {2, 1, 2, 1, 0};
    for (size_t step = 0; step < 5; step++) {
        if (step == 2) {
            damage(sharing.directory);
        } else if (step == 4) {
            assert_int_equal(chmod(sharing.directory, 0777), 0);
        }
        run_shared(&sharing, precision, &shared);
        assert_int_equal(sharing.loads, loads[step]);
        assert_int_equal(sharing.warnings, warnings[step]);
        assert_int_equal(sharing.notes, notes[step]);
        assert_int_equal(sharing.winograd, winograd ? 1 : 0);
        assert_non_null(strstr(sharing.last, step == 4 ? "somebody else" : "mapped from"));
        for (uint32_t i = 0; i < 2; i++) {
            assert_memory_equal(tiles.logits[i], shared.logits[i],
                                tiles.pixels * tiles.classes * sizeof(float));
            memset(shared.logits[i], 0, tiles.pixels * tiles.classes * sizeof(float));
        }
    }
    free(shared.logits[0]);
    free(shared.logits[1]);
    tiles_free(&tiles);
    quantise_ranges_free(&ranges);
    network_free(&network);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", sharing.directory);
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c): a name of our own making */
}

static void packed_weights_are_shared(void **state)
{
    (void)state;
    check_sharing("f32", "direct");
    check_sharing("f32", "winograd");
    check_sharing("auto", "direct");
    if (has_vnni()) {
        check_sharing("int8", "auto");
    }
}

/* Whatever decides about the packed weights is in their key. */
static void the_key_tells_networks_apart(void **state)
{
    (void)state;
    struct network network;
    two_levels(&network, 3, 4, 4, true);
    struct backend_options options = {.threads = 2, .weights_id = {1, 2}};
    struct packed_hash keys[10];
    keys[0] = onednn_packed_key(&network, &options, ONEDNN_F32, NULL, 256);
    struct packed_hash again = onednn_packed_key(&network, &options, ONEDNN_F32, NULL, 256);
    assert_memory_equal(&keys[0], &again, sizeof again);
    keys[1] = onednn_packed_key(&network, &options, ONEDNN_BF16, NULL, 256);
    keys[2] = onednn_packed_key(&network, &options, ONEDNN_F32, NULL, 128);
    options.threads = 3;
    keys[3] = onednn_packed_key(&network, &options, ONEDNN_F32, NULL, 256);
    options.threads = 2;
    options.weights_id.high = 3;
    keys[4] = onednn_packed_key(&network, &options, ONEDNN_F32, NULL, 256);
    options.weights_id.high = 2;
    network.layers[1].relu = false;
    keys[5] = onednn_packed_key(&network, &options, ONEDNN_F32, NULL, 256);
    network.layers[1].relu = true;
    network.in_channels = 4;
    keys[6] = onednn_packed_key(&network, &options, ONEDNN_F32, NULL, 256);
    network.in_channels = 3;
    struct quantise_range some[64] = {{.high = 1.0F, .known = true}};
    struct quantise_ranges ranges = {.layer_count = network.layer_count, .layers = some};
    quantise_ranges_seal(&ranges);
    options.ranges = &ranges;
    keys[7] = onednn_packed_key(&network, &options, ONEDNN_F32, NULL, 256);
    keys[8] = onednn_packed_key(&network, &options, ONEDNN_F32, &onednn_winograd_avx2, 256);
    keys[9] = onednn_packed_key(&network, &options, ONEDNN_F32, &onednn_winograd_avx512, 256);
    for (size_t i = 0; i < 10; i++) {
        for (size_t k = 0; k < i; k++) {
            assert_memory_not_equal(&keys[i], &keys[k], sizeof keys[i]);
        }
    }
    network_free(&network);
}

static void count_tick(void *opaque)
{
    ++*(size_t *)opaque;
}

static void ticks_at_every_layer(void **state)
{
    (void)state;
    struct network network;
    two_levels(&network, 3, 4, 4, true);
    size_t ticks = 0;
    struct backend_options options = {.precision = "auto",
                                      .threads = 1,
                                      .preprocess = plain,
                                      .tick = count_tick,
                                      .opaque = &ticks};
    char error[256] = "";
    void *instance = NULL;
    assert_int_equal(backend_onednn.create(&network, &options, &instance, error, sizeof error), 0);
    struct tiles tiles;
    tiles_make(&network, UNETSERVE_F32, 1, 8, 8, &tiles);
    assert_int_equal(backend_onednn.forward(instance, &tiles.batch), 0);
    assert_true(ticks >= network.layer_count);
    tiles_free(&tiles);
    backend_onednn.destroy(instance);
    network_free(&network);
}

/* Codes of pixels with so many channels, next to each other or with a gap between them. */
static void check_encoding(const struct onednn_rows *base, const struct onednn_rows *best,
                           const float *floats, size_t channels, size_t gap)
{
    static float numbers[3][64];
    static uint8_t coded[2][64 * 80];
    static uint16_t words[64 * 80];
    static float decoded[2][64];
    size_t pitch = channels + gap;
    size_t pixels = 37;
    assert_true(channels <= 64 && pitch * pixels <= 64 * 40);
    for (size_t i = 0; i < channels; i++) {
        numbers[0][i] = 0.01F + 0.001F * (float)i;
        numbers[1][i] = 1.0F / numbers[0][i];
        numbers[2][i] = (float)(i % 3 * 60);
    }
    struct onednn_codes codes = {numbers[0], numbers[1], numbers[2], channels};
    memset(coded, 0, sizeof coded);
    base->encode_f32(&codes, coded[0], pitch, floats, pitch, pixels);
    best->encode_f32(&codes, coded[1], pitch, floats, pitch, pixels);
    assert_memory_equal(coded[0], coded[1], sizeof coded[0]);
    for (size_t p = 0; p < pixels; p++) {
        for (size_t c = 0; c < channels; c++) {
            float code = rintf(floats[p * pitch + c] * numbers[1][c] + numbers[2][c]);
            code = fminf(fmaxf(code, 0.0F), 255.0F);
            assert_int_equal(coded[0][p * pitch + c], (int)code);
        }
    }
    base->decode(&codes, decoded[0], coded[0]);
    best->decode(&codes, decoded[1], coded[0]);
    assert_memory_equal(decoded[0], decoded[1], channels * sizeof(float));
    base->narrow_bf16(words, floats, pitch * pixels);
    base->encode_bf16(&codes, coded[0], pitch, words, pitch, pixels);
    best->encode_bf16(&codes, coded[1], pitch, words, pitch, pixels);
    assert_memory_equal(coded[0], coded[1], sizeof coded[0]);
}

static void check_codes(const struct onednn_rows *base, const struct onednn_rows *best,
                        const float *floats)
{
    static const size_t channels[] = {1, 3, 8, 16, 24, 32, 48, 64};
    static uint8_t bytes[2][4][64];
    static const float weight[4] = {0.1F, 0.2F, 0.3F, 0.4F};
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++) {
        check_encoding(base, best, floats, channels[i], 0);
        check_encoding(base, best, floats, channels[i], 5);
        fill_random(bytes[0], sizeof bytes[0], UNETSERVE_U8);
        memcpy(bytes[1], bytes[0], sizeof bytes[0]);
        for (size_t k = 0; k < 2; k++) {
            const struct onednn_rows *rows = k == 0 ? base : best;
            const void *corners[4] = {bytes[k][0], bytes[k][1], bytes[k][0] + 8, bytes[k][1] + 8};
            struct onednn_pool_row row = {.top = bytes[k][0],
                                          .bottom = bytes[k][1],
                                          .in_pitch = channels[i] < 32 ? channels[i] : 32,
                                          .out = bytes[k][2],
                                          .out_pitch = 32,
                                          .channels = channels[i] < 32 ? channels[i] : 32,
                                          .pixels = 1};
            rows->pool_u8(&row);
            rows->blend_u8(bytes[k][2] + 32, corners, weight, 31);
            rows->max_u8(bytes[k][3], bytes[k][1], 61);
        }
        assert_memory_equal(bytes[0], bytes[1], sizeof bytes[0]);
    }
}

/* All builds of the inner loops that this processor can run agree to the last bit where they only
 * move or compare, and within a rounding where they add. */
static void the_builds_agree(void **state)
{
    (void)state;
    const struct onednn_rows *best = onednn_rows_select(onednn_isa_detect().vector);
    const struct onednn_rows *base = &onednn_rows_baseline;
    static uint16_t words[2][2][64 * 40];
    static float floats[64 * 40];
    fill_random(words[0][0], 2 * 64 * 40, UNETSERVE_F16);
    memcpy(words[1], words[0], sizeof words[0]);
    for (size_t i = 0; i < 64 * 40; i++) {
        floats[i] = random_float();
    }
    base->max_bf16(words[0][0], words[0][1], 64 * 40 - 3);
    best->max_bf16(words[1][0], words[1][1], 64 * 40 - 3);
    assert_memory_equal(words[0], words[1], sizeof words[0]);
    check_codes(base, best, floats);
    for (size_t pixels = 1; pixels <= 64; pixels += 9) {
        uint8_t labels[2][64] = {{0}};
        base->argmax(floats, 40, 37, pixels, labels[0]);
        best->argmax(floats, 40, 37, pixels, labels[1]);
        assert_memory_equal(labels[0], labels[1], 64);
        for (size_t p = 0; p < pixels; p++) {
            const float *at = floats + p * 40;
            size_t top = 0;
            for (size_t c = 1; c < 37; c++) {
                top = at[c] > at[top] ? c : top;
            }
            assert_int_equal(labels[0][p], top);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transposed_unet_at_any_size),
        cmocka_unit_test(many_channels_and_many_classes),
        cmocka_unit_test(one_class_is_a_threshold),
        cmocka_unit_test(every_way_to_upsample),
        cmocka_unit_test(residual_encoder),
        cmocka_unit_test(odd_networks),
        cmocka_unit_test(every_type_of_input),
        cmocka_unit_test(shapes_come_and_go),
        cmocka_unit_test(memory_of_a_huge_image_goes),
        cmocka_unit_test(answers_are_optional),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(large_batches_run_in_parts),
        cmocka_unit_test(precisions),
        cmocka_unit_test(forms_of_weights),
        cmocka_unit_test(packed_weights_are_shared),
        cmocka_unit_test(the_key_tells_networks_apart),
        cmocka_unit_test(ticks_at_every_layer),
        cmocka_unit_test(the_builds_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
