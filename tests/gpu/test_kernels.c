/*
 * Our own kernels alone, on a double of a GPU or on a GPU, against plain loops written here: odd
 * sizes, padding, several images, pitches wider than the image, equal classes, roundings. Whole
 * networks meet only a part of that.
 */
#include "tests/gpu/one_device.h"
#include "unetserve/tensor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IMAGES 2u
#define MARGIN 4096u /* bytes behind each image that nobody may touch */

/* An image in the device's memory and as floats here; of those, `untouched` are NaN. */
struct picture {
    enum gpu_type type;
    struct gpu_image image;
    size_t elements;
    float *values;
    CUdeviceptr memory;
    void *host; /* page-locked */
};

static size_t bytes_of(const struct picture *p)
{
    return p->elements * (p->type == GPU_F32 ? 4 : 2);
}

/* What a store to that type and a load from it leave of a value. */
static float rounded(enum gpu_type type, float value)
{
    uint16_t half = type == GPU_F32 ? 0 : gpu_weights_narrow(type, value);
    return type == GPU_F32 ? value : widen(type, &half, 0);
}

static void wait_for_it(void)
{
    assert_int_equal(gpu_call(&device, cuStreamSynchronize, stream), 0);
}

/* All bits set: NaN in each type, until it is written. */
static struct picture picture_make(enum gpu_type type, uint32_t pitch, uint32_t depth,
                                   uint32_t height, uint32_t width)
{
    struct picture p = {.type = type,
                        .image = {NULL, pitch, depth, height, width},
                        .elements = (size_t)IMAGES * height * width * pitch};
    size_t bytes = bytes_of(&p) + MARGIN;
    p.values = malloc(p.elements * sizeof(float));
    assert_int_equal(gpu_call(&device, cuMemAlloc, &p.memory, bytes), 0);
    assert_int_equal(gpu_call(&device, cuMemAllocHost, &p.host, bytes), 0);
    p.image.data = (void *)(uintptr_t)p.memory; /* NOLINT(performance-no-int-to-ptr) */
    memset(p.host, 0xff, bytes);
    assert_int_equal(gpu_call(&device, cuMemcpyHtoDAsync, p.memory, p.host, bytes, stream), 0);
    wait_for_it();
    return p;
}

static void picture_free(struct picture *p)
{
    free(p->values);
    assert_int_equal(gpu_call(&device, cuMemFree, p->memory), 0);
    assert_int_equal(gpu_call(&device, cuMemFreeHost, p->host), 0);
}

static float *value_at(const struct picture *p, uint32_t n, uint32_t y, uint32_t x, uint32_t c)
{
    const struct gpu_image *i = &p->image;
    return &p->values[(((size_t)n * i->height + y) * i->width + x) * i->pitch + c];
}

static uint32_t seed = 3;

static float random_value(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (float)((int32_t)(seed >> 8 & 1023) - 512) / 64.0f;
}

/* Random values, of which a type keeps what it can; never above `most`. */
static struct picture picture_random(enum gpu_type type, uint32_t pitch, uint32_t depth,
                                     uint32_t height, uint32_t width, float most)
{
    struct picture p = picture_make(type, pitch, depth, height, width);
    for (size_t i = 0; i < p.elements; i++) {
        float value = rounded(type, random_value());
        p.values[i] = value > most ? most - value : value;
        p.values[i] = rounded(type, p.values[i]);
        if (type == GPU_F32) {
            ((float *)p.host)[i] = p.values[i];
        } else {
            ((uint16_t *)p.host)[i] = gpu_weights_narrow(type, p.values[i]);
        }
    }
    assert_int_equal(gpu_call(&device, cuMemcpyHtoDAsync, p.memory, p.host, bytes_of(&p), stream),
                     0);
    wait_for_it();
    return p;
}

