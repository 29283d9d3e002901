/* The UNet plugin's own part: what it tells about a network, and how it cuts requests into batches
 * for its backend. The network is one layer made by hand whose answers can be read off: label 0 or
 * 1 for the larger of two channels, 2 where both are small. */
#include "workers/models/unet/unet.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static float weights[] = {1, 0, 0, 1, 0, 0};
static float bias[] = {0, 0, 0.5f};
static struct network_layer layers[] = {{.op = NETWORK_CONV,
                                         .channels = 3,
                                         .kernel = 1,
                                         .stride = 1,
                                         .weights = weights,
                                         .bias = bias}};
static const struct network network = {
    .family = "by hand",
    .in_channels = 2,
    .classes = 3,
    .size_multiple = 2,
    .size_min = 2,
    .layer_count = 1,
    .layers = layers,
};
static const struct model_dir dir = {
    .weights_path = "w.pth", .name = "hand", .scale = 10, .clip = true, .clip_high = 1, .tile = 4};
static const struct unetserve_setup setup = {.abi = UNETSERVE_MODEL_ABI,
                                             .path = "w.pth",
                                             .device = "cpu",
                                             .precision = "f32",
                                             .backend = "reference",
                                             .threads = 1,
                                             .max_batch = 2};

/* ---- describing ---- */

static struct unetserve_interface interface;
static char error[512];

static void the_interface_follows_the_network(void **state)
{
    (void)state;
    assert_int_equal(unet_interface(&dir, &network, &setup, &interface, error, sizeof error), 0);
    assert_string_equal(interface.name, "hand");
    assert_string_equal(interface.input_field, "image");
    assert_string_equal(interface.output_field, "output");
    assert_int_equal(interface.input_kind, UNETSERVE_TENSOR);
    assert_int_equal(interface.channels, 2);
    assert_int_equal(interface.size_multiple, 2);
    assert_int_equal(interface.tile, 4);
    assert_int_equal(interface.max_batch, 2);
    assert_int_equal(interface.class_count, 3);
    assert_true(interface.input_dtypes & 1u << UNETSERVE_U16);
    assert_false(interface.input_dtypes & 1u << UNETSERVE_F64);
    assert_string_equal(interface.classes[2].name, "class_2");
    assert_int_equal(interface.classes[2].code, 2);
}

static void classes_without_colours_get_different_ones(void **state)
{
    (void)state;
    struct network many = network;
    many.classes = 48;
    assert_int_equal(unet_interface(&dir, &many, &setup, &interface, error, sizeof error), 0);
    for (uint32_t i = 0; i < 48; i++)
        for (uint32_t k = 0; k < i; k++)
            assert_memory_not_equal(interface.classes[i].rgb, interface.classes[k].rgb, 3);
}

static void classes_that_model_json_names_are_kept(void **state)
{
    (void)state;
    struct model_dir named = dir;
    named.class_count = 3;
    for (int i = 0; i < 3; i++) {
        snprintf(named.classes[i].name, sizeof named.classes[i].name, "cover %d", i);
        named.classes[i].code = (uint16_t)(10 * (i + 1));
        named.classes[i].rgb[0] = (uint8_t)(i * 100);
    }
    assert_int_equal(unet_interface(&named, &network, &setup, &interface, error, sizeof error), 0);
    assert_string_equal(interface.classes[1].name, "cover 1");
    assert_int_equal(interface.classes[2].code, 30);
    assert_int_equal(interface.classes[0].rgb[0], 0);
    assert_int_equal(interface.classes[1].rgb[0], 100);
}

static void one_output_channel_is_two_classes(void **state)
{
    (void)state;
    struct network binary = network;
    binary.classes = 1;
    assert_int_equal(unet_interface(&dir, &binary, &setup, &interface, error, sizeof error), 0);
    assert_int_equal(interface.class_count, 2);
}

