/*
 * How a GPU's steps and arena are planned: a shadow of the arena is written and read step by step,
 * so that a value that is overwritten before its last reader, or read before it was written, is
 * seen; and where channels lie when they are padded.
 */
#include "workers/backends/cudnn/gpu_layout.h"
#include "workers/backends/cudnn/gpu_roofline.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MOST_LAYERS 32

static struct network_layer layers[MOST_LAYERS];
static struct network network;

static void start(uint32_t channels)
{
    memset(layers, 0, sizeof layers);
    network = (struct network){
        .in_channels = channels, .size_multiple = 1, .size_min = 1, .layers = layers};
}

static uint32_t append(enum network_op op, uint32_t first, uint32_t second, uint32_t channels)
{
    assert_true(network.layer_count < MOST_LAYERS);
    layers[network.layer_count++] = (struct network_layer){.op = op,
                                                           .inputs = {first, second},
                                                           .channels = channels,
                                                           .kernel = op == NETWORK_CONV ? 3 : 2,
                                                           .stride = op == NETWORK_CONV ? 1 : 2,
                                                           .padding = op == NETWORK_CONV ? 1 : 0};
    network.classes = channels;
    return (uint32_t)network.layer_count;
}

static uint32_t conv(uint32_t in, uint32_t channels)
{
    return append(NETWORK_CONV, in, 0, channels);
}

/* Two levels of milesial's; which = NETWORK_CONV_UP or NETWORK_UPSAMPLE. */
static void small_unet(enum network_op up, uint32_t base)
{
    start(12);
    uint32_t skip1 = conv(conv(0, base), base);
    uint32_t skip2 = conv(append(NETWORK_MAX_POOL, skip1, 0, base), 2 * base);
    uint32_t deep = conv(append(NETWORK_MAX_POOL, skip2, 0, 2 * base), 4 * base);
    uint32_t wide = append(up, deep, 0, up == NETWORK_CONV_UP ? 2 * base : 4 * base);
    wide = append(NETWORK_FIT, wide, skip2, layers[wide - 1].channels);
    deep = conv(append(NETWORK_CONCAT, skip2, wide, 2 * base + layers[wide - 1].channels), base);
    wide = append(up, deep, 0, base);
    wide = append(NETWORK_FIT, wide, skip1, base);
    deep = append(NETWORK_CONCAT, skip1, wide, 2 * base);
    conv(conv(deep, base), 11);
}

/* ---- the shadow ---- */

/* Of each granule of each pixel: which write put something there last; 0: none. */
static uint32_t *shadow;
static size_t shadow_cells;

static size_t cell(const struct gpu_layout *layout, const struct gpu_view *view, size_t pixel,
                   uint32_t granule)
{
    size_t bytes = view->offset + (pixel * view->pitch + (size_t)granule * GPU_GRANULE) *
                                      gpu_type_bytes(layout->type);
    size_t at = bytes / (GPU_GRANULE * gpu_type_bytes(layout->type));
    assert_true(at < shadow_cells);
    return at;
}

static size_t pixels(const struct gpu_layout *layout, const struct gpu_view *view)
{
    return (size_t)layout->count * view->height * view->width;
}

static void mark(const struct gpu_layout *layout, const struct gpu_view *view, uint32_t mark)
{
    for (size_t p = 0; p < pixels(layout, view); p++) {
        for (uint32_t g = 0; g < view->depth / GPU_GRANULE; g++) {
            shadow[cell(layout, view, p, g)] = mark;
        }
    }
}

/* Whoever wrote a view's granule g wrote it in every pixel; that writer, for g = 0. */
static uint32_t reader_sees(const struct gpu_layout *layout, const struct gpu_view *view,
                            uint32_t granule)
{
    uint32_t seen = shadow[cell(layout, view, 0, granule)];
    assert_int_not_equal(seen, 0);
    for (size_t p = 1; p < pixels(layout, view); p++) {
        assert_int_equal(shadow[cell(layout, view, p, granule)], seen);
    }
    return seen;
}