static void fetch(struct picture *p)
{
    size_t bytes = bytes_of(p);
    assert_int_equal(
        gpu_call(&device, cuMemcpyDtoHAsync, p->host, p->memory, bytes + MARGIN, stream), 0);
    wait_for_it();
    for (size_t i = 0; i < p->elements; i++) {
        p->values[i] = widen(p->type, p->host, i);
    }
    for (size_t i = 0; i < MARGIN; i++) {
        assert_int_equal(((unsigned char *)p->host)[bytes + i], 0xff); /* nothing beyond its end */
    }
}

static void launch(enum gpu_kernel kernel, enum gpu_type type, const void *args)
{
    assert_int_equal(gpu_launch(&device, stream, kernel, type, args), 0);
    wait_for_it();
}

/* What must stand at an output position. */
typedef float expect_fn(const void *args, uint32_t n, uint32_t y, uint32_t x, uint32_t c);

/* Equal within `error`; and between the pixels of a wide pitch nothing was touched. */
static void check(struct picture *out, expect_fn *expect, const void *args, float error)
{
    const struct gpu_image *i = &out->image;
    fetch(out);
    for (uint32_t n = 0; n < IMAGES; n++) {
        for (uint32_t at = 0; at < i->height * i->width * i->pitch; at++) {
            uint32_t c = at % i->pitch;
            uint32_t x = at / i->pitch % i->width;
            uint32_t y = at / i->pitch / i->width;
            float got = *value_at(out, n, y, x, c);
            if (c >= i->depth) {
                assert_true(isnan(got));
                continue;
            }
            float want = rounded(out->type, expect(args, n, y, x, c));
            if (!(fabsf(got - want) <= error * fabsf(want))) {
                print_error("image %u, %u/%u, channel %u: %g, not %g\n", n, y, x, c, got, want);
            }
            assert_true(fabsf(got - want) <= error * fabsf(want));
        }
    }
}

/* ---- what a kernel is to do, in plain words ---- */

struct pair {
    const struct picture *in, *second;
    struct gpu_pool_args pool;
    int32_t top, left;
    uint32_t mode, relu, depth;
};

static float expect_pool(const void *args, uint32_t n, uint32_t y, uint32_t x, uint32_t c)
{
    const struct pair *a = args;
    float best = -INFINITY;
    for (uint32_t k = 0; k < a->pool.kernel * a->pool.kernel; k++) {
        int32_t from_y = (int32_t)(y * a->pool.stride + k / a->pool.kernel - a->pool.padding);
        int32_t from_x = (int32_t)(x * a->pool.stride + k % a->pool.kernel - a->pool.padding);
        if (from_y >= 0 && from_x >= 0 && from_y < (int32_t)a->in->image.height &&
            from_x < (int32_t)a->in->image.width) {
            best = fmaxf(best, *value_at(a->in, n, (uint32_t)from_y, (uint32_t)from_x, c));
        }
    }
    return best;
}

static float expect_same(const void *args, uint32_t n, uint32_t y, uint32_t x, uint32_t c)
{
    return *value_at(((const struct pair *)args)->in, n, y, x, c);
}

static float expect_shuffle(const void *args, uint32_t n, uint32_t y, uint32_t x, uint32_t c)
{
    const struct pair *a = args;
    return *value_at(a->in, n, y / 2, x / 2, (y % 2 * 2 + x % 2) * a->depth + c);
}

static float expect_fit(const void *args, uint32_t n, uint32_t y, uint32_t x, uint32_t c)
{
    const struct pair *a = args;
    int32_t from_y = (int32_t)y - a->top;
    int32_t from_x = (int32_t)x - a->left;
    bool inside = from_y >= 0 && from_x >= 0 && from_y < (int32_t)a->in->image.height &&
                  from_x < (int32_t)a->in->image.width;
    return inside ? *value_at(a->in, n, (uint32_t)from_y, (uint32_t)from_x, c) : 0.0f;
}

static float expect_add(const void *args, uint32_t n, uint32_t y, uint32_t x, uint32_t c)
{
    const struct pair *a = args;
    float sum = *value_at(a->in, n, y, x, c) + *value_at(a->second, n, y, x, c);
    return a->relu && sum < 0 ? 0 : sum;
}

