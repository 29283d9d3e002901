#include "amx_weights.h"

#include "workers/backends/onednn/onednn_parallel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LINE_BYTES 64u
/* Pitches that are looked at: one more piece costs more than any padding of this kind. */
#define PITCH_TRIES 16u

/* In how many equal pieces of at most AMX_PAIRS so many pairs are cut. */
static size_t pieces_of(size_t pairs)
{
    size_t pieces = (pairs + AMX_PAIRS - 1) / AMX_PAIRS;
    while (pairs % pieces != 0) {
        pieces++;
    }
    return pieces;
}

uint32_t amx_pitch(uint32_t channels)
{
    uint32_t first = (channels + 1) / 2 * 2;
    uint32_t best = first;
    for (uint32_t i = 1; i < PITCH_TRIES; i++) {
        if (pieces_of((first + 2 * i) / 2) < pieces_of(best / 2)) {
            best = first + 2 * i;
        }
    }
    return best;
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

struct amx_shape amx_shape_of(const struct network *network, size_t layer)
{
    const struct network_layer *l = &network->layers[layer];
    bool up = l->op == NETWORK_CONV_UP;
    struct amx_shape shape = {.kernel = up ? 1 : l->kernel};
    shape.in_channels = amx_pitch(channels_of(network, l->inputs[0]));
    shape.blocks = (up ? 4u : 1u) * ((l->channels + AMX_CHANNELS - 1) / AMX_CHANNELS);
    size_t pairs = shape.in_channels / 2;
    size_t run_pieces = pieces_of(shape.kernel * pairs);
    shape.pieces = pieces_of(pairs);
    shape.run = run_pieces < shape.kernel * shape.pieces && lies_alone(network, l->inputs[0]);
    if (shape.run) {
        shape.pieces = run_pieces;
        shape.pairs = shape.kernel * pairs / run_pieces;
        shape.steps = shape.kernel * run_pieces;
    } else {
        shape.pairs = pairs / shape.pieces;
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
    size_t values = 2 * shape->pairs;
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
    return shape->pairs * AMX_ROW_BYTES;
}

size_t amx_packed_bytes(const struct amx_shape *shape)
{
    return shape->blocks * shape->steps * amx_step_bytes(shape);
}

size_t amx_bias_bytes(const struct amx_shape *shape)
{
    return shape->blocks * AMX_CHANNELS * sizeof(float);
}

/* ---- packing ---- */

struct packer {
    const struct network_layer *layer;
    const struct amx_shape *shape;
    const struct onednn_rows *rows;
    size_t in; /* channels that there are */
    uint16_t *out;
    float *bias;
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

/* A lane's weight for one value of the window. */
static float weight_at(const struct packer *p, size_t channel, size_t quarter,
                       const struct place *place, size_t value)
{
    size_t kernel = p->shape->kernel;
    size_t in = (place->value + value) % p->shape->in_channels;
    size_t column = place->column + (place->value + value) / p->shape->in_channels;
    if (in >= p->in) {
        return 0.0F;
    }
    if (p->layer->op == NETWORK_CONV_UP) {
        return p->layer->weights[(in * p->layer->channels + channel) * 4 + quarter];
    }
    return p->layer->weights[((channel * p->in + in) * kernel + place->row) * kernel + column];
}

static void pack_step(const struct packer *p, size_t block, size_t step, uint16_t *out)
{
    float values[AMX_PAIRS * AMX_CHANNELS * 2];
    struct place place = place_of(p->shape, step);
    size_t count = p->shape->pairs * AMX_CHANNELS * 2;
    memset(values, 0, sizeof values);
    for (size_t lane = 0; lane < AMX_CHANNELS; lane++) {
        size_t channel = 0;
        size_t quarter = 0;
        if (!lane_channel(p, block, lane, &channel, &quarter)) {
            continue;
        }
        for (size_t v = 0; v < 2 * p->shape->pairs; v++) {
            values[(v / 2 * AMX_CHANNELS + lane) * 2 + v % 2] = weight_at(p, channel, quarter,
                                                                          &place, v);
        }
    }
    p->rows->narrow_bf16(out, values, count);
}

static void pack_blocks(void *context, size_t begin, size_t end)
{
    const struct packer *p = (const struct packer *)context;
    size_t step_values = amx_step_bytes(p->shape) / sizeof *p->out;
    for (size_t block = begin; block < end; block++) {
        for (size_t step = 0; step < p->shape->steps; step++) {
            pack_step(p, block, step, p->out + (block * p->shape->steps + step) * step_values);
        }
        for (size_t lane = 0; lane < AMX_CHANNELS; lane++) {
            size_t channel = 0;
            size_t quarter = 0;
            bool there = lane_channel(p, block, lane, &channel, &quarter);
            p->bias[block * AMX_CHANNELS + lane] = there ? p->layer->bias[channel] : 0.0F;
        }
    }
}

int amx_weights_create(const struct network *network, size_t layer, uint32_t threads,
                       const struct onednn_rows *rows, struct amx_weights *out)
{
    struct amx_weights weights = {.shape = amx_shape_of(network, layer)};
    size_t packed = (amx_packed_bytes(&weights.shape) + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    unsigned char *own = (unsigned char *)aligned_alloc(LINE_BYTES,
                                                        packed + amx_bias_bytes(&weights.shape));
    if (own == NULL) {
        return -ENOMEM;
    }
    struct packer packer = {
        .layer = &network->layers[layer],
        .shape = &weights.shape,
        .rows = rows,
        .in = channels_of(network, network->layers[layer].inputs[0]),
        .out = (uint16_t *)(void *)own,
        .bias = (float *)(void *)(own + packed),
    };
    onednn_parallel_for(threads, weights.shape.blocks, pack_blocks, &packer);
    weights.own = own;
    weights.packed = own;
    weights.bias = packer.bias;
    *out = weights;
    return 0;
}

int amx_weights_adopt(const struct network *network, size_t layer, const struct packed_view *file,
                      struct amx_weights *out)
{
    static const struct packed_hash plain = {0, 0};
    struct amx_weights weights = {.shape = amx_shape_of(network, layer)};
    uint32_t number = (uint32_t)layer;
    const struct packed_section *packed = packed_file_find(file, number, PACKED_WEIGHTS, &plain);
    const struct packed_section *bias = packed_file_find(file, number, PACKED_BIAS, &plain);
    if (packed == NULL || packed->bytes != amx_packed_bytes(&weights.shape) || bias == NULL ||
        bias->bytes != amx_bias_bytes(&weights.shape)) {
        return -ESTALE;
    }
    weights.packed = file->data + packed->offset;
    weights.bias = (const float *)(const void *)(file->data + bias->offset);
    *out = weights;
    return 0;
}

void amx_weights_free(struct amx_weights *weights)
{
    free(weights->own);
    *weights = (struct amx_weights){0};
}
