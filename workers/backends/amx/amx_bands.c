#include "amx_bands.h"

#include <errno.h>
#include <stdlib.h>

#define BLOCK_ROWS 4u

struct finder {
    const struct network *network;
    const struct amx_layout *layout;
    struct amx_bands *bands;
};

static bool is_conv(enum network_op op)
{
    return op == NETWORK_CONV || op == NETWORK_CONV_UP;
}

uint32_t amx_bands_height(const struct network *network, const struct amx_layout *layout,
                          size_t layer)
{
    const struct network_layer *l = &network->layers[layer];
    return l->op == NETWORK_CONV_UP ? layout->values[l->inputs[0]].height
                                    : layout->values[layer + 1].height;
}

/* ---- who needs what ---- */

/* Rows of its input that a convolution needs for its rows [cut.low, cut.high). */
static struct amx_cut rows_read(const struct network_layer *layer, uint32_t height,
                                struct amx_cut cut)
{
    if (layer->op == NETWORK_CONV_UP) {
        return cut;
    }
    uint64_t low = (uint64_t)cut.low * layer->stride;
    uint64_t high = ((uint64_t)cut.high - 1) * layer->stride + layer->kernel;
    low = low > layer->padding ? low - layer->padding : 0;
    high = high > layer->padding ? high - layer->padding : 0;
    return (struct amx_cut){low < height ? (uint32_t)low : height,
                            high < height ? (uint32_t)high : height};
}

/* The rows of `maker` that hold rows `cut` of a value that is it, its pooling, or a part of which
 * it is; false if `value` is none of these. */
static bool rows_made(const struct finder *f, size_t maker, uint32_t value, struct amx_cut cut,
                      struct amx_cut *out)
{
    const struct network_layer *layer = &f->network->layers[maker];
    uint32_t pooled = f->layout->layers[maker].pooled;
    *out = cut;
    if (amx_layout_contains(f->layout, value, (uint32_t)maker + 1)) {
        if (layer->op == NETWORK_CONV_UP) {
            *out = (struct amx_cut){cut.low / 2, (cut.high + 1) / 2};
        }
        return true;
    }
    if (pooled != 0 && amx_layout_contains(f->layout, value, pooled)) {
        *out = (struct amx_cut){2 * cut.low, 2 * cut.high};
        return true;
    }
    return false;
}

/* What a later layer of the group needs of an earlier one for its own rows `cut`. */
static bool needs(const struct finder *f, size_t reader, size_t maker, struct amx_cut cut,
                  struct amx_cut *out)
{
    const struct network_layer *layer = &f->network->layers[reader];
    uint32_t value = layer->inputs[0];
    struct amx_cut read = rows_read(layer, f->layout->values[value].height, cut);
    return rows_made(f, maker, value, read, out);
}

uint32_t amx_bands_needed(const struct network *network, const struct amx_layout *layout,
                          const struct amx_bands *bands, size_t index, const uint32_t *reached)
{
    struct amx_bands group = *bands;
    struct finder f = {network, layout, &group};
    uint32_t most = 0;
    for (size_t i = index + 1; i < bands->layer_count; i++) {
        struct amx_cut made = {0, 0};
        struct amx_cut cut = {0, reached[i]};
        if (reached[i] > 0 && needs(&f, bands->layers[i], bands->layers[index], cut, &made)) {
            most = made.high > most ? made.high : most;
        }
    }
    return most;
}

/* ---- cuts ---- */

/* Where a layer that no later one of the group reads is cut. */
static uint32_t even_cut(uint32_t height, size_t number, size_t count)
{
    return (uint32_t)((uint64_t)height * number / count / BLOCK_ROWS * BLOCK_ROWS);
}

