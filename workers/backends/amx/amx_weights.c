#include "amx_weights.h"

#include "workers/backends/onednn/onednn_parallel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LINE_BYTES 64u
/* Pitches that are looked at: one more piece costs more than any padding of this kind. */
#define PITCH_TRIES 16u

/* In how many equal pieces of at most AMX_WORDS so many words are cut. */
static size_t pieces_of(size_t words)
{
    size_t pieces = (words + AMX_WORDS - 1) / AMX_WORDS;
    while (words % pieces != 0) {
        pieces++;
    }
    return pieces;
}

/* Values in a word. */
static uint32_t values_of(size_t element)
{
    return (uint32_t)(sizeof(uint32_t) / element);
}

uint32_t amx_pitch(uint32_t channels, size_t element)
{
    uint32_t values = values_of(element);
    uint32_t first = (channels + values - 1) / values;
    uint32_t best = first;
    for (uint32_t words = first + 1; words < first + PITCH_TRIES; words++) {
        best = pieces_of(words) < pieces_of(best) ? words : best;
    }
    return best * values;
}

/* Does a value certainly lie by itself, whatever the size of the image? */
static bool lies_alone(const struct network *network, uint32_t value)
{
    if (value > 0 && network->layers[value - 1].op == NETWORK_FIT) {
        return false;
    }
    for (size_t i = 0; i < network->layer_count; i++) {
        const struct network_layer *layer = &network->layers[i];
        bool joins = layer->op == NETWORK_CONCAT || layer->op == NETWORK_FIT;
        if (joins && (layer->inputs[0] == value || layer->inputs[1] == value)) {
            return false;
        }
    }
    return true;
}

static uint32_t channels_of(const struct network *network, uint32_t value)
{
    return value == 0 ? network->in_channels : network->layers[value - 1].channels;
}

struct amx_shape amx_shape_of(const struct network *network, const struct quantise_plan *codes,
                              size_t layer)
{
    const struct network_layer *l = &network->layers[layer];
    bool up = l->op == NETWORK_CONV_UP;
    bool whole = codes != NULL && quantise_layer_is_integer(network, codes, layer);
    bool encodes = codes != NULL && codes->values[layer + 1].coded;
    struct amx_shape shape = {.kernel = up ? 1 : l->kernel,
                              .element = whole ? 1 : sizeof(uint16_t),
                              .scales = whole     ? 1
                                        : encodes ? 2
                                                  : 0};
    shape.in_channels = amx_pitch(channels_of(network, l->inputs[0]), shape.element);
    shape.blocks = (up ? 4u : 1u) * ((l->channels + AMX_CHANNELS - 1) / AMX_CHANNELS);
    size_t words = shape.in_channels / values_of(shape.element);
    size_t run_pieces = pieces_of(shape.kernel * words);
    shape.pieces = pieces_of(words);
    shape.run = run_pieces < shape.kernel * shape.pieces && lies_alone(network, l->inputs[0]);
    if (shape.run) {
        shape.pieces = run_pieces;
        shape.words = shape.kernel * words / run_pieces;
        shape.steps = shape.kernel * run_pieces;
    } else {
        shape.words = words / shape.pieces;
        shape.steps = shape.kernel * shape.kernel * shape.pieces;
    }
    return shape;
}

/* Where a step is: row and column of the window, and the first of its values from there on. */
struct place {
    size_t row;
    size_t column;
    size_t value;
};

static struct place place_of(const struct amx_shape *shape, size_t step)
{
    size_t values = shape->words * values_of(shape->element);
    if (shape->run) {
        return (struct place){.row = step / shape->pieces, .value = step % shape->pieces * values};
    }
    size_t window = shape->kernel * shape->kernel;
    size_t pixel = step % window;
    return (struct place){pixel / shape->kernel, pixel % shape->kernel, step / window * values};
}

size_t amx_step_offset(const struct amx_shape *shape, size_t step, size_t row_pitch, size_t pitch)
{
    struct place place = place_of(shape, step);
    return (place.row * row_pitch + place.column) * pitch + place.value;
}

size_t amx_step_bytes(const struct amx_shape *shape)
{
    return shape->words * AMX_ROW_BYTES;
}

size_t amx_packed_bytes(const struct amx_shape *shape)
{
    return shape->blocks * shape->steps * amx_step_bytes(shape);
}

