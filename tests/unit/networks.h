/*
 * Small random networks that together have every operation, tiles for them, and what a backend's
 * answers differ by: for the tests of backends.
 */
#ifndef NETWORKS_H
#define NETWORKS_H

#include "workers/backends/backend.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifndef MAX_TILES
#define MAX_TILES 3
#endif

static uint32_t seed = 1;

static inline uint32_t random_bits(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

/* Uniform in [-1, 1]. */
static inline float random_float(void)
{
    return (float)(random_bits() >> 8) / 8388608.0F - 1.0F;
}

/* ---- networks ---- */

static inline void start(struct network *network, uint32_t in_channels, uint32_t multiple)
{
    *network = (struct network){.family = "test",
                                .in_channels = in_channels,
                                .size_multiple = multiple,
                                .size_min = multiple};
    network->layers = (struct network_layer *)calloc(64, sizeof *network->layers);
    assert_non_null(network->layers);
}

static inline uint32_t channels_of(const struct network *network, uint32_t value)
{
    return value == 0 ? network->in_channels : network->layers[value - 1].channels;
}

/* Append a layer; the number of its value. */
static inline uint32_t append(struct network *network, struct network_layer layer)
{
    assert_true(network->layer_count < 64);
    network->layers[network->layer_count++] = layer;
    network->classes = layer.channels;
    return (uint32_t)network->layer_count;
}

static inline float *random_floats(size_t count, float scale)
{
    float *values = (float *)malloc(count * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        values[i] = random_float() * scale;
    }
    return values;
}

static inline uint32_t conv_with(struct network *network, uint32_t in, uint32_t channels,
                                 uint32_t kernel, uint32_t stride, uint32_t padding, bool relu)
{
    size_t fan_in = (size_t)channels_of(network, in) * kernel * kernel;
    struct network_layer layer = {.op = NETWORK_CONV,
                                  .inputs = {in},
                                  .channels = channels,
                                  .kernel = kernel,
                                  .stride = stride,
                                  .padding = padding,
                                  .relu = relu};
    layer.weights = random_floats(fan_in * channels, sqrtf(6.0F / (float)fan_in));
    layer.bias = random_floats(channels, 0.2F);
    return append(network, layer);
}

static inline uint32_t conv(struct network *network, uint32_t in, uint32_t channels)
{
    return conv_with(network, in, channels, 3, 1, 1, true);
}

static inline uint32_t head(struct network *network, uint32_t in, uint32_t classes)
{
    return conv_with(network, in, classes, 1, 1, 0, false);
}

static inline uint32_t conv_up(struct network *network, uint32_t in, uint32_t channels)
{
    size_t from = channels_of(network, in);
    struct network_layer layer = {.op = NETWORK_CONV_UP, .inputs = {in}, .channels = channels};
    layer.weights = random_floats(from * channels * 4, sqrtf(3.0F / (float)from));
    layer.bias = random_floats(channels, 0.2F);
    return append(network, layer);
}

static inline uint32_t pool_with(struct network *network, uint32_t in, uint32_t kernel,
                                 uint32_t stride, uint32_t padding)
{
    return append(network, (struct network_layer){.op = NETWORK_MAX_POOL,
                                                  .inputs = {in},
                                                  .channels = channels_of(network, in),
                                                  .kernel = kernel,
                                                  .stride = stride,
                                                  .padding = padding});
}

static inline uint32_t upsample(struct network *network, uint32_t in, enum network_upsample mode)
{
    return append(network, (struct network_layer){.op = NETWORK_UPSAMPLE,
                                                  .inputs = {in},
                                                  .channels = channels_of(network, in),
                                                  .upsample = mode});
}

static inline uint32_t pair(struct network *network, enum network_op op, uint32_t a, uint32_t b)
{
    uint32_t channels = channels_of(network, a);
    channels += op == NETWORK_CONCAT ? channels_of(network, b) : 0;
    return append(network, (struct network_layer){.op = op,
                                                  .inputs = {a, b},
                                                  .channels = channels,
                                                  .relu = op == NETWORK_ADD && a % 2 == 0});
}

/* A UNet of two levels: transposed convolutions, odd sizes fitted, concat [skip, up] or [up, skip].
 */
static inline void two_levels(struct network *network, uint32_t in_channels, uint32_t base,
                              uint32_t classes, bool skip_first)
{
    start(network, in_channels, 1);
    network->size_min = 4;
    uint32_t skip[2];
    uint32_t x = 0;
    for (uint32_t level = 0; level < 2; level++) {
        x = conv(network, x, base << level);
        skip[level] = x = conv(network, x, base << level);
        x = pool_with(network, x, 2, 2, 0);
    }
    x = conv(network, x, base << 2);
    for (uint32_t level = 2; level-- > 0;) {
        x = conv_up(network, x, base << level);
        x = pair(network, NETWORK_FIT, x, skip[level]);
        x = skip_first ? pair(network, NETWORK_CONCAT, skip[level], x)
                       : pair(network, NETWORK_CONCAT, x, skip[level]);
        x = conv(network, x, base << level);
    }
    head(network, x, classes);
}

/* The same with resampling in place of transposed convolutions. */
static inline void resampled(struct network *network, enum network_upsample mode)
{
    start(network, 3, 2);
    uint32_t skip = conv(network, 0, 8);
    uint32_t x = pool_with(network, skip, 2, 2, 0);
    x = conv(network, x, 16);
    x = upsample(network, x, mode);
    x = pair(network, NETWORK_CONCAT, skip, x);
    x = conv(network, x, 8);
    head(network, x, 5);
}

/* A residual encoder: strided 7 x 7 stem, 3 x 3 pooling with padding, sums, 1 x 1 projections with
 * a stride. */
static inline void residual(struct network *network)
{
    start(network, 4, 8);
    uint32_t stem = conv_with(network, 0, 8, 7, 2, 3, true);
    uint32_t x = pool_with(network, stem, 3, 2, 1);
    uint32_t inner = conv_with(network, conv(network, x, 8), 8, 3, 1, 1, false);
    uint32_t level = pair(network, NETWORK_ADD, inner, x);
    uint32_t down = conv_with(network, level, 16, 3, 2, 1, false);
    uint32_t project = conv_with(network, level, 16, 1, 2, 0, false);
    x = pair(network, NETWORK_ADD, down, project);
    x = pair(network, NETWORK_CONCAT, upsample(network, x, NETWORK_NEAREST), level);
    x = conv(network, x, 8);
    x = pair(network, NETWORK_CONCAT, upsample(network, x, NETWORK_NEAREST), stem);
    x = upsample(network, conv(network, x, 8), NETWORK_NEAREST);
    conv_with(network, conv(network, x, 6), 3, 3, 1, 1, false);
}

/* What no popular family has: concats of concats, of the input, of a value with itself, of two
 * sums; a value that two concats take; crops; a network that ends in something else than a
 * convolution. */
static inline void odd(struct network *network)
{
    start(network, 5, 2);
    uint32_t a = conv(network, 0, 6);
    uint32_t sum = pair(network, NETWORK_ADD, a, a);
    uint32_t once = pair(network, NETWORK_CONCAT, sum, 0);
    uint32_t twice = pair(network, NETWORK_CONCAT, once, sum);
    uint32_t self = pair(network, NETWORK_CONCAT, sum, sum);
    uint32_t b = conv(network, twice, 4);
    uint32_t c = conv_with(network, self, 4, 4, 1, 0, true); /* 3 smaller each way */
    uint32_t fitted = pair(network, NETWORK_FIT, c, b);
    uint32_t cropped = pair(network, NETWORK_FIT, b, c);
    uint32_t d = conv(network, pair(network, NETWORK_CONCAT, fitted, b), 4);
    uint32_t e = pair(network, NETWORK_FIT, conv(network, cropped, 4), d);
    uint32_t bare = pair(network, NETWORK_FIT, 0, d);
    uint32_t f = conv(network, pair(network, NETWORK_CONCAT, bare, e), 4);
    pool_with(network, pair(network, NETWORK_ADD, f, d), 3, 1, 1);
}

/* ---- running ---- */

static const struct backend_preprocess plain = {.scale = 1};

struct size {
    uint32_t count;
    uint32_t height;
    uint32_t width;
};

/* Tiles and room for answers. */
struct tiles {
    struct backend_batch batch;
    const void *inputs[MAX_TILES];
    uint8_t *labels[MAX_TILES];
    float *logits[MAX_TILES];
    size_t pixels;
    size_t classes;
};

static inline void fill_random(void *data, size_t elements, uint32_t dtype)
{
    uint16_t *words = (uint16_t *)data;
    float *floats = (float *)data;
    for (size_t i = 0; i < elements; i++) {
        switch (dtype) {
        case UNETSERVE_F32: floats[i] = random_float(); break;
        case UNETSERVE_F16: /* subnormals too, no infinities */
            words[i] = (uint16_t)(random_bits() & 0xbbff);
            break;
        case UNETSERVE_U16:
        case UNETSERVE_I16: words[i] = (uint16_t)(random_bits() % 12000); break;
        default: ((uint8_t *)data)[i] = (uint8_t)random_bits(); break;
        }
    }
}

static inline void tiles_make(const struct network *network, uint32_t dtype, uint32_t count,
                              uint32_t height, uint32_t width, struct tiles *out)
{
    *out = (struct tiles){.pixels = (size_t)height * width, .classes = network->classes};
    out->batch = (struct backend_batch){.count = count,
                                        .dtype = dtype,
                                        .height = height,
                                        .width = width,
                                        .inputs = out->inputs,
                                        .labels = out->labels,
                                        .logits = out->logits};
    for (uint32_t i = 0; i < count; i++) {
        size_t elements = out->pixels * network->in_channels;
        void *data = malloc(elements * unetserve_dtype_size(dtype));
        assert_non_null(data);
        fill_random(data, elements, dtype);
        out->inputs[i] = data;
        out->labels[i] = (uint8_t *)malloc(out->pixels);
        assert_non_null(out->labels[i]);
        out->logits[i] = (float *)malloc(out->pixels * out->classes * sizeof(float));
        assert_non_null(out->logits[i]);
    }
}

/* The same tiles, and room for answers of their own. */
static inline void tiles_make_like(const struct network *network, const struct tiles *like,
                                   struct tiles *out)
{
    const struct backend_batch *batch = &like->batch;
    tiles_make(network, batch->dtype, batch->count, batch->height, batch->width, out);
    for (uint32_t i = 0; i < batch->count; i++) {
        memcpy((void *)(uintptr_t)out->inputs[i], like->inputs[i],
               out->pixels * network->in_channels * unetserve_dtype_size(batch->dtype));
    }
}

static inline void tiles_free(struct tiles *tiles)
{
    for (size_t i = 0; i < MAX_TILES; i++) {
        free((void *)(uintptr_t)tiles->inputs[i]);
        free(tiles->labels[i]);
        free(tiles->logits[i]);
    }
}

/* Share of pixels whose labels differ, and the largest and the average difference of logits as
 * shares of the largest logit. */
struct difference {
    double labels;
    double logits;
    double average;
};

static inline struct difference compare(const struct tiles *tiles, uint8_t *const *labels,
                                        float *const *logits)
{
    size_t differing = 0;
    double largest = 0;
    double error = 0;
    double sum = 0;
    for (uint32_t i = 0; i < tiles->batch.count; i++) {
        for (size_t p = 0; p < tiles->pixels; p++) {
            differing += tiles->labels[i][p] != labels[i][p];
        }
        for (size_t k = 0; k < tiles->pixels * tiles->classes; k++) {
            assert_true(isfinite(tiles->logits[i][k]));
            largest = fmax(largest, fabs((double)logits[i][k]));
            double off = fabs((double)tiles->logits[i][k] - (double)logits[i][k]);
            error = fmax(error, off);
            sum += off;
        }
    }
    double pixels = (double)tiles->pixels * tiles->batch.count;
    return (struct difference){.labels = (double)differing / pixels,
                               .logits = error / largest,
                               .average = sum / (pixels * (double)tiles->classes) / largest};
}

/* ---- networks that round nothing ---- */

/* Weights of which each sum takes two, and small whole numbers all through: nothing is rounded, by
 * nobody. */
static inline void make_exact_layer(struct network *network, size_t number)
{
    struct network_layer *layer = &network->layers[number];
    size_t in = channels_of(network, layer->inputs[0]);
    bool up = layer->op == NETWORK_CONV_UP;
    size_t window = up ? 4 : (size_t)layer->kernel * layer->kernel;
    if (layer->weights == NULL) {
        return;
    }
    memset(layer->weights, 0, in * window * layer->channels * sizeof(float));
    for (size_t k = 0; k < 2 * (size_t)layer->channels; k++) {
        size_t channel = k / 2;
        size_t from = random_bits() % in;
        size_t at = random_bits() % window;
        float weight = random_bits() % 2 != 0 ? 1.0F : -1.0F;
        layer->weights[up ? (from * layer->channels + channel) * 4 + at
                          : (channel * in + from) * window + at] = weight;
        layer->bias[channel] = (float)(random_bits() % 3) - 1.0F;
    }
}

static inline void make_whole(const struct tiles *tiles, const struct network *network, float add)
{
    for (uint32_t i = 0; i < tiles->batch.count; i++) {
        float *values = (float *)(uintptr_t)tiles->inputs[i];
        for (size_t k = 0; k < tiles->pixels * network->in_channels; k++) {
            values[k] = (float)(random_bits() % 4) - 1.0F + add;
        }
    }
}

/* ---- ranges for int8 ---- */

static inline void note_channel(struct quantise_channel *channel, float value)
{
    channel->low = fminf(channel->low, value);
    channel->high = fmaxf(channel->high, value);
    channel->mean += value; /* a sum, until ranges_make divides it */
}

static inline void note_range(void *opaque, size_t layer, const struct backend_sight *sight)
{
    struct quantise_range *range = &((struct quantise_ranges *)opaque)->layers[layer];
    range->known = true;
    for (size_t p = 0; p < sight->pixels; p++) {
        for (size_t c = 0; c < sight->channels; c++) {
            float value = sight->data[p * sight->pitch + c * sight->step];
            range->low = fminf(range->low, value);
            range->high = fmaxf(range->high, value);
            note_channel((struct quantise_channel *)&range->channels[c], value);
        }
    }
}

static inline void ranges_room(const struct network *network, struct quantise_ranges *out)
{
    size_t channels = 0;
    *out = (struct quantise_ranges){.layer_count = network->layer_count};
    out->layers = (struct quantise_range *)calloc(network->layer_count, sizeof *out->layers);
    for (size_t i = 0; i < network->layer_count; i++) {
        channels += network->layers[i].channels;
    }
    out->channels = (struct quantise_channel *)calloc(channels, sizeof *out->channels);
    assert_true(out->layers != NULL && out->channels != NULL);
    const struct quantise_channel *next = out->channels;
    for (size_t i = 0; i < network->layer_count; i++) {
        out->layers[i].channel_count = network->layers[i].channels;
        out->layers[i].channels = next;
        next += network->layers[i].channels;
    }
}

static inline void ranges_divide(const struct network *network, const struct backend_batch *batch,
                                 struct quantise_ranges *out)
{
    struct quantise_channel *next = out->channels;
    for (uint32_t i = 0; i < network->layer_count; i++) {
        uint32_t channels = 0;
        uint32_t height = 0;
        uint32_t width = 0;
        assert_int_equal(network_value_shape(network, i + 1, batch->height, batch->width, &channels,
                                             &height, &width),
                         0);
        for (uint32_t c = 0; c < channels; c++, next++) {
            next->mean /= (float)((size_t)height * width * batch->count);
        }
    }
}

/* What each layer, and each of its channels, puts out on a batch, as the named backend sees it. */
static inline void ranges_make(const struct network *network, const char *backend,
                               const struct backend_preprocess *preprocess,
                               const struct backend_batch *batch, struct quantise_ranges *out)
{
    ranges_room(network, out);
    struct backend_options options = {.precision = "f32",
                                      .threads = 2,
                                      .preprocess = *preprocess,
                                      .observe = note_range,
                                      .opaque = out};
    char error[256] = "";
    void *instance = NULL;
    assert_int_equal(
        backend_find(backend)->create(network, &options, &instance, error, sizeof error), 0);
    assert_int_equal(backend_find(backend)->forward(instance, batch), 0);
    backend_find(backend)->destroy(instance);
    ranges_divide(network, batch, out);
    quantise_ranges_seal(out);
}

/* An instance in int8; what create returned. */
static inline int try_int8(const struct backend *backend, const struct network *network,
                           const struct quantise_ranges *ranges, uint32_t threads, void **instance)
{
    struct backend_options options = {
        .precision = "int8", .threads = threads, .preprocess = plain, .ranges = ranges};
    char error[512] = "";
    int rc = backend->create(network, &options, instance, error, sizeof error);
    assert_true(rc == 0 || error[0] != '\0');
    return rc;
}

#endif