static double where(uint32_t at, uint32_t in, uint32_t mode)
{
    double place = mode == 2 ? (2 * in > 1 ? at * (in - 1.0) / (2.0 * in - 1.0) : 0)
                             : (at + 0.5) / 2 - 0.5;
    return place < 0 ? 0 : place > in - 1.0 ? in - 1.0 : place;
}

static float expect_upsample(const void *args, uint32_t n, uint32_t y, uint32_t x, uint32_t c)
{
    const struct pair *a = args;
    if (a->mode == 0) {
        return *value_at(a->in, n, y / 2, x / 2, c);
    }
    double v = where(y, a->in->image.height, a->mode);
    double h = where(x, a->in->image.width, a->mode);
    double sum = 0;
    for (uint32_t k = 0; k < 4; k++) {
        uint32_t from_y = (uint32_t)v + (k / 2 && v > floor(v));
        uint32_t from_x = (uint32_t)h + (k % 2 && h > floor(h));
        double weight = (k / 2 ? v - floor(v) : 1 - v + floor(v)) *
                        (k % 2 ? h - floor(h) : 1 - h + floor(h));
        sum += weight * (double)*value_at(a->in, n, from_y, from_x, c);
    }
    return (float)sum;
}

/* ---- tests ---- */

#define FOR_EACH_TYPE(type)                                                                        \
    for (enum gpu_type type = GPU_F32; (unsigned)type < 3; type = (enum gpu_type)(type + 1))

static void pools_at_odd_sizes(void **state)
{
    (void)state;
    static const uint32_t ways[][3] = {{3, 2, 1}, {2, 2, 0}, {3, 1, 1}};
    FOR_EACH_TYPE(type)
    {
        for (size_t w = 0; w < 3; w++) {
            uint32_t kernel = ways[w][0], stride = ways[w][1], padding = ways[w][2];
            struct picture in = picture_random(type, 16, 16, 7, 5, -1.0f);
            struct picture out = picture_make(type, 32, 16, (7 + 2 * padding - kernel) / stride + 1,
                                              (5 + 2 * padding - kernel) / stride + 1);
            struct pair pair = {.in = &in};
            pair.pool = (struct gpu_pool_args){.items = IMAGES * out.image.height *
                                                        out.image.width * 2,
                                               .kernel = kernel,
                                               .stride = stride,
                                               .padding = padding,
                                               .in = in.image,
                                               .out = out.image};
            launch(GPU_KERNEL_pool, type, &pair.pool);
            check(&out, expect_pool, &pair, 0);
            picture_free(&in);
            picture_free(&out);
        }
    }
}

static void halves_and_copies_at_odd_sizes(void **state)
{
    (void)state;
    FOR_EACH_TYPE(type)
    {
        struct picture in = picture_random(type, 16, 16, 5, 7, -1.0f);
        struct picture out = picture_make(type, 16, 16, 2, 3);
        struct picture copy = picture_make(type, 48, 16, 5, 7);
        const struct gpu_halve_args args = {
            .items = IMAGES * 3 * 4 * 2, .in = in.image, .out = out.image, .copy = copy.image};
        const struct pair pair = {.in = &in, .pool = {.kernel = 2, .stride = 2}};
        launch(GPU_KERNEL_halve, type, &args);
        check(&out, expect_pool, &pair, 0);
        check(&copy, expect_same, &pair, 0);
        picture_free(&in);
        picture_free(&out);
        picture_free(&copy);
    }
}

static void shuffles(void **state)
{
    (void)state;
    FOR_EACH_TYPE(type)
    {
        struct picture in = picture_random(type, 64, 64, 3, 5, 99);
        struct picture out = picture_make(type, 32, 16, 6, 10);
        const struct gpu_shuffle_args args = {
            .items = IMAGES * 6 * 10 * 2, .in = in.image, .out = out.image};
        const struct pair pair = {.in = &in, .depth = 16};
        launch(GPU_KERNEL_shuffle, type, &args);
        check(&out, expect_shuffle, &pair, 0);
        picture_free(&in);
        picture_free(&out);
    }
}

