/*
 * The kernel itself: included once by each onednn_winograd_*.c, which sets the instruction set and
 * defines
 *
 *   VECTOR           floats of one register; LANES of them
 *   SPLAT LOAD STORE FMA MAX   what vectors have no operators for
 *   ROWS             tiles of the product's block, which is ROWS x 2 registers
 *   EACH_ROW_COUNT   X(1) ... X(ROWS)
 *   WINOGRAD_KERNEL  the table's name, and KERNEL_NAME, for people
 *
 * Scratch of a call: the tiles' inputs as [point][tile][channel], then one panel's products as
 * [point][tile][output], then one pixel of zeros.
 */
#include "onednn_winograd.h"

#include <string.h>

#define PANEL  (2 * LANES)
#define INLINE static inline __attribute__((always_inline))

/* ---- there ---- */

/* Six values of a row or a column, `step` apart, to six. */
INLINE void input_line(const VECTOR *d, size_t step, VECTOR *t, size_t out_step)
{
    const VECTOR aabb = SPLAT((float)(WINOGRAD_A * WINOGRAD_A * WINOGRAD_B * WINOGRAD_B));
    const VECTOR sum = SPLAT((float)-(WINOGRAD_A * WINOGRAD_A + WINOGRAD_B * WINOGRAD_B));
    const VECTOR aa = SPLAT((float)-(WINOGRAD_A * WINOGRAD_A));
    const VECTOR bb = SPLAT((float)-(WINOGRAD_B * WINOGRAD_B));
    const VECTOR a = SPLAT((float)WINOGRAD_A);
    const VECTOR b = SPLAT((float)WINOGRAD_B);
    VECTOR even_a = FMA(bb, d[2 * step], d[4 * step]);
    VECTOR odd_a = FMA(bb, d[step], d[3 * step]) * a;
    VECTOR even_b = FMA(aa, d[2 * step], d[4 * step]);
    VECTOR odd_b = FMA(aa, d[step], d[3 * step]) * b;
    t[0] = FMA(aabb, d[0], FMA(sum, d[2 * step], d[4 * step]));
    t[out_step] = even_a + odd_a;
    t[2 * out_step] = even_a - odd_a;
    t[3 * out_step] = even_b + odd_b;
    t[4 * out_step] = even_b - odd_b;
    t[5 * out_step] = FMA(aabb, d[step], FMA(sum, d[3 * step], d[5 * step]));
}

/* The first `channels` of a vector; the others are 0. */
INLINE VECTOR load_some(const float *from, size_t channels)
{
    float some[LANES] __attribute__((aligned(sizeof(VECTOR)))) = {0};
    for (size_t i = 0; i < channels; i++) {
        some[i] = from[i];
    }
    return LOAD(some);
}

/* LANES channels of a tile, or fewer. */
INLINE void input_vector(const float *const *pixels, size_t channel, size_t channels, float *out,
                         size_t point_step)
{
    VECTOR d[WINOGRAD_POINTS];
    VECTOR half[WINOGRAD_POINTS];
    for (size_t x = 0; x < WINOGRAD_SIDE; x++) {
        for (size_t y = 0; y < WINOGRAD_SIDE; y++) {
            const float *from = pixels[y * WINOGRAD_SIDE + x] + channel;
            d[y * WINOGRAD_SIDE + x] = channels == LANES ? LOAD(from) : load_some(from, channels);
        }
        input_line(d + x, WINOGRAD_SIDE, half + x, WINOGRAD_SIDE);
    }
    for (size_t y = 0; y < WINOGRAD_SIDE; y++) {
        input_line(half + y * WINOGRAD_SIDE, 1, d + y * WINOGRAD_SIDE, 1);
        for (size_t x = 0; x < WINOGRAD_SIDE; x++) {
            STORE(out + (y * WINOGRAD_SIDE + x) * point_step, d[y * WINOGRAD_SIDE + x]);
        }
    }
}

/* Where a tile lies. */
struct place {
    size_t image;
    size_t y; /* of its first output */
    size_t x;
};

static struct place place_of(const struct onednn_winograd_layer *l, size_t tile)
{
    size_t across = (l->width + WINOGRAD_TILE - 1) / WINOGRAD_TILE;
    size_t down = (l->height + WINOGRAD_TILE - 1) / WINOGRAD_TILE;
    return (struct place){tile / (across * down), tile / across % down * WINOGRAD_TILE,
                          tile % across * WINOGRAD_TILE};
}

