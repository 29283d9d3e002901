/*
 * The reference backend: every operation written as its definition, in float32, on planes of H x W
 * (and in the integers of quantise.h). Its only concession to speed is that the innermost loops run
 * along rows. Values are freed after their last use.
 */
#include "../backends.h"
#include "reference_image.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reference {
    struct network network; /* a deep copy */
    bool integer;           /* precision int8, and then: */
    struct quantise_plan plan;
    struct quantise_conv *convs; /* by layer, where it sums integers */
    struct backend_preprocess preprocess;
    void (*tick)(void *opaque);
    backend_observe *observe;
    void *opaque;       /* of both */
    uint32_t *last_use; /* by value: the layer that reads it last */
};

static size_t plane_elements(const struct image *image)
{
    return (size_t)image->height * image->width;
}

static const float *row_of(const struct image *image, uint32_t channel, uint32_t y)
{
    return image->data + ((size_t)channel * image->height + y) * image->width;
}

static float *row_to(struct image *image, uint32_t channel, uint32_t y)
{
    return image->data + ((size_t)channel * image->height + y) * image->width;
}

static float *copy_floats(const float *from, size_t count)
{
    float *to = malloc(count * sizeof *to);
    return to ? memcpy(to, from, count * sizeof *to) : NULL;
}

static void clamp_negative(float *data, size_t elements)
{
    for (size_t i = 0; i < elements; i++)
        data[i] = data[i] < 0.0f ? 0.0f : data[i];
}

/* ---- operations ---- */

/* out[x] += weight * in[x * stride + shift] wherever that lies inside the row. */
static void add_row(float *restrict out, uint32_t out_width, const float *restrict in,
                    uint32_t in_width, float weight, int64_t shift, uint32_t stride)
{
    int64_t first = shift < 0 ? (-shift + stride - 1) / stride : 0;
    int64_t reach = (int64_t)in_width - 1 - shift;
    if (reach < 0)
        return;
    int64_t end = reach / stride + 1;
    if (end > out_width)
        end = out_width;
    if (stride == 1) {
        const float *from = in + shift;
        for (int64_t x = first; x < end; x++)
            out[x] += weight * from[x];
    } else {
        for (int64_t x = first; x < end; x++)
            out[x] += weight * in[x * stride + shift];
    }
}

/* One row of one output channel: bias, then every tap of every input channel. */
static void conv_row(const struct network_layer *layer, const struct image *in, uint32_t channel,
                     uint32_t y, float *out, uint32_t out_width)
{
    uint32_t kernel = layer->kernel;
    const float *weights = layer->weights + (size_t)channel * in->channels * kernel * kernel;
    for (uint32_t x = 0; x < out_width; x++)
        out[x] = layer->bias[channel];
    for (uint32_t c = 0; c < in->channels; c++) {
        for (uint32_t ky = 0; ky < kernel; ky++) {
            int64_t from = (int64_t)y * layer->stride + ky - layer->padding;
            if (from < 0 || from >= in->height)
                continue;
            const float *row = row_of(in, c, (uint32_t)from);
            const float *taps = weights + ((size_t)c * kernel + ky) * kernel;
            for (uint32_t kx = 0; kx < kernel; kx++)
                add_row(out, out_width, row, in->width, taps[kx], (int64_t)kx - layer->padding,
                        layer->stride);
        }
    }
}

static void run_conv(const struct network_layer *layer, const struct image *in, struct image *out)
{
    for (uint32_t channel = 0; channel < out->channels; channel++)
        for (uint32_t y = 0; y < out->height; y++)
            conv_row(layer, in, channel, y, row_to(out, channel, y), out->width);
    if (layer->relu)
        clamp_negative(out->data, plane_elements(out) * out->channels);
}

/* Each input pixel spreads over a 2x2 square that no other one touches. */
static void run_conv_up(const struct network_layer *layer, const struct image *in,
                        struct image *out)
{
    for (uint32_t channel = 0; channel < out->channels; channel++) {
        for (uint32_t y = 0; y < out->height; y++) {
            float *to = row_to(out, channel, y);
            for (size_t x = 0; x < in->width; x++)
                to[2 * x] = to[2 * x + 1] = layer->bias[channel];
            for (uint32_t c = 0; c < in->channels; c++) {
                const float *from = row_of(in, c, y / 2);
                const float *taps = layer->weights +
                                    (((size_t)c * out->channels + channel) * 2 + y % 2) * 2;
                for (size_t x = 0; x < in->width; x++) {
                    to[2 * x] += taps[0] * from[x];
                    to[2 * x + 1] += taps[1] * from[x];
                }
            }
        }
    }
}