static void disagreements_are_named(void **state)
{
    (void)state;
    struct model_dir wrong = dir;
    wrong.class_count = 4;
    assert_int_equal(unet_interface(&wrong, &network, &setup, &interface, error, sizeof error),
                     -EBADMSG);
    assert_non_null(strstr(error, "4 classes"));
    wrong = dir;
    wrong.in_channels = 12;
    assert_int_equal(unet_interface(&wrong, &network, &setup, &interface, error, sizeof error),
                     -EBADMSG);
    assert_non_null(strstr(error, "12 input channels"));
    struct network many = network;
    many.classes = 257;
    assert_int_equal(unet_interface(&dir, &many, &setup, &interface, error, sizeof error),
                     -EBADMSG);
    wrong = dir;
    wrong.tile = 5;
    assert_int_equal(unet_interface(&wrong, &network, &setup, &interface, error, sizeof error),
                     -EBADMSG);
    struct unetserve_setup odd = setup;
    odd.tile = 7;
    assert_int_equal(unet_interface(&dir, &network, &odd, &interface, error, sizeof error),
                     -EINVAL);
    assert_non_null(strstr(error, "multiple of 2"));
}

static int find(const char *device, const char *backend)
{
    const struct backend *found = NULL;
    struct unetserve_setup wish = setup;
    wish.device = device;
    wish.backend = backend;
    error[0] = '\0';
    uint32_t number = 0;
    int result = unet_find_backend(&wish, NULL, NULL, &found, &number, error, sizeof error);
    assert_true((result == 0) == (found != NULL));
    assert_true((result == 0) == (error[0] == '\0'));
    return result;
}

static void missing_devices_and_backends_are_told_apart_from_nonsense(void **state)
{
    (void)state;
    assert_int_equal(find("cpu", "auto"), 0);
    assert_int_equal(find("cpu", "reference"), 0);
    assert_int_equal(find("cuda", "auto"), -ENODEV);
    assert_int_equal(find("cuda:3", "cudnn"), -ENODEV);
    assert_non_null(strstr(error, "cuda:3"));
    assert_int_equal(find("cpu", "cudnn"), -ENODEV);
    assert_int_equal(find("cpu", "warp"), -EINVAL);
    assert_int_equal(find("abacus", "auto"), -EINVAL);
}

/* ---- predicting ---- */

static const struct unetserve_item *who_left;
static unsigned ticks;

static void quiet_log(const struct unetserve_host *host, int level, const char *format, ...)
{
    (void)host, (void)level, (void)format;
}
static void count_tick(const struct unetserve_host *host)
{
    (void)host;
    ticks++;
}
static bool has_left(const struct unetserve_host *host, const struct unetserve_item *item)
{
    (void)host;
    return item == who_left;
}

static const struct unetserve_host host = {
    .abi = UNETSERVE_MODEL_ABI, .log = quiet_log, .tick = count_tick, .cancelled = has_left};

static struct unet *create(void)
{
    struct unet *unet = NULL;
    struct unetserve_setup with_host = setup;
    with_host.host = &host;
    who_left = NULL;
    assert_int_equal(
        unet_create(&dir, &network, &with_host, &unet, &interface, error, sizeof error), 0);
    return unet;
}

#define MAX_TILES 5

struct request {
    struct unetserve_item item;
    uint16_t pixels[MAX_TILES * 2 * 4];
    uint8_t labels[MAX_TILES * 4 + 1];
};

/* 2 x 2 tiles; pixel p of tile t has the label (first + t + p) % 3. */
static void make_request(struct request *request, uint32_t tiles, bool batched, unsigned first)
{
    memset(request, 0, sizeof *request);
    memset(request->labels, 77, sizeof request->labels);
    for (uint32_t t = 0; t < tiles; t++)
        for (uint32_t p = 0; p < 4; p++)
            for (uint32_t c = 0; c < 2; c++)
                request->pixels[(t * 2 + c) * 4 + p] = (first + t + p) % 3 == c ? 9 : 1;
    request->item = (struct unetserve_item){
        .input = request->pixels,
        .input_bytes = (size_t)tiles * 16,
        .input_shape = {UNETSERVE_U16, 3, {2, 2, 2}},
        .output = request->labels,
        .output_capacity = (size_t)tiles * 4,
        .status = 200,
    };
    if (batched)
        request->item.input_shape = (struct unetserve_shape){UNETSERVE_U16, 4, {tiles, 2, 2, 2}};
}

