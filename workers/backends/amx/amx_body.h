/*
 * The kernels themselves, over a thin layer that the file which includes this one brings along:
 *
 *     TILE_CONFIG(config), TILE_RELEASE()
 *     TILE_LOAD(tile, from, step), TILE_STORE(tile, to, step), TILE_SUM(sums, a, b)
 *     LANES                   16 floats
 *     LANES_LOAD(from), LANES_LARGER(a, b), LANES_RELU(a), LANES_NARROW(a, out)
 *
 * and names the table in AMX_TABLE. Tiles 0 to 3 hold sums, 6 weights, the others windows.
 */
#include "amx_kernels.h"

#include <string.h>

static void begin(size_t rows, size_t pairs)
{
    struct amx_config config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (size_t i = 0; i < 8; i++) {
        config.rows[i] = (uint8_t)(i == 6 ? pairs : rows);
        config.row_bytes[i] = (uint16_t)(i < 4 || i == 6 ? AMX_ROW_BYTES : pairs * 4);
    }
    TILE_CONFIG(&config);
}

static void end(void)
{
    TILE_RELEASE();
}

/* `tiles` is a constant to the compiler. Each sum begins with its bias: one line, for all rows. */
static inline __attribute__((always_inline)) void sum_tiles(const struct amx_block *block,
                                                            size_t tiles)
{
    const size_t *offsets = block->offsets;
    const unsigned char *weights = block->weights;
    TILE_LOAD(0, block->bias, 0);
    if (tiles > 1) {
        TILE_LOAD(1, block->bias, 0);
    }
    if (tiles > 2) {
        TILE_LOAD(2, block->bias, 0);
    }
    if (tiles > 3) {
        TILE_LOAD(3, block->bias, 0);
    }
    for (size_t s = 0; s < block->steps; s++) {
        TILE_LOAD(6, weights, AMX_ROW_BYTES);
        TILE_LOAD(4, block->in[0] + offsets[s], block->in_step);
        TILE_SUM(0, 4, 6);
        if (tiles > 1) {
            TILE_LOAD(5, block->in[1] + offsets[s], block->in_step);
            TILE_SUM(1, 5, 6);
        }
        if (tiles > 2) {
            TILE_LOAD(7, block->in[2] + offsets[s], block->in_step);
            TILE_SUM(2, 7, 6);
        }
        if (tiles > 3) {
            TILE_LOAD(4, block->in[3] + offsets[s], block->in_step);
            TILE_SUM(3, 4, 6);
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

static void sum(const struct amx_block *block)
{
    switch (block->tiles) {
    case 1: sum_tiles(block, 1); break;
    case 2: sum_tiles(block, 2); break;
    case 3: sum_tiles(block, 3); break;
    default: sum_tiles(block, AMX_TILES); break;
    }
}

static inline void put_lanes(const struct amx_output *output, size_t pixel, LANES lanes)
{
    unsigned char *out = output->out + pixel * output->out_step;
    LANES kept = output->relu ? LANES_RELU(lanes) : lanes;
    if (output->channels == AMX_CHANNELS) {
        LANES_NARROW(kept, out);
    } else {
        unsigned char some[AMX_CHANNELS * sizeof(uint16_t)];
        LANES_NARROW(kept, some);
        memcpy(out, some, output->channels * sizeof(uint16_t));
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