size_t amx_bias_bytes(const struct amx_shape *shape)
{
    return shape->blocks * AMX_CHANNELS * sizeof(float);
}

size_t amx_scales_bytes(const struct amx_shape *shape)
{
    return shape->scales * amx_bias_bytes(shape);
}

/* ---- packing ---- */

struct packer {
    const struct network_layer *layer;
    const struct amx_shape *shape;
    const struct onednn_rows *rows;
    size_t in;                         /* channels that there are */
    const struct quantise_conv *whole; /* where codes are summed */
    const struct quantise_value *made; /* where numbers become codes */
    unsigned char *out;
    float *bias;
    float *scales;
};

/* Which output channel a block's lane is, and of which quarter of a transposed convolution; false:
 * none. */
static bool lane_channel(const struct packer *p, size_t block, size_t lane, size_t *channel,
                         size_t *quarter)
{
    size_t blocks = p->layer->op == NETWORK_CONV_UP ? p->shape->blocks / 4 : p->shape->blocks;
    *quarter = block / blocks;
    *channel = block % blocks * AMX_CHANNELS + lane;
    return *channel < p->layer->channels;
}

/* Where a value of the window finds its weight: an input channel, and one of the kernel's; false:
 * nowhere. */
static bool find_weight(const struct packer *p, const struct place *place, size_t value, size_t *in,
                        size_t *tap)
{
    size_t column = place->column + (place->value + value) / p->shape->in_channels;
    *in = (place->value + value) % p->shape->in_channels;
    *tap = place->row * p->shape->kernel + column;
    return *in < p->in;
}

/* What quantise.h calls the output. */
static size_t output_of(const struct packer *p, size_t channel, size_t quarter)
{
    return quarter * p->layer->channels + channel;
}

static float weight_at(const struct packer *p, size_t channel, size_t quarter,
                       const struct place *place, size_t value)
{
    size_t in = 0;
    size_t tap = 0;
    if (!find_weight(p, place, value, &in, &tap)) {
        return 0.0F;
    }
    if (p->layer->op == NETWORK_CONV_UP) {
        return p->layer->weights[(in * p->layer->channels + channel) * 4 + quarter];
    }
    return p->layer->weights[(channel * p->in + in) * p->shape->kernel * p->shape->kernel + tap];
}

static int8_t whole_weight_at(const struct packer *p, size_t channel, size_t quarter,
                              const struct place *place, size_t value)
{
    size_t taps = p->shape->kernel * p->shape->kernel;
    size_t in = 0;
    size_t tap = 0;
    if (!find_weight(p, place, value, &in, &tap)) {
        return 0;
    }
    return p->whole->weights[(output_of(p, channel, quarter) * p->in + in) * taps + tap];
}

static void pack_step(const struct packer *p, size_t block, size_t step, unsigned char *out)
{
    float values[AMX_WORDS * AMX_CHANNELS * 2];
    int8_t whole[AMX_WORDS * AMX_CHANNELS * 4];
    struct place place = place_of(p->shape, step);
    size_t each = values_of(p->shape->element);
    memset(values, 0, sizeof values);
    memset(whole, 0, sizeof whole);
    for (size_t lane = 0; lane < AMX_CHANNELS; lane++) {
        size_t channel = 0;
        size_t quarter = 0;
        bool there = lane_channel(p, block, lane, &channel, &quarter);
        for (size_t v = 0; v < each * p->shape->words && there; v++) {
            size_t at = (v / each * AMX_CHANNELS + lane) * each + v % each;
            if (p->whole != NULL) {
                whole[at] = whole_weight_at(p, channel, quarter, &place, v);
            } else {
                values[at] = weight_at(p, channel, quarter, &place, v);
            }
        }
    }
    if (p->whole != NULL) {
        memcpy(out, whole, amx_step_bytes(p->shape));
    } else {
        p->rows->narrow_bf16((uint16_t *)(void *)out, values,
                             p->shape->words * AMX_CHANNELS * each);
    }
}