static float pool_at(const struct network_layer *layer, const struct image *in, uint32_t channel,
                     uint32_t y, uint32_t x)
{
    float best = -INFINITY;
    for (uint32_t ky = 0; ky < layer->kernel; ky++) {
        int64_t from_y = (int64_t)y * layer->stride + ky - layer->padding;
        if (from_y < 0 || from_y >= in->height)
            continue;
        const float *row = row_of(in, channel, (uint32_t)from_y);
        for (uint32_t kx = 0; kx < layer->kernel; kx++) {
            int64_t from_x = (int64_t)x * layer->stride + kx - layer->padding;
            if (from_x >= 0 && from_x < in->width && row[from_x] > best)
                best = row[from_x];
        }
    }
    return best;
}

static void run_max_pool(const struct network_layer *layer, const struct image *in,
                         struct image *out)
{
    for (uint32_t channel = 0; channel < out->channels; channel++)
        for (uint32_t y = 0; y < out->height; y++)
            for (uint32_t x = 0; x < out->width; x++)
                row_to(out, channel, y)[x] = pool_at(layer, in, channel, y, x);
}

/* Where an output position falls between two inputs. Not aligned: pixel centres correspond;
 * aligned: corner pixels do. */
struct between {
    uint32_t low;
    uint32_t high;
    float fraction; /* weight of high */
};

static struct between find_between(uint32_t at, uint32_t in, uint32_t out, bool aligned)
{
    float place;
    if (aligned)
        place = out > 1 ? (float)at * ((float)(in - 1) / (float)(out - 1)) : 0.0f;
    else
        place = ((float)at + 0.5f) * ((float)in / (float)out) - 0.5f;
    if (place < 0.0f)
        place = 0.0f;
    uint32_t low = (uint32_t)place;
    if (low > in - 1)
        low = in - 1;
    return (struct between){low, low + 1 < in ? low + 1 : low, place - (float)low};
}

static void run_bilinear(bool aligned, const struct image *in, struct image *out)
{
    for (uint32_t channel = 0; channel < out->channels; channel++) {
        for (uint32_t y = 0; y < out->height; y++) {
            struct between v = find_between(y, in->height, out->height, aligned);
            const float *upper = row_of(in, channel, v.low);
            const float *lower = row_of(in, channel, v.high);
            float *to = row_to(out, channel, y);
            for (uint32_t x = 0; x < out->width; x++) {
                struct between h = find_between(x, in->width, out->width, aligned);
                float a = upper[h.low] * (1.0f - h.fraction) + upper[h.high] * h.fraction;
                float b = lower[h.low] * (1.0f - h.fraction) + lower[h.high] * h.fraction;
                to[x] = a * (1.0f - v.fraction) + b * v.fraction;
            }
        }
    }
}

static void run_nearest(const struct image *in, struct image *out)
{
    for (uint32_t channel = 0; channel < out->channels; channel++)
        for (uint32_t y = 0; y < out->height; y++)
            for (uint32_t x = 0; x < out->width; x++)
                row_to(out, channel, y)[x] = row_of(in, channel, y / 2)[x / 2];
}

static void run_upsample(const struct network_layer *layer, const struct image *in,
                         struct image *out)
{
    if (layer->upsample == NETWORK_NEAREST)
        run_nearest(in, out);
    else
        run_bilinear(layer->upsample == NETWORK_BILINEAR_ALIGNED, in, out);
}

static void run_concat(const struct image *first, const struct image *second, struct image *out)
{
    size_t head = plane_elements(first) * first->channels;
    memcpy(out->data, first->data, head * sizeof *out->data);
    memcpy(out->data + head, second->data,
           plane_elements(second) * second->channels * sizeof *out->data);
}

/* How far a padded side moves: F.pad puts floor(difference / 2) before, where a negative difference
 * crops. */
static int64_t fit_before(uint32_t from, uint32_t to)
{
    int64_t difference = (int64_t)to - from;
    return difference >= 0 ? difference / 2 : -((1 - difference) / 2);
}