/* The value whose writing a reader of channel 16 x granule of `value` should see. */
static uint32_t origin(uint32_t value, uint32_t granule)
{
    while (value > 0) {
        const struct network_layer *layer = &layers[value - 1];
        if (layer->op == NETWORK_CONCAT) {
            uint32_t head = gpu_layout_depth(&network, layer->inputs[0]) / GPU_GRANULE;
            bool second = granule >= head;
            granule -= second ? head : 0;
            value = layer->inputs[second];
        } else if (layer->op == NETWORK_FIT) {
            uint32_t ignored = 0;
            uint32_t from[2] = {0, 0};
            uint32_t to[2] = {0, 0};
            assert_int_equal(network_value_shape(&network, layer->inputs[0], network.size_min,
                                                 network.size_min, &ignored, &from[0], &from[1]),
                             0);
            assert_int_equal(network_value_shape(&network, value, network.size_min,
                                                 network.size_min, &ignored, &to[0], &to[1]),
                             0);
            if (from[0] != to[0] || from[1] != to[1]) {
                break;
            }
            value = layer->inputs[0];
        } else {
            break;
        }
    }
    return value + 1;
}

static void check_read(const struct gpu_layout *layout, const struct gpu_view *view, uint32_t value)
{
    for (uint32_t g = 0; g < view->depth / GPU_GRANULE; g++) {
        assert_int_equal(reader_sees(layout, view, g), origin(value, g));
    }
}

static void run_shadow(enum gpu_type type, uint32_t count, uint32_t height)
{
    struct gpu_layout layout;
    network.size_min = height; /* for origin() */
    assert_int_equal(gpu_layout_create(&network, type, count, height, height, &layout), 0);
    shadow_cells = layout.arena_bytes / (GPU_GRANULE * gpu_type_bytes(type));
    shadow = (uint32_t *)calloc(shadow_cells, sizeof *shadow);
    assert_non_null(shadow);
    mark(&layout, &layout.input, 1);
    for (size_t i = 0; i < layout.step_count; i++) {
        const struct gpu_step *step = &layout.steps[i];
        const struct network_layer *layer = &layers[step->layer];
        bool joins = layer->op == NETWORK_CONCAT;
        uint32_t written = step->layer + 2;
        if (step->kind == GPU_STEP_SHUFFLE) {
            assert_int_equal(reader_sees(&layout, &step->in, 0), written);
        } else if (joins) {
            written = reader_sees(&layout, &step->in, 0);
        } else {
            check_read(&layout, &step->in, layer->inputs[0]);
        }
        if (step->kind == GPU_STEP_CONV) {
            assert_int_equal(step->in.pitch, step->in.depth);
            assert_int_equal(step->out.pitch, step->out.depth);
        }
        if (step->copy.depth > 0) {
            mark(&layout, &step->copy, origin(layer->inputs[0], 0));
        }
        mark(&layout, &step->out, written);
    }
    check_read(&layout, &layout.result, (uint32_t)network.layer_count);
    assert_true(layout.arena_bytes <= layout.sum_bytes);
    free(shadow);
    gpu_layout_free(&layout);
}

static void values_live_until_their_last_reader(void **state)
{
    (void)state;
    static const enum network_op ups[] = {NETWORK_CONV_UP, NETWORK_UPSAMPLE};
    for (size_t u = 0; u < 2; u++) {
        for (uint32_t height = 8; height <= 13; height++) {
            small_unet(ups[u], u == 0 ? 20 : 16);
            run_shadow(GPU_BF16, 1 + height % 3, height);
            run_shadow(GPU_F32, 1, height);
        }
    }
}

static void memory_is_used_again(void **state)
{
    (void)state;
    struct gpu_layout layout;
    start(16);
    uint32_t at = 0;
    for (int i = 0; i < 10; i++) {
        at = conv(at, 16);
    }
    assert_int_equal(gpu_layout_create(&network, GPU_BF16, 1, 64, 64, &layout), 0);
    assert_int_equal(layout.arena_bytes, 2 * 64 * 64 * 16 * 2); /* from one to the other and back */
    assert_int_equal(layout.sum_bytes, 11 * 64 * 64 * 16 * 2);
    gpu_layout_free(&layout);
}