/* A lane's bias, and what else it has. */
static void pack_lane(const struct packer *p, size_t block, size_t lane)
{
    size_t at = block * AMX_CHANNELS + lane;
    size_t channel = 0;
    size_t quarter = 0;
    bool there = lane_channel(p, block, lane, &channel, &quarter);
    size_t output = output_of(p, channel, quarter);
    p->bias[at] = 0.0F;
    if (there) {
        p->bias[at] = p->whole != NULL ? p->whole->bias[output] : p->layer->bias[channel];
    }
    if (p->whole != NULL) {
        p->scales[at] = there ? p->whole->scale[output] : 0.0F;
    } else if (p->shape->scales == 2) {
        p->scales[at] = there ? p->made->steps[channel] : 0.0F;
        p->scales[p->shape->blocks * AMX_CHANNELS + at] = there ? p->made->zero[channel] : 0.0F;
    }
}

static void pack_blocks(void *context, size_t begin, size_t end)
{
    const struct packer *p = (const struct packer *)context;
    size_t step_bytes = amx_step_bytes(p->shape);
    for (size_t block = begin; block < end; block++) {
        for (size_t step = 0; step < p->shape->steps; step++) {
            pack_step(p, block, step, p->out + (block * p->shape->steps + step) * step_bytes);
        }
        for (size_t lane = 0; lane < AMX_CHANNELS; lane++) {
            pack_lane(p, block, lane);
        }
    }
}

int amx_weights_create(const struct network *network, const struct quantise_plan *codes,
                       size_t layer, uint32_t threads, const struct onednn_rows *rows,
                       struct amx_weights *out)
{
    struct amx_weights weights = {.shape = amx_shape_of(network, codes, layer)};
    const struct amx_shape *shape = &weights.shape;
    bool sums_codes = shape->element == 1;
    struct quantise_conv whole = {0};
    int error = sums_codes ? quantise_conv_create(network, codes, layer, &whole) : 0;
    if (error != 0) {
        return error;
    }
    size_t packed = (amx_packed_bytes(shape) + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    size_t bytes = packed + amx_bias_bytes(shape) + amx_scales_bytes(shape);
    unsigned char *own = (unsigned char *)aligned_alloc(LINE_BYTES, bytes);
    if (own == NULL) {
        quantise_conv_free(&whole);
        return -ENOMEM;
    }
    struct packer packer = {
        .layer = &network->layers[layer],
        .shape = shape,
        .rows = rows,
        .in = channels_of(network, network->layers[layer].inputs[0]),
        .whole = sums_codes ? &whole : NULL,
        .made = codes != NULL ? &codes->values[layer + 1] : NULL,
        .out = own,
        .bias = (float *)(void *)(own + packed),
        .scales = (float *)(void *)(own + packed + amx_bias_bytes(shape)),
    };
    onednn_parallel_for(threads, shape->blocks, pack_blocks, &packer);
    quantise_conv_free(&whole);
    weights.own = own;
    weights.packed = own;
    weights.bias = packer.bias;
    weights.scales = shape->scales > 0 ? packer.scales : NULL;
    *out = weights;
    return 0;
}

static bool holds(const struct packed_section *section, size_t bytes)
{
    return section != NULL && section->bytes == bytes;
}

int amx_weights_adopt(const struct network *network, const struct quantise_plan *codes,
                      size_t layer, const struct packed_view *file, struct amx_weights *out)
{
    static const struct packed_hash plain = {0, 0};
    struct amx_weights weights = {.shape = amx_shape_of(network, codes, layer)};
    const struct amx_shape *shape = &weights.shape;
    uint32_t number = (uint32_t)layer;
    const struct packed_section *packed = packed_file_find(file, number, PACKED_WEIGHTS, &plain);
    const struct packed_section *bias = packed_file_find(file, number, PACKED_BIAS, &plain);
    const struct packed_section *scales = packed_file_find(file, number, PACKED_SCALES, &plain);
    if (!holds(packed, amx_packed_bytes(shape)) || !holds(bias, amx_bias_bytes(shape)) ||
        (shape->scales > 0 && !holds(scales, amx_scales_bytes(shape)))) {
        return -ESTALE;
    }
    weights.packed = file->data + packed->offset;
    weights.bias = (const float *)(const void *)(file->data + bias->offset);
    weights.scales = shape->scales > 0 ? (const float *)(const void *)(file->data + scales->offset)
                                       : NULL;
    *out = weights;
    return 0;
}

void amx_weights_free(struct amx_weights *weights)
{
    free(weights->own);
    *weights = (struct amx_weights){0};
}