static void check_labels(const struct request *request, uint32_t tiles, bool batched,
                         unsigned first)
{
    const struct unetserve_shape *shape = &request->item.output_shape;
    assert_int_equal(request->item.status, 200);
    assert_int_equal(request->item.output_bytes, tiles * 4);
    assert_int_equal(shape->dtype, UNETSERVE_U8);
    assert_int_equal(shape->rank, batched ? 3 : 2);
    if (batched)
        assert_int_equal(shape->dims[0], tiles);
    assert_int_equal(shape->dims[shape->rank - 2], 2);
    assert_int_equal(shape->dims[shape->rank - 1], 2);
    for (uint32_t t = 0; t < tiles; t++)
        for (uint32_t p = 0; p < 4; p++)
            assert_int_equal(request->labels[t * 4 + p], (first + t + p) % 3);
    assert_int_equal(request->labels[tiles * 4], 77);
}

static void tiles_come_out_as_labels(void **state)
{
    (void)state;
    struct unet *unet = create();
    struct request one;
    make_request(&one, 1, false, 0);
    struct unetserve_item *items[] = {&one.item};
    ticks = 0;
    assert_int_equal(unet_predict(unet, items, 1), 0);
    check_labels(&one, 1, false, 0);
    assert_true(ticks > 0);
    unet_teardown(unet);
}

static void more_tiles_than_a_batch_are_cut_into_several(void **state)
{
    (void)state;
    struct unet *unet = create();
    struct request five;
    make_request(&five, 5, true, 1);
    struct unetserve_item *items[] = {&five.item};
    assert_int_equal(unet_predict(unet, items, 1), 0);
    check_labels(&five, 5, true, 1);
    unet_teardown(unet);
}

/* Forward passes that count images of size x size take: the backend ticks equally often in each. */
static unsigned count_forwards(struct unet *unet, uint32_t count, uint32_t size)
{
    static uint16_t pixels[MAX_TILES * 2 * 8 * 8];
    static uint8_t labels[MAX_TILES * 8 * 8];
    unsigned all[2];
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t tiles = i ? count : 1;
        struct unetserve_item item = {
            .input = pixels,
            .input_bytes = (size_t)tiles * 2 * size * size * sizeof *pixels,
            .input_shape = {UNETSERVE_U16, 4, {tiles, 2, size, size}},
            .output = labels,
            .output_capacity = sizeof labels,
            .status = 200,
        };
        struct unetserve_item *items[] = {&item};
        ticks = 0;
        assert_int_equal(unet_predict(unet, items, 1), 0);
        all[i] = ticks;
    }
    assert_true(all[0] > 0);
    unsigned forwards = all[0] > 0 ? all[1] / all[0] : 0;
    assert_int_equal(all[1], forwards * all[0]);
    return forwards;
}

static void large_images_go_fewer_at_a_time(void **state)
{
    (void)state;
    struct unetserve_setup fast = setup;
    struct unet *unet = NULL;
    fast.host = &host;
    fast.backend = "onednn";
    assert_int_equal(unet_create(&dir, &network, &fast, &unet, &interface, error, sizeof error), 0);
    assert_int_equal(count_forwards(unet, 4, 2), 2); /* no more than max_batch */
    assert_int_equal(count_forwards(unet, 4, 4), 2); /* the usual tile */
    assert_int_equal(count_forwards(unet, 4, 6), 4);
    assert_int_equal(count_forwards(unet, 4, 8), 4);
    unet_teardown(unet);
}

static void tiles_of_several_requests_share_batches(void **state)
{
    (void)state;
    struct unet *unet = create();
    struct request requests[3];
    struct unetserve_item *items[3];
    for (unsigned i = 0; i < 3; i++) {
        make_request(&requests[i], 3, true, i);
        items[i] = &requests[i].item;
    }
    assert_int_equal(unet_predict(unet, items, 3), 0);
    for (unsigned i = 0; i < 3; i++)
        check_labels(&requests[i], 3, true, i);
    unet_teardown(unet);
}

static const char *last_log;
static void keep_log(const struct unetserve_host *self, int level, const char *format, ...)
{
    (void)self, (void)level;
    last_log = format;
}