static void stretches(void **state)
{
    (void)state;
    static const float errors[] = {[GPU_F32] = 2e-4f, [GPU_F16] = 2e-2f, [GPU_BF16] = 5e-2f};
    FOR_EACH_TYPE(type)
    {
        for (uint32_t mode = 0; mode < 3; mode++) {
            struct picture in = picture_random(type, 16, 16, 3, 4, 99);
            struct picture out = picture_make(type, 16, 16, 6, 8);
            /* Sums of one sign, so that errors are small beside them. */
            for (size_t i = 0; i < in.elements; i++) {
                in.values[i] = fabsf(in.values[i]) + 1;
                in.values[i] = rounded(type, in.values[i]);
                if (type == GPU_F32) {
                    ((float *)in.host)[i] = in.values[i];
                } else {
                    ((uint16_t *)in.host)[i] = gpu_weights_narrow(type, in.values[i]);
                }
            }
            assert_int_equal(
                gpu_call(&device, cuMemcpyHtoDAsync, in.memory, in.host, bytes_of(&in), stream), 0);
            const struct gpu_upsample_args args = {
                .items = IMAGES * 6 * 8 * 2, .mode = mode, .in = in.image, .out = out.image};
            const struct pair pair = {.in = &in, .mode = mode};
            launch(GPU_KERNEL_upsample, type, &args);
            check(&out, expect_upsample, &pair, mode == 0 ? 0 : errors[type]);
            picture_free(&in);
            picture_free(&out);
        }
    }
}

static void pads_and_crops(void **state)
{
    (void)state;
    static const int32_t ways[][4] = {{9, 11, 2, 3}, {3, 2, -1, -2}, {8, 2, 1, -1}, {5, 5, 0, 0}};
    FOR_EACH_TYPE(type)
    {
        for (size_t w = 0; w < 4; w++) {
            struct picture in = picture_random(type, 24, 16, 5, 5, 99);
            struct picture out = picture_make(type, 16, 16, (uint32_t)ways[w][0],
                                              (uint32_t)ways[w][1]);
            const struct gpu_fit_args args = {.items = IMAGES * out.image.height * out.image.width *
                                                       2,
                                              .top = ways[w][2],
                                              .left = ways[w][3],
                                              .in = in.image,
                                              .out = out.image};
            const struct pair pair = {.in = &in, .top = ways[w][2], .left = ways[w][3]};
            launch(GPU_KERNEL_fit, type, &args);
            check(&out, expect_fit, &pair, 0);
            picture_free(&in);
            picture_free(&out);
        }
    }
}

static void adds(void **state)
{
    (void)state;
    FOR_EACH_TYPE(type)
    {
        for (uint32_t relu = 0; relu < 2; relu++) {
            struct picture in = picture_random(type, 16, 16, 3, 5, 99);
            struct picture second = picture_random(type, 32, 16, 3, 5, 99);
            struct picture out = picture_make(type, 16, 16, 3, 5);
            const struct gpu_add_args args = {.items = IMAGES * 3 * 5 * 2,
                                              .relu = relu,
                                              .in = in.image,
                                              .second = second.image,
                                              .out = out.image};
            const struct pair pair = {.in = &in, .second = &second, .relu = relu};
            launch(GPU_KERNEL_add, type, &args);
            check(&out, expect_add, &pair, 0);
            picture_free(&in);
            picture_free(&second);
            picture_free(&out);
        }
    }
}

