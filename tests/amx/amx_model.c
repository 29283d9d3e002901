#include "amx_model.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#ifndef __clang__
#pragma GCC optimize("O3")
#endif

struct tile {
    unsigned rows;
    unsigned row_bytes;
    unsigned char data[AMX_ROWS][AMX_ROW_BYTES];
};

static _Thread_local struct tile tiles[AMX_MODEL_TILES];
static _Thread_local bool configured;

static atomic_bool counts_only;
static _Atomic uint64_t configs;
static _Atomic uint64_t loads;
static _Atomic uint64_t load_rows;
static _Atomic uint64_t stores;
static _Atomic uint64_t store_rows;
static _Atomic uint64_t sums_done;
static _Atomic uint64_t sum_rows;

static void count(_Atomic uint64_t *what, uint64_t more)
{
    atomic_fetch_add_explicit(what, more, memory_order_relaxed);
}

static uint64_t take(_Atomic uint64_t *what)
{
    return atomic_exchange(what, 0);
}

struct amx_counts amx_model_take_counts(void)
{
    return (struct amx_counts){.configs = take(&configs),
                               .loads = take(&loads),
                               .load_rows = take(&load_rows),
                               .stores = take(&stores),
                               .store_rows = take(&store_rows),
                               .sums = take(&sums_done),
                               .sum_rows = take(&sum_rows)};
}

void amx_model_compute(bool yes)
{
    atomic_store(&counts_only, !yes);
}

/* ---- configuration ---- */

static amx_fault check_config(const struct amx_config *config)
{
    static const unsigned char zeros[sizeof config->reserved] = {0};
    if (config->palette > 1) {
        return "#GP: LDTILECFG of a palette that there is not";
    }
    if (memcmp(config->reserved, zeros, sizeof zeros) != 0) {
        return "#GP: LDTILECFG of reserved bytes that are not zero";
    }
    for (size_t i = 0; i < 16; i++) {
        bool named = i < AMX_MODEL_TILES;
        if (!named && (config->rows[i] != 0 || config->row_bytes[i] != 0)) {
            return "#GP: LDTILECFG of more tiles than the palette has";
        }
        if (config->rows[i] > AMX_ROWS || config->row_bytes[i] > AMX_ROW_BYTES) {
            return "#GP: LDTILECFG of a tile that is too large";
        }
        if ((config->rows[i] == 0) != (config->row_bytes[i] == 0)) {
            return "#GP: LDTILECFG of a tile with rows and no bytes, or bytes and no rows";
        }
    }
    return NULL;
}

amx_fault amx_model_config(const struct amx_config *config)
{
    if (config->palette == 0) {
        amx_model_release();
        return NULL;
    }
    amx_fault fault = check_config(config);
    if (fault != NULL) {
        return fault;
    }
    memset(tiles, 0, sizeof tiles);
    for (size_t i = 0; i < AMX_MODEL_TILES; i++) {
        tiles[i].rows = config->rows[i];
        tiles[i].row_bytes = config->row_bytes[i];
    }
    configured = true;
    count(&configs, 1);
    return NULL;
}

void amx_model_release(void)
{
    memset(tiles, 0, sizeof tiles);
    configured = false;
}

static amx_fault check_tile(unsigned tile)
{
    if (!configured) {
        return "#UD: tiles are not configured";
    }
    if (tile >= AMX_MODEL_TILES || tiles[tile].rows == 0) {
        return "#UD: that tile is not configured";
    }
    return NULL;
}

/* ---- moving ---- */

amx_fault amx_model_zero(unsigned tile)
{
    amx_fault fault = check_tile(tile);
    if (fault == NULL) {
        memset(tiles[tile].data, 0, sizeof tiles[tile].data);
    }
    return fault;
}

amx_fault amx_model_load(unsigned tile, const void *from, size_t step)
{
    amx_fault fault = check_tile(tile);
    if (fault != NULL) {
        return fault;
    }
    struct tile *t = &tiles[tile];
    count(&loads, 1);
    count(&load_rows, t->rows);
    if (atomic_load_explicit(&counts_only, memory_order_relaxed)) {
        return NULL;
    }
    memset(t->data, 0, sizeof t->data);
    for (unsigned r = 0; r < t->rows; r++) {
        memcpy(t->data[r], (const unsigned char *)from + r * step, t->row_bytes);
    }
    return NULL;
}

amx_fault amx_model_store(unsigned tile, void *to, size_t step)
{
    amx_fault fault = check_tile(tile);
    if (fault != NULL) {
        return fault;
    }
    const struct tile *t = &tiles[tile];
    count(&stores, 1);
    count(&store_rows, t->rows);
    for (unsigned r = 0; r < t->rows; r++) {
        memcpy((unsigned char *)to + r * step, t->data[r], t->row_bytes);
    }
    return NULL;
}

/* ---- summing ---- */

#define LANES (AMX_ROW_BYTES / 2) /* both halves of each pair */