/* Where the configuration does not say how many go together, each run tells something about it. */
static void the_number_that_goes_together_is_learned(void **state)
{
    (void)state;
    struct unetserve_host listening = host;
    struct unetserve_setup automatic = setup;
    struct unet *unet = NULL;
    bool settled = true;
    listening.log = keep_log;
    automatic.host = &listening;
    automatic.max_batch = 0;
    assert_int_equal(
        unet_create(&dir, &network, &automatic, &unet, &interface, error, sizeof error), 0);
    assert_int_equal(interface.max_batch, 8);
    struct request request;
    make_request(&request, 5, true, 1);
    struct unetserve_item *items[] = {&request.item, &request.item};
    assert_int_equal(unet_together(unet, &request.item.input_shape, 8, &settled), 1);
    assert_false(settled);
    for (int i = 0; i < 100 && !settled; i++) {
        make_request(&request, 5, true, 1);
        assert_int_equal(unet_predict(unet, items, 2), 0);
        check_labels(&request, 5, true, 1);
        uint32_t next = unet_together(unet, &request.item.input_shape, 8, &settled);
        assert_in_range(next, 1, 8);
    }
    assert_true(settled);
    assert_non_null(strstr(last_log, "run together"));
    uint32_t liked = unet_together(unet, &request.item.input_shape, 1000, &settled);
    assert_in_range(liked, 1, 8);
    unet_teardown(unet);
    unet = create();
    assert_int_equal(unet_together(unet, &request.item.input_shape, 8, &settled), 2);
    assert_false(settled);
    unet_teardown(unet);
}

static void a_client_that_left_costs_nothing_and_disturbs_nobody(void **state)
{
    (void)state;
    struct unet *unet = create();
    struct request requests[3];
    struct unetserve_item *items[3];
    for (unsigned i = 0; i < 3; i++) {
        make_request(&requests[i], 1, false, i);
        items[i] = &requests[i].item;
    }
    who_left = items[1];
    assert_int_equal(unet_predict(unet, items, 3), 0);
    check_labels(&requests[0], 1, false, 0);
    check_labels(&requests[2], 1, false, 2);
    assert_int_equal(requests[1].labels[0], 77);
    unet_teardown(unet);
}

static int predict_spoilt(void (*spoil)(struct unetserve_item *item))
{
    struct unet *unet = create();
    struct request request;
    make_request(&request, 2, true, 0);
    spoil(&request.item);
    struct unetserve_item *items[] = {&request.item};
    int result = unet_predict(unet, items, 1);
    assert_int_equal(request.labels[0], 77);
    unet_teardown(unet);
    return result;
}

static void spoil_capacity(struct unetserve_item *item)
{
    item->output_capacity = 7;
}
static void spoil_channels(struct unetserve_item *item)
{
    item->input_shape.dims[1] = 1;
}
static void spoil_rank(struct unetserve_item *item)
{
    item->input_shape.rank = 2;
}
static void spoil_count(struct unetserve_item *item)
{
    item->input_shape.dims[0] = 0;
}
static void spoil_length(struct unetserve_item *item)
{
    item->input_bytes = 31;
}

static void requests_that_do_not_fit_are_errors(void **state)
{
    (void)state;
    assert_int_equal(predict_spoilt(spoil_capacity), -ENOSPC);
    assert_int_equal(predict_spoilt(spoil_channels), -EINVAL);
    assert_int_equal(predict_spoilt(spoil_rank), -EINVAL);
    assert_int_equal(predict_spoilt(spoil_count), -EINVAL);
    assert_int_equal(predict_spoilt(spoil_length), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_interface_follows_the_network),
        cmocka_unit_test(classes_without_colours_get_different_ones),
        cmocka_unit_test(classes_that_model_json_names_are_kept),
        cmocka_unit_test(one_output_channel_is_two_classes),
        cmocka_unit_test(disagreements_are_named),
        cmocka_unit_test(missing_devices_and_backends_are_told_apart_from_nonsense),
        cmocka_unit_test(tiles_come_out_as_labels),
        cmocka_unit_test(more_tiles_than_a_batch_are_cut_into_several),
        cmocka_unit_test(large_images_go_fewer_at_a_time),
        cmocka_unit_test(tiles_of_several_requests_share_batches),
        cmocka_unit_test(the_number_that_goes_together_is_learned),
        cmocka_unit_test(a_client_that_left_costs_nothing_and_disturbs_nobody),
        cmocka_unit_test(requests_that_do_not_fit_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