/* Tiles of floats: what is loaded is rounded to nearest, spare channels are 0. */
static void loads_and_rounds(void **state)
{
    (void)state;
    enum { CHANNELS = 3, PLANE = 4 * 5, ALL = IMAGES * CHANNELS * PLANE };
    FOR_EACH_TYPE(type)
    {
        struct picture out = picture_make(type, 16, 16, 4, 5);
        struct picture tiles = picture_make(GPU_F32, 8, 8, 4, 5); /* its memory is what is wanted */
        float *from = tiles.host;
        for (uint32_t i = 0; i < ALL; i++) {
            from[i] = 0.1f * (float)i - 3.0f;
        }
        from[7] = NAN;
        assert_int_equal(
            gpu_call(&device, cuMemcpyHtoDAsync, tiles.memory, from, ALL * sizeof(float), stream),
            0);
        const struct gpu_load_args args = {.items = IMAGES * PLANE,
                                           .channels = CHANNELS,
                                           .tiles = tiles.image.data,
                                           .out = out.image,
                                           .dtype = UNETSERVE_F32,
                                           .clip = 1,
                                           .offset = 0.25f,
                                           .scale = 0.7f,
                                           .low = -3.0f,
                                           .high = 11.0f};
        launch(GPU_KERNEL_load, type, &args);
        fetch(&out);
        for (uint32_t i = 0; i < IMAGES * PLANE * 16; i++) {
            uint32_t c = i % 16, pixel = i / 16 % PLANE, n = i / 16 / PLANE;
            float value = c < CHANNELS ? from[(n * CHANNELS + c) * PLANE + pixel] : 0;
            float want = isnan(value) ? value : fminf(fmaxf((value + 0.25f) / 0.7f, -3.0f), 11.0f);
            want = c < CHANNELS ? rounded(type, want) : 0.0f;
            float got = out.values[i];
            /* A device divides in its own way; the last bit of a float may differ. */
            float error = type == GPU_F32 ? 1e-6f : 0;
            assert_true(isnan(want) ? isnan(got) : fabsf(got - want) <= error * fabsf(want));
        }
        picture_free(&out);
        picture_free(&tiles);
    }
}

/* Classes of every pixel, by hand; spare ones in memory are larger than all of them. */
static void labels_of(enum gpu_type type, uint32_t classes, const float values[][12],
                      const uint8_t *want, uint32_t pixels)
{
    struct picture in = picture_make(type, 16, 16, 1, pixels / IMAGES);
    struct picture out = picture_make(GPU_F32, 8, 8, 1, pixels);
    for (uint32_t i = 0; i < pixels * 16; i++) {
        float value = i % 16 < classes ? values[i / 16][i % 16] : 1000;
        if (type == GPU_F32) {
            ((float *)in.host)[i] = value;
        } else {
            ((uint16_t *)in.host)[i] = gpu_weights_narrow(type, value);
        }
    }
    assert_int_equal(
        gpu_call(&device, cuMemcpyHtoDAsync, in.memory, in.host, bytes_of(&in), stream), 0);
    const struct gpu_labels_args args = {
        .items = pixels, .classes = classes, .in = in.image, .labels = out.image.data};
    const struct gpu_logits_args logits = {
        .items = pixels, .classes = classes, .in = in.image, .logits = out.image.data};
    launch(GPU_KERNEL_labels, type, &args);
    assert_int_equal(
        gpu_call(&device, cuMemcpyDtoHAsync, out.host, out.memory, bytes_of(&out), stream), 0);
    wait_for_it();
    assert_memory_equal(out.host, want, pixels);
    assert_int_equal(((unsigned char *)out.host)[pixels], 0xff);
    launch(GPU_KERNEL_logits, type, &logits);
    assert_int_equal(
        gpu_call(&device, cuMemcpyDtoHAsync, out.host, out.memory, bytes_of(&out), stream), 0);
    wait_for_it();
    uint32_t plane = pixels / IMAGES;
    for (uint32_t i = 0; i < pixels * classes; i++) {
        uint32_t n = i / plane / classes, c = i / plane % classes;
        assert_true(((float *)out.host)[i] == values[n * plane + i % plane][c]);
    }
    picture_free(&in);
    picture_free(&out);
}