/* Pixels around the image are zeros'. */
static void find_pixels(const struct onednn_winograd_layer *l, size_t tile, const float *zeros,
                        const float **pixels)
{
    struct place place = place_of(l, tile);
    const float *image = l->in + place.image * l->height * l->width * l->in_pitch;
    for (size_t i = 0; i < WINOGRAD_POINTS; i++) {
        size_t y = place.y + i / WINOGRAD_SIDE; /* one too large: the padding */
        size_t x = place.x + i % WINOGRAD_SIDE;
        bool inside = y >= 1 && y <= l->height && x >= 1 && x <= l->width;
        pixels[i] = inside ? image + ((y - 1) * l->width + x - 1) * l->in_pitch : zeros;
    }
}

static void transform_inputs(const struct onednn_winograd_layer *l,
                             const struct onednn_winograd_part *part, size_t row, float *out,
                             const float *zeros)
{
    const float *pixels[WINOGRAD_POINTS];
    size_t channels = l->in_channels;
    for (size_t t = 0; t < part->tiles; t++) {
        find_pixels(l, part->first + t, zeros, pixels);
        float *to = out + t * row;
        size_t c = 0;
        for (; c + LANES <= channels; c += LANES) {
            input_vector(pixels, c, LANES, to + c, part->tiles * row);
        }
        if (c < channels) {
            input_vector(pixels, c, channels - c, to + c, part->tiles * row);
        }
    }
}

/* ---- products ---- */

/* `rows` tiles x depth channels with depth x PANEL weights. */
INLINE void multiply(const float *in, size_t row, const float *weights, size_t depth, float *out,
                     const size_t rows)
{
    VECTOR sums[ROWS][2];
    for (size_t r = 0; r < rows; r++) {
        sums[r][0] = sums[r][1] = SPLAT(0.0F);
    }
    for (size_t c = 0; c < depth; c++) {
        VECTOR first = LOAD(weights + c * PANEL);
        VECTOR second = LOAD(weights + c * PANEL + LANES);
        for (size_t r = 0; r < rows; r++) {
            VECTOR x = SPLAT(in[r * row + c]);
            sums[r][0] = FMA(x, first, sums[r][0]);
            sums[r][1] = FMA(x, second, sums[r][1]);
        }
    }
    for (size_t r = 0; r < rows; r++) {
        STORE(out + r * PANEL, sums[r][0]);
        STORE(out + r * PANEL + LANES, sums[r][1]);
    }
}

static void multiply_rows(const float *in, size_t row, const float *weights, size_t depth,
                          float *out, size_t rows)
{
#define X(count)                                                                                   \
    case count: multiply(in, row, weights, depth, out, count); break;
    switch (rows) {
        EACH_ROW_COUNT
    default: break;
    }
#undef X
}

static void multiply_panel(const float *in, size_t row, const float *weights, size_t depth,
                           size_t tiles, float *out)
{
    for (size_t p = 0; p < WINOGRAD_POINTS; p++) {
        for (size_t t = 0; t < tiles; t += ROWS) {
            size_t rows = tiles - t < ROWS ? tiles - t : ROWS;
            multiply_rows(in + (p * tiles + t) * row, row, weights + p * depth * PANEL, depth,
                          out + (p * tiles + t) * PANEL, rows);
        }
    }
}

/* ---- and back ---- */

/* Six values to four. */
INLINE void output_line(const VECTOR *m, size_t step, VECTOR *o, size_t out_step)
{
    const VECTOR a = SPLAT((float)WINOGRAD_A);
    const VECTOR b = SPLAT((float)WINOGRAD_B);
    const VECTOR aa = SPLAT((float)(WINOGRAD_A * WINOGRAD_A));
    const VECTOR bb = SPLAT((float)(WINOGRAD_B * WINOGRAD_B));
    const VECTOR aaa = SPLAT((float)(WINOGRAD_A * WINOGRAD_A * WINOGRAD_A));
    const VECTOR bbb = SPLAT((float)(WINOGRAD_B * WINOGRAD_B * WINOGRAD_B));
    VECTOR even_a = m[step] + m[2 * step];
    VECTOR odd_a = m[step] - m[2 * step];
    VECTOR even_b = m[3 * step] + m[4 * step];
    VECTOR odd_b = m[3 * step] - m[4 * step];
    o[0] = m[0] + even_a + even_b;
    o[out_step] = FMA(b, odd_b, a * odd_a);
    o[2 * out_step] = FMA(bb, even_b, aa * even_a);
    o[3 * out_step] = FMA(bbb, odd_b, FMA(aaa, odd_a, m[5 * step]));
}