/* One layer at one cut, those behind it being known. */
static struct amx_cut find_cut(const struct finder *f, size_t number, size_t index)
{
    const struct amx_bands *bands = f->bands;
    const struct amx_cut *cuts = &bands->cuts[number * bands->layer_count];
    uint32_t layer = bands->layers[index];
    uint32_t height = amx_bands_height(f->network, f->layout, layer);
    struct amx_cut cut = {UINT32_MAX, 0};
    for (size_t i = index + 1; i < bands->layer_count; i++) {
        struct amx_cut before = {0, cuts[i].high};
        struct amx_cut after = {cuts[i].low, cuts[i].low + 1};
        struct amx_cut made;
        if (needs(f, bands->layers[i], layer, after, &made)) {
            cut.low = made.low < cut.low ? made.low : cut.low;
            (void)needs(f, bands->layers[i], layer, before, &made);
            cut.high = made.high > cut.high ? made.high : cut.high;
        }
    }
    if (cut.low == UINT32_MAX) {
        cut.low = cut.high = even_cut(height, number, bands->count);
    }
    if (f->layout->layers[layer].pooled != 0) {
        cut.low = cut.low / 2 * 2;
        cut.high = (cut.high + 1) / 2 * 2;
    }
    cut.high = cut.high < height ? cut.high : height;
    return cut;
}

/* Cut into bands->count bands. False: too many, what is needed of one cut reaches the next. */
static bool find_cuts(const struct finder *f)
{
    struct amx_bands *bands = f->bands;
    size_t layers = bands->layer_count;
    for (size_t k = 0; k <= bands->count; k++) {
        for (size_t i = layers; i-- > 0;) {
            uint32_t height = amx_bands_height(f->network, f->layout, bands->layers[i]);
            struct amx_cut end = {k == 0 ? 0 : height, k == 0 ? 0 : height};
            bool inside = k > 0 && k < bands->count;
            struct amx_cut cut = inside ? find_cut(f, k, i) : end;
            bands->cuts[k * layers + i] = cut;
            if (cut.low > cut.high ||
                (k > 0 && cut.low <= bands->cuts[(k - 1) * layers + i].high)) {
                return false;
            }
        }
    }
    return true;
}

/* ---- strips ---- */

/* So many rows of the last layer that what all layers read and write for them fits the cache. */
static uint32_t find_strip(const struct finder *f)
{
    const struct amx_bands *bands = f->bands;
    uint32_t last = amx_bands_height(f->network, f->layout, bands->layers[bands->layer_count - 1]);
    uint64_t bytes = 0; /* of whole images */
    for (size_t i = 0; i < bands->layer_count; i++) {
        const struct network_layer *layer = &f->network->layers[bands->layers[i]];
        const struct amx_value *in = &f->layout->values[layer->inputs[0]];
        const struct amx_value *out = &f->layout->values[bands->layers[i] + 1];
        bytes += (uint64_t)in->height * in->width * in->channels * in->element;
        bytes += (uint64_t)out->height * out->width * out->channels * out->element;
    }
    uint64_t rows = AMX_STRIP_BYTES * (uint64_t)last / (bytes + 1) / BLOCK_ROWS * BLOCK_ROWS;
    return rows < BLOCK_ROWS ? BLOCK_ROWS : rows > last ? last : (uint32_t)rows;
}

int amx_bands_create(const struct network *network, const struct amx_layout *layout,
                     const struct amx_group *group, size_t most, struct amx_bands *out)
{
    size_t layers = group->end - group->first;
    struct amx_bands bands = {
        .layers = (uint32_t *)calloc(layers, sizeof *bands.layers),
        .cuts = (struct amx_cut *)calloc(layers * (most + 1), sizeof *bands.cuts),
        .count = most,
    };
    struct finder f = {network, layout, &bands};
    if (bands.layers == NULL || bands.cuts == NULL) {
        amx_bands_free(&bands);
        return -ENOMEM;
    }
    for (uint32_t i = group->first; i < group->end; i++) {
        if (is_conv(network->layers[i].op)) {
            bands.layers[bands.layer_count++] = i;
        }
    }
    while (bands.count > 1 && !find_cuts(&f)) {
        bands.count--;
    }
    if (bands.count == 1) {
        (void)find_cuts(&f);
    }
    bands.strip = find_strip(&f);
    *out = bands;
    return 0;
}

void amx_bands_free(struct amx_bands *bands)
{
    free(bands->layers);
    free(bands->cuts);
    *bands = (struct amx_bands){0};
}
