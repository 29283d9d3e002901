#include "family_layers.h"

#include <emmintrin.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NORM_EPSILON    1e-5
#define CHANNELS_MAX    65535u
#define WEIGHTS_LARGEST ((uint64_t)1 << 30) /* elements of one convolution */

/* Append a layer; its value number is the new count. NULL when there is no room for it. */
static struct network_layer *add_layer(struct layer_builder *builder, enum network_op op,
                                       uint32_t first, uint32_t second, uint32_t channels)
{
    struct network *network = &builder->network;
    if (network->layer_count >= NETWORK_MAX_LAYERS) {
        family_report_object(builder->report, "more than %d layers", NETWORK_MAX_LAYERS);
        return NULL;
    }
    if (network->layer_count == builder->capacity) {
        size_t wanted = builder->capacity ? builder->capacity * 2 : 64;
        struct network_layer *larger = reallocarray(network->layers, wanted, sizeof *larger);
        if (!larger) {
            builder->rc = -ENOMEM;
            return NULL;
        }
        network->layers = larger;
        builder->capacity = wanted;
    }
    struct network_layer *layer = &network->layers[network->layer_count++];
    *layer = (struct network_layer){.op = op, .inputs = {first, second}, .channels = channels};
    builder->channels[network->layer_count] = channels;
    return layer;
}

static uint32_t last_value(const struct layer_builder *builder)
{
    return (uint32_t)builder->network.layer_count;
}

void layers_missing(struct layer_builder *builder, const char *path, enum module_leaf leaf,
                    uint32_t rank, const uint64_t *dims)
{
    char name[FAMILY_PATH_MAX + 24];
    snprintf(name, sizeof name, "%s.%s", path, module_leaf_name(leaf));
    family_report_missing(builder->report, name, rank, dims);
}

static bool same_dims(const struct weights_tensor *tensor, uint32_t rank, const uint64_t *dims)
{
    return tensor->rank == rank && memcmp(tensor->dims, dims, rank * sizeof *dims) == 0;
}

/* Is the leaf there, of that shape and made of floats? Reports what is wrong. */
static bool check_leaf(struct layer_builder *builder, const struct module *module,
                       enum module_leaf leaf, uint32_t rank, const uint64_t *want)
{
    const struct weights_tensor *tensor = module->leaves[leaf];
    if (!tensor) {
        layers_missing(builder, module->path, leaf, rank, want);
        return false;
    }
    if (!same_dims(tensor, rank, want)) {
        family_report_shape(builder->report, tensor->name, tensor->rank, tensor->dims, rank, want);
        return false;
    }
    if (tensor->dtype > WEIGHTS_BF16) {
        family_report_object(builder->report, "%.160s holds integers, not floating-point numbers",
                             tensor->name);
        return false;
    }
    return true;
}

/* A convolution's weight: in_at is the dimension that must agree with the input's channels. */
static bool check_weight(struct layer_builder *builder, const struct module *conv, int in_at,
                         uint32_t in_channels, uint32_t kernel)
{
    const struct weights_tensor *weight = conv->leaves[LEAF_WEIGHT];
    uint64_t want[4] = {weight->dims[0], weight->dims[1], kernel, kernel};
    if (in_channels)
        want[in_at] = in_channels;
    if (!check_leaf(builder, conv, LEAF_WEIGHT, 4, want))
        return false;
    if (want[0] == 0 || want[1] == 0 || want[0] > CHANNELS_MAX || want[1] > CHANNELS_MAX ||
        weight->elements > WEIGHTS_LARGEST) {
        family_report_object(builder->report, "%.160s: no such number of channels is supported",
                             weight->name);
        return false;
    }
    return true;
}

/* The leaf as new floats; NULL when memory ran out. */
static float *load_leaf(struct layer_builder *builder, const struct module *module,
                        enum module_leaf leaf)
{
    const struct weights_tensor *tensor = module->leaves[leaf];
    float *values = malloc((size_t)tensor->elements * sizeof *values);
    if (!values || weights_to_f32(tensor, values) < 0) {
        free(values);
        builder->rc = -ENOMEM;
        return NULL;
    }
    return values;
}

static __m128i larger(__m128i a, __m128i b)
{
    __m128i a_is = _mm_cmpgt_epi32(a, b);
    return _mm_or_si128(_mm_and_si128(a_is, a), _mm_andnot_si128(a_is, b));
}

/* Of finite floats, the magnitude that none of them exceeds; if one is not finite, that is not
 * either: without their sign, bits are ordered as magnitudes are, with infinities and NaNs above
 * all numbers. The floats may be unaligned. */