static void spare_channels_stay_in_the_middle(void **state)
{
    (void)state;
    start(12);
    uint32_t a = conv(0, 20);
    uint32_t b = conv(0, 3);
    uint32_t joined = append(NETWORK_CONCAT, a, b, 23);
    assert_int_equal(gpu_layout_depth(&network, 0), 16);
    assert_int_equal(gpu_layout_depth(&network, a), 32);
    assert_int_equal(gpu_layout_depth(&network, joined), 48);
    assert_int_equal(gpu_layout_place(&network, joined, 19), 19);
    assert_int_equal(gpu_layout_place(&network, joined, 20), 32);
    assert_int_equal(gpu_layout_place(&network, joined, 22), 34);
    uint32_t twice = append(NETWORK_CONCAT, joined, a, 43);
    assert_int_equal(gpu_layout_place(&network, twice, 21), 33);
    assert_int_equal(gpu_layout_place(&network, twice, 23), 48);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct gpu_layout layout;
    small_unet(NETWORK_CONV_UP, 16);
    assert_int_equal(gpu_layout_create(&network, GPU_BF16, 1, 3, 3, &layout), -EINVAL);
    assert_int_equal(gpu_layout_create(&network, GPU_BF16, 60000, 512, 512, &layout), -EINVAL);
    start(12);
    append(NETWORK_CONCAT, conv(0, 20), conv(0, 3), 23); /* labels need channels side by side */
    assert_int_equal(gpu_layout_create(&network, GPU_BF16, 1, 8, 8, &layout), -EINVAL);
    start(12);
    uint32_t joined = append(NETWORK_CONCAT, conv(0, 20), conv(0, 12), 32);
    append(NETWORK_ADD, joined, conv(0, 32), 32);
    conv((uint32_t)network.layer_count, 2);
    assert_int_equal(gpu_layout_create(&network, GPU_BF16, 1, 8, 8, &layout), -EINVAL);
    start(12);
    append(NETWORK_MAX_POOL, conv(0, 16), 0, 17);
    assert_int_equal(gpu_layout_create(&network, GPU_BF16, 1, 8, 8, &layout), -EINVAL);
}

static void descriptions_of_devices_are_checked(void **state)
{
    (void)state;
    struct gpu_device_facts facts;
    char error[200] = "";
    static const char good[] = "{\"deviceVer\": 900, \"multiProcessorCount\": 132, "
                               "\"smClockRateKHz\": 1980000, \"memClockRateKHz\": 2619000, "
                               "\"deviceName\": \"H100\"}";
    static const char *const bad[] = {
        "", "[]", "{\"deviceVer\": 900}",
        "{\"deviceVer\": -1, \"multiProcessorCount\": 132, \"smClockRateKHz\": 1, "
        "\"memClockRateKHz\": 1, \"deviceName\": \"x\"}",
        "{\"deviceVer\": 900, \"multiProcessorCount\": 0, \"smClockRateKHz\": 1, "
        "\"memClockRateKHz\": 1, \"deviceName\": \"x\"}"};
    assert_int_equal(gpu_device_facts_read(good, strlen(good), &facts, error, sizeof error), 0);
    assert_int_equal(facts.capability, 90);
    struct gpu_peaks peaks = gpu_peaks_of(&facts, GPU_BF16);
    assert_true(peaks.flop_per_s > 0.9e15 && peaks.flop_per_s < 1.2e15);
    assert_true(peaks.bytes_per_s > 3.3e12 && peaks.bytes_per_s < 3.4e12);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        error[0] = '\0';
        assert_int_equal(gpu_device_facts_read(bad[i], strlen(bad[i]), &facts, error, sizeof error),
                         -EINVAL);
        assert_true(error[0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_live_until_their_last_reader),
        cmocka_unit_test(memory_is_used_again),
        cmocka_unit_test(spare_channels_stay_in_the_middle),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(descriptions_of_devices_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