/* zero: what stands for it, channel by channel; NULL: itself. */
static void run_fit(const struct image *in, const float *zero, struct image *out)
{
    int64_t top = fit_before(in->height, out->height);
    int64_t left = fit_before(in->width, out->width);
    for (uint32_t channel = 0; channel < out->channels; channel++) {
        for (uint32_t y = 0; y < out->height; y++) {
            float *to = row_to(out, channel, y);
            int64_t from_y = (int64_t)y - top;
            bool inside = from_y >= 0 && from_y < in->height;
            const float *from = inside ? row_of(in, channel, (uint32_t)from_y) : NULL;
            for (uint32_t x = 0; x < out->width; x++) {
                int64_t from_x = (int64_t)x - left;
                float outside = zero ? zero[channel] : 0.0f;
                to[x] = from && from_x >= 0 && from_x < in->width ? from[from_x] : outside;
            }
        }
    }
}

static void run_add(const struct network_layer *layer, const struct image *first,
                    const struct image *second, struct image *out)
{
    size_t elements = plane_elements(out) * out->channels;
    for (size_t i = 0; i < elements; i++)
        out->data[i] = first->data[i] + second->data[i];
    if (layer->relu)
        clamp_negative(out->data, elements);
}

static void run_float(const struct network_layer *layer, const struct image *first,
                      const struct image *second, const float *zero, struct image *out)
{
    switch (layer->op) {
    case NETWORK_CONV: run_conv(layer, first, out); break;
    case NETWORK_CONV_UP: run_conv_up(layer, first, out); break;
    case NETWORK_MAX_POOL: run_max_pool(layer, first, out); break;
    case NETWORK_UPSAMPLE: run_upsample(layer, first, out); break;
    case NETWORK_CONCAT: run_concat(first, second, out); break;
    case NETWORK_FIT: run_fit(first, zero, out); break;
    case NETWORK_ADD: run_add(layer, first, second, out); break;
    }
}

/* The numbers of an input that is coded, in a copy. */
static int decoded(const struct quantise_value *value, const struct image *in, struct image *out)
{
    *out = *in;
    size_t elements = plane_elements(in) * in->channels;
    out->data = copy_floats(in->data, elements);
    if (!out->data)
        return -ENOMEM;
    if (value->coded)
        reference_decode(value, out);
    return 0;
}

static int run_coded_add(const struct reference *self, const struct network_layer *layer,
                         const struct image *first, const struct image *second, struct image *out)
{
    struct image a = {0};
    struct image b = {0};
    int rc = decoded(&self->plan.values[layer->inputs[0]], first, &a);
    if (rc == 0)
        rc = decoded(&self->plan.values[layer->inputs[1]], second, &b);
    if (rc == 0)
        run_add(layer, &a, &b, out);
    free(a.data);
    free(b.data);
    return rc;
}

/* A layer of a network in precision int8: integers where its convolution reads codes, else as in
 * f32, and then to codes if those are wanted. */
static int run_int8(const struct reference *self, size_t index, const struct image *first,
                    const struct image *second, struct image *out)
{
    const struct network_layer *layer = &self->network.layers[index];
    const struct quantise_value *from = &self->plan.values[layer->inputs[0]];
    const struct quantise_value *value = &self->plan.values[index + 1];
    if (self->convs[index].weights)
        return reference_run_integer(layer, &self->convs[index], from, first, value, out);
    int rc = 0;
    if (layer->op == NETWORK_ADD)
        rc = run_coded_add(self, layer, first, second, out);
    else
        run_float(layer, first, second, value->coded ? value->zero : NULL, out);
    if (rc == 0 && value->coded && quantise_makes_numbers(layer))
        reference_encode(value, out);
    else if (value->coded)
        reference_round(out);
    return rc;
}

static int run_layer(const struct reference *self, size_t index, const struct image *first,
                     const struct image *second, struct image *out)
{
    if (self->integer)
        return run_int8(self, index, first, second, out);
    run_float(&self->network.layers[index], first, second, NULL, out);
    return 0;
}

/* ---- one tile ---- */

static bool reads_second(enum network_op op)
{
    return op == NETWORK_CONCAT || op == NETWORK_FIT || op == NETWORK_ADD;
}

static int make_image(const struct reference *self, uint32_t value, uint32_t height, uint32_t width,
                      struct image *out)
{
    struct image image = {0};
    int rc = network_value_shape(&self->network, value, height, width, &image.channels,
                                 &image.height, &image.width);
    if (rc < 0)
        return rc;
    size_t elements;
    if (__builtin_mul_overflow(plane_elements(&image), (size_t)image.channels, &elements) ||
        elements > SIZE_MAX / sizeof(float))
        return -ENOMEM;
    image.data = malloc(elements * sizeof(float));
    if (!image.data)
        return -ENOMEM;
    *out = image;
    return 0;
}