static float largest_magnitude(const void *floats, size_t count)
{
    const unsigned char *at = floats;
    const __m128i magnitude = _mm_set1_epi32(0x7fffffff);
    __m128i most[2] = {_mm_setzero_si128(), _mm_setzero_si128()};
    uint32_t bits[4], largest = 0;
    for (; count >= 8; count -= 8, at += 32) {
        __m128i first = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i second = _mm_loadu_si128((const __m128i *)(const void *)(at + 16));
        most[0] = larger(_mm_and_si128(first, magnitude), most[0]);
        most[1] = larger(_mm_and_si128(second, magnitude), most[1]);
    }
    _mm_storeu_si128((__m128i *)(void *)bits, larger(most[0], most[1]));
    for (size_t i = 0; i < 4 + count; i++) {
        uint32_t one;
        memcpy(&one, i < 4 ? (const void *)&bits[i] : at + (i - 4) * sizeof one, sizeof one);
        one &= 0x7fffffff;
        largest = one > largest ? one : largest;
    }
    float value;
    memcpy(&value, &largest, sizeof value);
    return value;
}

/* The largest magnitude of each of a convolution's rows (its first dimension): they are finite, and
 * are so after any factor, where all of the row is. NULL when memory ran out. */
static float *load_largest(struct layer_builder *builder, const struct weights_tensor *tensor)
{
    size_t rows = (size_t)tensor->dims[0];
    struct weights_tensor part = *tensor;
    part.elements = tensor->elements / rows;
    part.bytes = tensor->bytes / rows;
    float *largest = malloc(rows * sizeof *largest);
    float *row = malloc((size_t)part.elements * sizeof *row);
    bool loaded = largest && row;
    for (size_t i = 0; loaded && i < rows; i++) {
        part.data = (const unsigned char *)tensor->data + i * part.bytes;
        bool as_it_is = part.dtype == WEIGHTS_F32;
        loaded = as_it_is || weights_to_f32(&part, row) == 0;
        largest[i] = largest_magnitude(as_it_is ? part.data : row, (size_t)part.elements);
    }
    free(row);
    if (loaded)
        return largest;
    free(largest);
    builder->rc = -ENOMEM;
    return NULL;
}

/* What torch would call learnable. */
static void count_parameters(struct layer_builder *builder, const struct module *module)
{
    if (!module)
        return;
    builder->network.parameters += module->leaves[LEAF_WEIGHT]->elements;
    if (module->leaves[LEAF_BIAS])
        builder->network.parameters += module->leaves[LEAF_BIAS]->elements;
}

/* Fold a norm into weights ([out][per_output]) and bias, in double: w' = w g / sqrt(v + eps), b' =
 * (b - m) g / sqrt(v + eps) + beta. */
static int fold_norm(struct layer_builder *builder, const struct module *norm,
                     struct network_layer *layer, size_t per_output)
{
    float *parts[4] = {NULL};
    for (int leaf = LEAF_WEIGHT; leaf <= LEAF_VAR; leaf++)
        parts[leaf] = load_leaf(builder, norm, (enum module_leaf)leaf);
    bool loaded = parts[LEAF_WEIGHT] && parts[LEAF_BIAS] && parts[LEAF_MEAN] && parts[LEAF_VAR];
    for (size_t c = 0; loaded && c < layer->channels; c++) {
        double factor = (double)parts[LEAF_WEIGHT][c] /
                        sqrt((double)parts[LEAF_VAR][c] + NORM_EPSILON);
        float *row = layer->weights + c * per_output;
        for (size_t i = 0; i < per_output; i++)
            row[i] = (float)((double)row[i] * factor);
        layer->bias[c] = (float)(((double)layer->bias[c] - (double)parts[LEAF_MEAN][c]) * factor +
                                 (double)parts[LEAF_BIAS][c]);
    }
    for (int i = 0; i < 4; i++)
        free(parts[i]);
    return loaded ? 0 : -ENOMEM;
}

static bool all_finite(const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return false;
    return true;
}

/* Read and fold a layer's numbers; of those that are not kept, the largest. */
static void load_values(struct layer_builder *builder, struct network_layer *layer,
                        const struct module *conv, const struct module *norm)
{
    const struct weights_tensor *weight = conv->leaves[LEAF_WEIGHT];
    bool whole = builder->values == LAYERS_KEEP;
    size_t count = (size_t)(whole ? weight->elements : weight->dims[0]);
    layer->weights = whole ? load_leaf(builder, conv, LEAF_WEIGHT) : load_largest(builder, weight);
    layer->bias = conv->leaves[LEAF_BIAS] ? load_leaf(builder, conv, LEAF_BIAS)
                                          : calloc(layer->channels, sizeof *layer->bias);
    if (!layer->weights || !layer->bias) {
        builder->rc = -ENOMEM;
        return;
    }
    if (norm && fold_norm(builder, norm, layer, count / layer->channels) < 0)
        return;
    if (!all_finite(layer->weights, count) || !all_finite(layer->bias, layer->channels))
        family_report_object(builder->report,
                             "%.160s: the weights hold a NaN, an infinity or a negative variance",
                             conv->path);
}