INLINE void store_some(float *to, VECTOR value, size_t channels)
{
    float some[LANES] __attribute__((aligned(sizeof(VECTOR))));
    STORE(some, value);
    for (size_t i = 0; i < channels; i++) {
        to[i] = some[i];
    }
}

/* LANES channels of a tile, or fewer; rows x columns of its outputs are in the image. */
INLINE void output_vector(const float *products, size_t point_step, VECTOR bias, bool relu,
                          float *out, size_t row_step, size_t pitch, size_t rows, size_t columns,
                          size_t channels)
{
    VECTOR m[WINOGRAD_POINTS];
    VECTOR half[WINOGRAD_TILE * WINOGRAD_SIDE];
    VECTOR line[WINOGRAD_TILE];
    const VECTOR least = SPLAT(relu ? 0.0F : -__builtin_inff());
    for (size_t x = 0; x < WINOGRAD_SIDE; x++) {
        for (size_t y = 0; y < WINOGRAD_SIDE; y++) {
            m[y * WINOGRAD_SIDE + x] = LOAD(products + (y * WINOGRAD_SIDE + x) * point_step);
        }
        output_line(m + x, WINOGRAD_SIDE, half + x, WINOGRAD_SIDE);
    }
    for (size_t y = 0; y < rows; y++) {
        output_line(half + y * WINOGRAD_SIDE, 1, line, 1);
        for (size_t x = 0; x < columns; x++) {
            VECTOR value = MAX(least, line[x] + bias);
            float *to = out + y * row_step + x * pitch;
            if (channels == LANES) {
                STORE(to, value);
            } else {
                store_some(to, value, channels);
            }
        }
    }
}

static void output_tile(const struct onednn_winograd_layer *l, const struct place *place,
                        size_t channel, const float *products, size_t point_step)
{
    size_t rows = l->height - place->y < WINOGRAD_TILE ? l->height - place->y : WINOGRAD_TILE;
    size_t columns = l->width - place->x < WINOGRAD_TILE ? l->width - place->x : WINOGRAD_TILE;
    size_t row_step = l->width * l->out_pitch;
    size_t pixel = (place->image * l->height + place->y) * l->width + place->x;
    for (size_t end = channel + PANEL; channel < end && channel < l->out_channels;
         channel += LANES, products += LANES) {
        size_t channels = l->out_channels - channel;
        float *out = l->out + pixel * l->out_pitch + channel;
        if (channels < LANES) {
            output_vector(products, point_step, load_some(l->bias + channel, channels), l->relu,
                          out, row_step, l->out_pitch, rows, columns, channels);
        } else if (rows == WINOGRAD_TILE && columns == WINOGRAD_TILE) {
            output_vector(products, point_step, LOAD(l->bias + channel), l->relu, out, row_step,
                          l->out_pitch, WINOGRAD_TILE, WINOGRAD_TILE, LANES);
        } else {
            output_vector(products, point_step, LOAD(l->bias + channel), l->relu, out, row_step,
                          l->out_pitch, rows, columns, LANES);
        }
    }
}

static void transform_outputs(const struct onednn_winograd_layer *l,
                              const struct onednn_winograd_part *part, size_t channel,
                              const float *products)
{
    for (size_t t = 0; t < part->tiles; t++) {
        struct place place = place_of(l, part->first + t);
        output_tile(l, &place, channel, products + t * PANEL, part->tiles * PANEL);
    }
}

static void run(const struct onednn_winograd_layer *l, const struct onednn_winograd_part *part)
{
    size_t depth = l->in_channels;
    size_t row = onednn_winograd_row(depth);
    float *inputs = part->scratch;
    float *products = inputs + WINOGRAD_POINTS * part->tiles * row;
    float *zeros = products + WINOGRAD_POINTS * part->tiles * PANEL;
    memset(zeros, 0, row * sizeof *zeros);
    transform_inputs(l, part, row, inputs, zeros);
    for (size_t p = part->panel; p < part->panel_end; p++) {
        multiply_panel(inputs, row, l->weights + p * WINOGRAD_POINTS * depth * PANEL, depth,
                       part->tiles, products);
        transform_outputs(l, part, p * PANEL, products);
    }
}

const struct onednn_winograd_kernel WINOGRAD_KERNEL = {
    .name = KERNEL_NAME, .panel = PANEL, .rows = ROWS, .run = run};