static uint32_t bits_of(float value)
{
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value = 0;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static unsigned exponent_of(float value)
{
    return bits_of(value) >> 23 & 0xffU;
}

/* Denormal numbers count as zeros and become zeros, of their sign. */
static float flushed(float value)
{
    uint32_t bits = bits_of(value);
    return float_of((bits & 0x7f800000U) != 0 ? bits : bits & 0x80000000U);
}

static float bf16_at(const unsigned char *row, unsigned index)
{
    uint16_t half = 0;
    memcpy(&half, row + 2 * index, sizeof half);
    return flushed(float_of((uint32_t)half << 16));
}

/* sums[n] += a[n % 2] * b[n], each rounded once, to nearest even. The product of two bfloat16 has
 * at most 16 digits, so it is exact in a float that is neither too large nor denormal. */
static void fuse(const float a[2], const float b[LANES], float sums[LANES])
{
    unsigned inexact = 0;
    float products[LANES];
    for (unsigned n = 0; n < LANES; n++) {
        products[n] = a[n % 2] * b[n];
        bool far = exponent_of(products[n]) == 0 || exponent_of(products[n]) == 0xff;
        inexact |= far && exponent_of(a[n % 2]) != 0 && exponent_of(b[n]) != 0 ? 1 : 0;
    }
    for (unsigned n = 0; n < LANES && inexact != 0; n++) {
        sums[n] = flushed(fmaf(a[n % 2], b[n], sums[n]));
    }
    for (unsigned n = 0; n < LANES && inexact == 0; n++) {
        sums[n] = flushed(products[n] + sums[n]);
    }
}

/* A tile's values, row after row. */
struct values {
    float at[AMX_ROWS][LANES];
};

static void read_values(const struct tile *tile, struct values *out)
{
    memset(out, 0, sizeof *out);
    for (unsigned r = 0; r < tile->rows; r++) {
        for (unsigned i = 0; i < tile->row_bytes / 2; i++) {
            out->at[r][i] = bf16_at(tile->data[r], i);
        }
    }
}

/* First and second halves of the pairs are summed apart, from zero, and then added to each other
 * and to what was there. */
static void sum_row(struct tile *sums, const float *a, unsigned pairs, const struct values *b,
                    unsigned row)
{
    unsigned columns = sums->row_bytes / 4;
    float halves[LANES];
    memset(halves, 0, sizeof halves);
    for (unsigned k = 0; k < pairs; k++) {
        fuse(&a[2 * (size_t)k], b->at[k], halves);
    }
    for (unsigned n = 0; n < columns; n++) {
        float before = 0;
        memcpy(&before, sums->data[row] + 4 * n, sizeof before);
        float both = flushed(halves[2 * n] + halves[2 * n + 1]);
        float after = flushed(flushed(before) + both);
        memcpy(sums->data[row] + 4 * n, &after, sizeof after);
    }
}

static amx_fault check_sum(unsigned sums, unsigned a, unsigned b)
{
    if (sums == a || sums == b || a == b) {
        return "#UD: a product of a tile with itself";
    }
    if (tiles[sums].rows != tiles[a].rows || tiles[sums].row_bytes != tiles[b].row_bytes ||
        tiles[a].row_bytes / 4 != tiles[b].rows) {
        return "#UD: a product of tiles that do not fit each other";
    }
    if (tiles[sums].row_bytes % 4 != 0 || tiles[a].row_bytes % 4 != 0) {
        return "#UD: a product of tiles that hold parts of words";
    }
    return NULL;
}

/* Whether the product may be computed, and is to be: *compute. */
static amx_fault begin_sum(unsigned sums, unsigned a, unsigned b, bool *compute)
{
    const unsigned named[] = {sums, a, b};
    amx_fault fault = NULL;
    for (size_t i = 0; i < 3 && fault == NULL; i++) {
        fault = check_tile(named[i]);
    }
    if (fault == NULL) {
        fault = check_sum(sums, a, b);
    }
    if (fault != NULL) {
        return fault;
    }
    count(&sums_done, 1);
    count(&sum_rows, tiles[a].rows);
    *compute = !atomic_load_explicit(&counts_only, memory_order_relaxed);
    return NULL;
}

amx_fault amx_model_sum(unsigned sums, unsigned a, unsigned b)
{
    bool compute = false;
    amx_fault fault = begin_sum(sums, a, b, &compute);
    if (fault != NULL || !compute) {
        return fault;
    }
    struct values first;
    struct values second;
    read_values(&tiles[a], &first);
    read_values(&tiles[b], &second);
    for (unsigned row = 0; row < tiles[sums].rows; row++) {
        sum_row(&tiles[sums], first.at[row], tiles[b].rows, &second, row);
    }
    return NULL;
}

/* Four products of an unsigned and a signed byte, and what was there: as whole numbers of 32 bits
 * that wrap around. */
static void sum_codes_row(struct tile *sums, const struct tile *a, const struct tile *b,
                          unsigned row)
{
    for (unsigned n = 0; n < sums->row_bytes / 4U; n++) {
        uint32_t sum = 0;
        memcpy(&sum, sums->data[row] + 4 * (size_t)n, sizeof sum);
        for (unsigned i = 0; i < a->row_bytes; i++) {
            int32_t byte = b->data[i / 4][4 * n + i % 4];
            int32_t weight = byte < 128 ? byte : byte - 256;
            sum += (uint32_t)(a->data[row][i] * weight);
        }
        memcpy(sums->data[row] + 4 * (size_t)n, &sum, sizeof sum);
    }
}

amx_fault amx_model_sum_codes(unsigned sums, unsigned a, unsigned b)
{
    bool compute = false;
    amx_fault fault = begin_sum(sums, a, b, &compute);
    for (unsigned row = 0; fault == NULL && compute && row < tiles[sums].rows; row++) {
        sum_codes_row(&tiles[sums], &tiles[a], &tiles[b], row);
    }
    return fault;
}
