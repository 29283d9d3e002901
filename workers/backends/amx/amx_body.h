/*
 * The kernels themselves, over a thin layer that the file which includes this one brings along:
 *
 *     TILE_CONFIG(config), TILE_RELEASE()
 *     TILE_LOAD(tile, from, step), TILE_STORE(tile, to, step), TILE_SUM(sums, a, b)
 *     TILE_SUM_CODES(sums, a, b)  the same of unsigned and signed bytes
 *     LANES                   16 floats
 *     LANES_LOAD(from), LANES_KEEP(a, to), LANES_LARGER(a, b), LANES_RELU(a), LANES_NARROW(a, out)
 *     LANES_WHOLE(from)       of 16 integers
 *     LANES_ADD(a, b), LANES_TIMES(a, b), each rounded; LANES_CODE(a, out): 16 bytes
 *
 * and names the table in AMX_TABLE. Tiles 0 to 3 hold sums, 6 weights, the others windows.
 */
#include "amx_kernels.h"

#include <string.h>

static void begin(size_t rows, size_t words)
{
    struct amx_config config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (size_t i = 0; i < 8; i++) {
        config.rows[i] = (uint8_t)(i == 6 ? words : rows);
        config.row_bytes[i] = (uint16_t)(i < 4 || i == 6 ? AMX_ROW_BYTES : words * 4);
    }
    TILE_CONFIG(&config);
}

static void end(void)
{
    TILE_RELEASE();
}

#define SUM(sums, a, b)                                                                            \
    do {                                                                                           \
        if (codes) {                                                                               \
            TILE_SUM_CODES(sums, a, b);                                                            \
        } else {                                                                                   \
            TILE_SUM(sums, a, b);                                                                  \
        }                                                                                          \
    } while (0)

/* `tiles` and `codes` are constants to the compiler. Each sum begins with its bias, or with zero if
 * it is whole: one line, for all rows. */
static inline __attribute__((always_inline)) void sum_tiles(const struct amx_block *block,
                                                            size_t tiles, bool codes)
{
    static const _Alignas(AMX_ROW_BYTES) float nothing[AMX_CHANNELS];
    const size_t *offsets = block->offsets;
    const unsigned char *weights = block->weights;
    const float *first = codes ? nothing : block->bias;
    TILE_LOAD(0, first, 0);
    if (tiles > 1) {
        TILE_LOAD(1, first, 0);
    }
    if (tiles > 2) {
        TILE_LOAD(2, first, 0);
    }
    if (tiles > 3) {
        TILE_LOAD(3, first, 0);
    }
    for (size_t s = 0; s < block->steps; s++) {
        TILE_LOAD(6, weights, AMX_ROW_BYTES);
        TILE_LOAD(4, block->in[0] + offsets[s], block->in_step);
        SUM(0, 4, 6);
        if (tiles > 1) {
            TILE_LOAD(5, block->in[1] + offsets[s], block->in_step);
            SUM(1, 5, 6);
        }
        if (tiles > 2) {
            TILE_LOAD(7, block->in[2] + offsets[s], block->in_step);
            SUM(2, 7, 6);
        }
        if (tiles > 3) {
            TILE_LOAD(4, block->in[3] + offsets[s], block->in_step);
            SUM(3, 4, 6);
        }
        weights += block->weight_step;
    }
    unsigned char *sums = (unsigned char *)block->sums;
    size_t step = block->sums_step * sizeof(float);
    TILE_STORE(0, sums, step);
    if (tiles > 1) {
        TILE_STORE(1, sums + AMX_ROWS * step, step);
    }
    if (tiles > 2) {
        TILE_STORE(2, sums + 2 * AMX_ROWS * step, step);
    }
    if (tiles > 3) {
        TILE_STORE(3, sums + 3 * AMX_ROWS * step, step);
    }
}

/* From whole sums to numbers, where they lie. */
static void scale_sums(const struct amx_block *block)
{
    LANES bias = LANES_LOAD(block->bias);
    LANES scale = LANES_LOAD(block->scale);
    for (size_t i = 0; i < block->tiles * AMX_ROWS; i++) {
        float *at = block->sums + i * block->sums_step;
        if (i % AMX_ROWS < block->rows) {
            LANES_KEEP(LANES_TIMES(LANES_ADD(LANES_WHOLE(at), bias), scale), at);
        }
    }
}

static inline __attribute__((always_inline)) void sum_all(const struct amx_block *block, bool codes)
{
    switch (block->tiles) {
    case 1: sum_tiles(block, 1, codes); break;
    case 2: sum_tiles(block, 2, codes); break;
    case 3: sum_tiles(block, 3, codes); break;
    default: sum_tiles(block, AMX_TILES, codes); break;
    }
}

static void sum(const struct amx_block *block)
{
    if (block->scale != NULL) {
        sum_all(block, true);
        scale_sums(block);
    } else {
        sum_all(block, false);
    }
}

static inline void write_lanes(const struct amx_output *output, LANES lanes, unsigned char *out)
{
    LANES kept = output->relu ? LANES_RELU(lanes) : lanes;
    if (!output->codes) {
        LANES_NARROW(kept, out);
    } else if (output->steps != NULL) {
        LANES product = LANES_TIMES(kept, LANES_LOAD(output->steps));
        LANES_CODE(LANES_ADD(product, LANES_LOAD(output->zero)), out);
    } else {
        LANES_CODE(kept, out);
    }
}

static inline void put_lanes(const struct amx_output *output, size_t pixel, LANES lanes)
{
    unsigned char *out = output->out + pixel * output->out_step;
    if (output->channels == AMX_CHANNELS) {
        write_lanes(output, lanes, out);
    } else {
        unsigned char some[AMX_CHANNELS * sizeof(uint16_t)];
        write_lanes(output, lanes, some);
        memcpy(out, some, output->channels * (output->codes ? 1 : sizeof(uint16_t)));
    }
}

static void put(const struct amx_output *output)
{
    for (size_t p = 0; p < output->pixels; p++) {
        put_lanes(output, p, LANES_LOAD(output->sums + p * AMX_CHANNELS));
    }
}

static void pool(const struct amx_output *output, const float *below)
{
    for (size_t p = 0; p < output->pixels; p++) {
        const float *upper = output->sums + 2 * p * AMX_CHANNELS;
        const float *lower = below + 2 * p * AMX_CHANNELS;
        LANES high = LANES_LARGER(LANES_LOAD(upper), LANES_LOAD(upper + AMX_CHANNELS));
        LANES low = LANES_LARGER(LANES_LOAD(lower), LANES_LOAD(lower + AMX_CHANNELS));
        put_lanes(output, p, LANES_LARGER(high, low));
    }
}

const struct amx_kernels AMX_TABLE = {
    .begin = begin, .end = end, .sum = sum, .put = put, .pool = pool};