static void drop_image(struct image *image)
{
    free(image->data);
    image->data = NULL;
}

static int run_layers(const struct reference *self, uint32_t height, uint32_t width,
                      struct image *values)
{
    const struct network *network = &self->network;
    for (uint32_t i = 0; i < network->layer_count; i++) {
        const struct network_layer *layer = &network->layers[i];
        int rc = make_image(self, i + 1, height, width, &values[i + 1]);
        if (rc < 0)
            return rc;
        struct image *out = &values[i + 1];
        rc = run_layer(self, i, &values[layer->inputs[0]], &values[layer->inputs[1]], out);
        if (rc < 0)
            return rc;
        if (self->observe)
            self->observe(self->opaque, i,
                          &(struct backend_sight){out->data, out->channels, plane_elements(out), 1,
                                                  plane_elements(out)});
        for (uint32_t k = 0; k < 2; k++) {
            uint32_t input = layer->inputs[k];
            if (self->last_use[input] == i)
                drop_image(&values[input]);
        }
        if (self->tick)
            self->tick(self->opaque);
    }
    return 0;
}

static void label_pixels(const struct image *logits, uint8_t *labels)
{
    size_t pixels = plane_elements(logits);
    for (size_t i = 0; i < pixels; i++) {
        if (logits->channels == 1) {
            labels[i] = logits->data[i] > 0.0f;
            continue;
        }
        uint32_t best = 0;
        for (uint32_t c = 1; c < logits->channels; c++)
            if (logits->data[c * pixels + i] > logits->data[best * pixels + i])
                best = c;
        labels[i] = (uint8_t)best;
    }
}

static int run_tile(const struct reference *self, const struct backend_batch *batch, uint32_t tile,
                    struct image *values)
{
    int rc = make_image(self, 0, batch->height, batch->width, &values[0]);
    if (rc < 0)
        return rc;
    backend_preprocess_f32(&self->preprocess, batch->dtype, batch->inputs[tile],
                           plane_elements(&values[0]) * values[0].channels, values[0].data);
    rc = run_layers(self, batch->height, batch->width, values);
    if (rc < 0)
        return rc;
    const struct image *logits = &values[self->network.layer_count];
    if (batch->logits)
        memcpy(batch->logits[tile], logits->data,
               plane_elements(logits) * logits->channels * sizeof(float));
    if (batch->labels)
        label_pixels(logits, batch->labels[tile]);
    return 0;
}

static bool dtype_is_known(uint32_t dtype)
{
    return dtype >= UNETSERVE_U8 && dtype <= UNETSERVE_F32;
}

static int reference_forward(void *instance, const struct backend_batch *batch)
{
    const struct reference *self = instance;
    const struct network *network = &self->network;
    if (!dtype_is_known(batch->dtype) || batch->height < network->size_min ||
        batch->width < network->size_min || batch->height % network->size_multiple ||
        batch->width % network->size_multiple)
        return -EINVAL;
    size_t count = network->layer_count + 1;
    struct image *values = calloc(count, sizeof *values);
    if (!values)
        return -ENOMEM;
    int rc = 0;
    for (uint32_t tile = 0; tile < batch->count && rc == 0; tile++) {
        rc = run_tile(self, batch, tile, values);
        for (size_t i = 0; i < count; i++)
            drop_image(&values[i]);
    }
    free(values);
    return rc;
}

/* ---- an instance ---- */

static int reference_probe(char *error, size_t error_size)
{
    (void)error;
    (void)error_size;
    return 0;
}

static void reference_destroy(void *instance)
{
    struct reference *self = instance;
    if (!self)
        return;
    for (size_t i = 0; self->convs && i < self->network.layer_count; i++)
        quantise_conv_free(&self->convs[i]);
    free(self->convs);
    quantise_plan_free(&self->plan);
    network_free(&self->network);
    free(self->last_use);
    free(self);
}

/* Channels of a value: the network's, or those of the layer that makes it. */
static uint32_t value_channels(const struct network *network, uint32_t value)
{
    return value ? network->layers[value - 1].channels : network->in_channels;
}