static void the_first_of_equal_classes_wins(void **state)
{
    (void)state;
    static const float many[][12] = {{0},
                                     {1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 2},
                                     {-5, -4, -3, -4, -3, -5, -9, -8, -3, -7, -6},
                                     {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}};
    static const uint8_t many_labels[] = {0, 1, 2, 10};
    static const float one[][12] = {{0}, {0.5f}, {-0.5f}, {-0.0f}};
    static const uint8_t one_labels[] = {0, 1, 0, 0};
    FOR_EACH_TYPE(type)
    {
        labels_of(type, 11, many, many_labels, 4);
        labels_of(type, 1, one, one_labels, 4);
    }
}

/* Every type of tile, more channels than fit into one group of 16, and floats of any bits. */
static float tile_value(uint32_t dtype, const void *tiles, size_t at)
{
    switch (dtype) {
    case UNETSERVE_U8: return ((const uint8_t *)tiles)[at];
    case UNETSERVE_I8: return ((const int8_t *)tiles)[at];
    case UNETSERVE_U16: return ((const uint16_t *)tiles)[at];
    case UNETSERVE_I16: return ((const int16_t *)tiles)[at];
    case UNETSERVE_F16: return half_to_f32(((const uint16_t *)tiles)[at]);
    default: return ((const float *)tiles)[at];
    }
}

static void random_bytes(void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        seed = seed * 1664525u + 1013904223u;
        ((uint8_t *)data)[i] = (uint8_t)(seed >> 24);
    }
}

static void check_loaded(struct picture *out, const struct gpu_load_args *args, const void *tiles)
{
    uint32_t plane = out->image.height * out->image.width;
    fetch(out);
    for (uint32_t i = 0; i < out->elements; i++) {
        uint32_t c = i % out->image.pitch, pixel = i / out->image.pitch % plane;
        uint32_t n = i / out->image.pitch / plane;
        float want = 0;
        if (c < args->channels) {
            want = tile_value(args->dtype, tiles, ((size_t)n * args->channels + c) * plane + pixel);
            want = (want + args->offset) / args->scale;
            want = args->clip && want < args->low ? args->low : want;
            want = args->clip && want > args->high ? args->high : want;
            want = rounded(out->type, want);
        }
        float got = out->values[i];
        float error = out->type == GPU_F32 ? 1e-6f * fabsf(want) : 0;
        assert_true(isnan(want) ? isnan(got) : got == want || fabsf(got - want) <= error);
    }
}

static void loads_every_type(void **state)
{
    (void)state;
    enum { CHANNELS = 19, ALL = IMAGES * CHANNELS * 5 * 7 };
    FOR_EACH_TYPE(type)
    {
        for (uint32_t way = 0; way < 24; way++) {
            uint32_t dtype = UNETSERVE_U8 + way % 6;
            struct picture out = picture_make(type, 32, 32, 5, 7);
            struct picture tiles = picture_make(GPU_F32, 16, 16, 9, 11); /* as memory */
            random_bytes(tiles.host, ALL * sizeof(float));
            assert_int_equal(gpu_call(&device, cuMemcpyHtoDAsync, tiles.memory, tiles.host,
                                      ALL * sizeof(float), stream),
                             0);
            const struct gpu_load_args args = {.items = IMAGES * 5 * 7,
                                               .channels = CHANNELS,
                                               .tiles = tiles.image.data,
                                               .out = out.image,
                                               .dtype = dtype,
                                               .clip = way % 4 == 1,
                                               .offset = way % 4 == 0 ? 0.0f : -3.0f,
                                               .scale = way % 4 == 0 ? 1.0f : 4.0f,
                                               .low = -2.0f,
                                               .high = 5.0f};
            launch(GPU_KERNEL_load, type, &args);
            check_loaded(&out, &args, tiles.host);
            picture_free(&out);
            picture_free(&tiles);
        }
    }
}