/* Give a layer its name and, where they are wanted, its numbers. Shapes are right by now. */
static void fill_layer(struct layer_builder *builder, struct network_layer *layer,
                       const struct module *conv, const struct module *norm)
{
    snprintf(layer->name, sizeof layer->name, "%.63s", conv->path);
    count_parameters(builder, conv);
    count_parameters(builder, norm);
    if (builder->values == LAYERS_SKIP)
        return;
    load_values(builder, layer, conv, norm);
    if (builder->values == LAYERS_KEEP)
        return;
    free(layer->weights);
    free(layer->bias);
    layer->weights = NULL;
    layer->bias = NULL;
}

static bool check_bias(struct layer_builder *builder, const struct module *conv, bool needed,
                       uint64_t channels)
{
    if (!conv->leaves[LEAF_BIAS] && !needed)
        return true;
    return check_leaf(builder, conv, LEAF_BIAS, 1, &channels);
}

static bool check_norm(struct layer_builder *builder, const struct module *norm, uint64_t channels)
{
    bool ok = true;
    for (int leaf = LEAF_WEIGHT; leaf <= LEAF_VAR; leaf++)
        if (!check_leaf(builder, norm, (enum module_leaf)leaf, 1, &channels))
            ok = false;
    return ok;
}

uint32_t layers_conv(struct layer_builder *builder, const struct layer_conv *what, uint32_t input)
{
    uint64_t outputs = what->conv->leaves[LEAF_WEIGHT]->dims[0];
    uint32_t channels = outputs <= CHANNELS_MAX ? (uint32_t)outputs : 0;
    bool ok = check_weight(builder, what->conv, 1, builder->channels[input], what->kernel);
    ok = check_bias(builder, what->conv, what->needs_bias, outputs) && ok;
    what->conv->used = true;
    if (what->norm) {
        ok = check_norm(builder, what->norm, outputs) && ok;
        what->norm->used = true;
    }
    struct network_layer *layer = add_layer(builder, NETWORK_CONV, input, 0, channels);
    if (layer) {
        layer->kernel = what->kernel;
        layer->stride = what->stride;
        layer->padding = what->padding;
        layer->relu = what->relu;
        if (ok)
            fill_layer(builder, layer, what->conv, what->norm);
    }
    return last_value(builder);
}

uint32_t layers_conv_up(struct layer_builder *builder, struct module *conv, bool needs_bias,
                        uint32_t input)
{
    uint64_t outputs = conv->leaves[LEAF_WEIGHT]->dims[1];
    uint32_t channels = outputs <= CHANNELS_MAX ? (uint32_t)outputs : 0;
    bool ok = check_weight(builder, conv, 0, builder->channels[input], 2);
    ok = check_bias(builder, conv, needs_bias, outputs) && ok;
    conv->used = true;
    struct network_layer *layer = add_layer(builder, NETWORK_CONV_UP, input, 0, channels);
    if (layer && ok)
        fill_layer(builder, layer, conv, NULL);
    return last_value(builder);
}

uint32_t layers_missing_conv(struct layer_builder *builder, const char *path, const uint64_t *dims,
                             uint32_t input)
{
    layers_missing(builder, path, LEAF_WEIGHT, 4, dims);
    uint32_t channels = dims[0] <= CHANNELS_MAX ? (uint32_t)dims[0] : 0;
    (void)add_layer(builder, NETWORK_CONV, input, 0, channels);
    return last_value(builder);
}

uint32_t layers_max_pool(struct layer_builder *builder, uint32_t kernel, uint32_t stride,
                         uint32_t padding, uint32_t input)
{
    struct network_layer *layer = add_layer(builder, NETWORK_MAX_POOL, input, 0,
                                            builder->channels[input]);
    if (layer) {
        layer->kernel = kernel;
        layer->stride = stride;
        layer->padding = padding;
    }
    return last_value(builder);
}

uint32_t layers_upsample(struct layer_builder *builder, enum network_upsample kind, uint32_t input)
{
    struct network_layer *layer = add_layer(builder, NETWORK_UPSAMPLE, input, 0,
                                            builder->channels[input]);
    if (layer)
        layer->upsample = kind;
    return last_value(builder);
}

uint32_t layers_concat(struct layer_builder *builder, uint32_t first, uint32_t second)
{
    uint32_t a = builder->channels[first];
    uint32_t b = builder->channels[second];
    (void)add_layer(builder, NETWORK_CONCAT, first, second, a && b ? a + b : 0);
    return last_value(builder);
}

uint32_t layers_fit(struct layer_builder *builder, uint32_t input, uint32_t reference)
{
    (void)add_layer(builder, NETWORK_FIT, input, reference, builder->channels[input]);
    return last_value(builder);
}

uint32_t layers_add(struct layer_builder *builder, uint32_t first, uint32_t second, bool relu)
{
    uint32_t a = builder->channels[first];
    uint32_t b = builder->channels[second];
    if (a && b && a != b)
        family_report_object(builder->report, "a sum of %u and %u channels", a, b);
    struct network_layer *layer = add_layer(builder, NETWORK_ADD, first, second, a ? a : b);
    if (layer)
        layer->relu = relu;
    return last_value(builder);
}