static int copy_layer(const struct network *from, size_t index, struct network *to)
{
    const struct network_layer *source = &from->layers[index];
    struct network_layer *layer = &to->layers[index];
    *layer = *source;
    layer->weights = NULL;
    layer->bias = NULL;
    to->layer_count = index + 1;
    if (!source->weights)
        return 0;
    uint32_t kernel = source->op == NETWORK_CONV ? source->kernel : 2;
    size_t inputs = value_channels(from, source->inputs[0]);
    layer->weights = copy_floats(source->weights, inputs * source->channels * kernel * kernel);
    layer->bias = copy_floats(source->bias, source->channels);
    return layer->weights && layer->bias ? 0 : -ENOMEM;
}

static int copy_network(const struct network *from, struct network *to)
{
    *to = *from;
    to->layer_count = 0;
    to->layers = calloc(from->layer_count, sizeof *to->layers);
    if (!to->layers)
        return -ENOMEM;
    int rc = 0;
    for (size_t i = 0; i < from->layer_count && rc == 0; i++)
        rc = copy_layer(from, i, to);
    return rc;
}

static int find_last_uses(struct reference *self)
{
    const struct network *network = &self->network;
    self->last_use = calloc(network->layer_count + 1, sizeof *self->last_use);
    if (!self->last_use)
        return -ENOMEM;
    for (size_t i = 0; i <= network->layer_count; i++)
        self->last_use[i] = UINT32_MAX; /* the result is read by nobody and stays */
    for (uint32_t i = 0; i < network->layer_count; i++) {
        const struct network_layer *layer = &network->layers[i];
        self->last_use[layer->inputs[0]] = i;
        if (reads_second(layer->op))
            self->last_use[layer->inputs[1]] = i;
    }
    return 0;
}

static int quantise(const struct quantise_ranges *ranges, struct reference *self)
{
    const struct network *network = &self->network;
    self->convs = calloc(network->layer_count, sizeof *self->convs);
    int rc = self->convs ? quantise_plan_create(network, ranges, &self->plan) : -ENOMEM;
    for (size_t i = 0; i < network->layer_count && rc == 0; i++)
        if (quantise_layer_is_integer(network, &self->plan, i))
            rc = quantise_conv_create(network, &self->plan, i, &self->convs[i]);
    self->integer = true;
    return rc;
}

static int check_precision(const char *precision, char *error, size_t error_size)
{
    static const char *const known[] = {"auto", "f32", "int8"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(precision, known[i]) == 0)
            return 0;
    snprintf(error, error_size, "the reference backend computes in f32 or int8, not in %s",
             precision);
    return -EINVAL;
}

static int check(const struct network *network, const struct backend_options *options, char *error,
                 size_t error_size)
{
    if (strcmp(options->precision, "int8") == 0)
        return backend_check_ranges(network, options, error, error_size);
    return check_precision(options->precision, error, error_size);
}

static int reference_create(const struct network *network, const struct backend_options *options,
                            void **instance, char *error, size_t error_size)
{
    int rc = check(network, options, error, error_size);
    if (rc < 0)
        return rc;
    if (network->layer_count == 0 || options->preprocess.scale == 0.0f) {
        snprintf(error, error_size, "a network without layers, or a scale of 0");
        return -EINVAL;
    }
    rc = backend_load(network, options, &network, error, error_size);
    if (rc < 0)
        return rc;
    struct reference *self = calloc(1, sizeof *self);
    rc = self ? copy_network(network, &self->network) : -ENOMEM;
    if (rc == 0)
        rc = find_last_uses(self);
    if (rc == 0 && strcmp(options->precision, "int8") == 0)
        rc = quantise(options->ranges, self);
    if (rc < 0) {
        snprintf(error, error_size, "out of memory");
        reference_destroy(self);
        return rc;
    }
    self->preprocess = options->preprocess;
    self->tick = options->tick;
    self->observe = self->integer ? NULL : options->observe;
    self->opaque = options->opaque;
    *instance = self;
    return 0;
}

static const char *reference_precision(const void *instance)
{
    const struct reference *self = instance;
    return self->integer ? "int8" : "f32";
}

const struct backend backend_reference = {
    .abi = BACKEND_ABI,
    .name = "reference",
    .probe = reference_probe,
    .check_precision = check_precision,
    .create = reference_create,
    .forward = reference_forward,
    .precision = reference_precision,
    .destroy = reference_destroy,
};