/* More classes than one group has, equal ones among them, and NaNs, which never win. */
static void labels_of_many_classes(void **state)
{
    (void)state;
    enum { CLASSES = 37, PLANE = 9 * 13 };
    static uint8_t got[IMAGES * PLANE];
    FOR_EACH_TYPE(type)
    {
        struct picture in = picture_random(type, 48, 48, 9, 13, 99);
        struct picture out = picture_make(GPU_F32, 16, 16, 9, 13); /* as memory */
        const struct gpu_labels_args args = {
            .items = IMAGES * PLANE, .classes = CLASSES, .in = in.image, .labels = out.image.data};
        for (size_t i = 0; i < in.elements; i += 48 * 5) { /* one of the first pixels' classes */
            in.values[i + 1 + i % 36] = NAN;
            if (type == GPU_F32) {
                ((float *)in.host)[i + 1 + i % 36] = NAN;
            } else {
                ((uint16_t *)in.host)[i + 1 + i % 36] = 0x7fff;
            }
        }
        assert_int_equal(
            gpu_call(&device, cuMemcpyHtoDAsync, in.memory, in.host, bytes_of(&in), stream), 0);
        launch(GPU_KERNEL_labels, type, &args);
        assert_int_equal(
            gpu_call(&device, cuMemcpyDtoHAsync, out.host, out.memory, sizeof got, stream), 0);
        wait_for_it();
        memcpy(got, out.host, sizeof got);
        for (size_t p = 0; p < sizeof got; p++) {
            size_t best = 0;
            for (size_t c = 1; c < CLASSES; c++) {
                best = in.values[p * 48 + c] > in.values[p * 48 + best] ? c : best;
            }
            assert_int_equal(got[p], best);
        }
        picture_free(&in);
        picture_free(&out);
    }
}

/* More to do than there are threads: each does several things. */
static void few_threads_do_it_all(void **state)
{
    (void)state;
    int processors = device.processors;
    device.processors = 1;
    struct picture in = picture_random(GPU_BF16, 32, 32, 40, 37, 99);
    struct picture out = picture_make(GPU_BF16, 32, 32, 40, 37);
    const struct gpu_fit_args args = {
        .items = IMAGES * 40 * 37 * 4, .in = in.image, .out = out.image};
    const struct pair pair = {.in = &in};
    launch(GPU_KERNEL_fit, GPU_BF16, &args);
    check(&out, expect_fit, &pair, 0);
    picture_free(&in);
    picture_free(&out);
    device.processors = processors;
}

/* A single pixel, and a single row: there is nothing beside it to mix in. */
static void stretches_of_one_pixel(void **state)
{
    (void)state;
    for (uint32_t mode = 0; mode < 3; mode++) {
        for (uint32_t width = 1; width < 4; width++) {
            struct picture in = picture_random(GPU_F32, 16, 16, 1, width, 99);
            struct picture out = picture_make(GPU_F32, 48, 16, 2, 2 * width);
            for (size_t i = 0; i < in.elements; i++) {
                ((float *)in.host)[i] = in.values[i] = fabsf(in.values[i]) + 1;
            }
            assert_int_equal(
                gpu_call(&device, cuMemcpyHtoDAsync, in.memory, in.host, bytes_of(&in), stream), 0);
            const struct gpu_upsample_args args = {.items = IMAGES * 2 * 2 * width * 2,
                                                   .mode = mode,
                                                   .in = in.image,
                                                   .out = out.image};
            const struct pair pair = {.in = &in, .mode = mode};
            launch(GPU_KERNEL_upsample, GPU_F32, &args);
            check(&out, expect_upsample, &pair, mode == 0 ? 0 : 2e-4f);
            picture_free(&in);
            picture_free(&out);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pools_at_odd_sizes),
        cmocka_unit_test(halves_and_copies_at_odd_sizes),
        cmocka_unit_test(shuffles),
        cmocka_unit_test(stretches),
        cmocka_unit_test(stretches_of_one_pixel),
        cmocka_unit_test(pads_and_crops),
        cmocka_unit_test(adds),
        cmocka_unit_test(loads_and_rounds),
        cmocka_unit_test(loads_every_type),
        cmocka_unit_test(the_first_of_equal_classes_wins),
        cmocka_unit_test(labels_of_many_classes),
        cmocka_unit_test(few_threads_do_it_all),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
