/* Sums that are known, against what kernels make of them. */
#include "amx_kernels.h"

#include <string.h>

/* Numbers so small that every sum is exact. */
static float small(size_t index)
{
    return (float)((index * 7) % 5) - 2.0F;
}

static uint16_t small_bf16(size_t index)
{
    float value = small(index);
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* One step of one tile: full rows of windows that follow one another. */
static void sum_once(const struct amx_kernels *kernels, const void *in, const void *weights,
                     const float *bias, const float *scale, float *sums)
{
    static const size_t offset = 0;
    struct amx_block block = {.in = {(const unsigned char *)in},
                              .tiles = 1,
                              .in_step = AMX_ROW_BYTES,
                              .offsets = &offset,
                              .steps = 1,
                              .weights = (const unsigned char *)weights,
                              .weight_step = AMX_WORDS * AMX_ROW_BYTES,
                              .bias = bias,
                              .scale = scale,
                              .rows = AMX_ROWS,
                              .sums = sums,
                              .sums_step = AMX_CHANNELS};
    kernels->begin(AMX_ROWS, AMX_WORDS);
    kernels->sum(&block);
    kernels->end();
}

/* Do the instructions do what the kernels take them to do? Pixel p's window holds numbers from
 * 32 p on, and weight k of channel c is number 32 c + k. */
static bool sums_are_right(const struct amx_kernels *kernels)
{
    enum { VALUES = 2 * AMX_WORDS };
    _Alignas(AMX_ROW_BYTES) float bias[AMX_CHANNELS];
    _Alignas(AMX_ROW_BYTES) float sums[AMX_ROWS * AMX_CHANNELS];
    uint16_t in[AMX_ROWS * VALUES];
    uint16_t weights[AMX_CHANNELS * VALUES];
    for (size_t c = 0; c < AMX_CHANNELS; c++) {
        bias[c] = small(c);
        for (size_t k = 0; k < VALUES; k++) {
            in[c * VALUES + k] = small_bf16(c * VALUES + k);
            weights[(k / 2 * AMX_CHANNELS + c) * 2 + k % 2] = small_bf16(c * VALUES + k);
        }
    }
    sum_once(kernels, in, weights, bias, NULL, sums);
    bool right = true;
    for (size_t i = 0; i < AMX_ROWS * AMX_CHANNELS; i++) {
        float wanted = small(i % AMX_CHANNELS);
        for (size_t k = 0; k < VALUES; k++) {
            wanted += small(i / AMX_CHANNELS * VALUES + k) * small(i % AMX_CHANNELS * VALUES + k);
        }
        right = right && sums[i] == wanted;
    }
    return right;
}

static uint8_t code(size_t index)
{
    return (uint8_t)(index * 7 % 251);
}

static int8_t whole(size_t index)
{
    return (int8_t)(30.0F * small(index));
}

/* The same of codes from 0 to 250 and weights from -60 to 60, numbered from 64 p and 64 c on. */
static bool whole_sums_are_right(const struct amx_kernels *kernels)
{
    enum { VALUES = 4 * AMX_WORDS };
    _Alignas(AMX_ROW_BYTES) float bias[AMX_CHANNELS];
    _Alignas(AMX_ROW_BYTES) float scale[AMX_CHANNELS];
    _Alignas(AMX_ROW_BYTES) float sums[AMX_ROWS * AMX_CHANNELS];
    uint8_t in[AMX_ROWS * VALUES];
    int8_t weights[AMX_CHANNELS * VALUES];
    for (size_t c = 0; c < AMX_CHANNELS; c++) {
        bias[c] = small(c);
        scale[c] = 0.5F;
        for (size_t k = 0; k < VALUES; k++) {
            in[c * VALUES + k] = code(c * VALUES + k);
            weights[(k / 4 * AMX_CHANNELS + c) * 4 + k % 4] = whole(c * VALUES + k);
        }
    }
    sum_once(kernels, in, weights, bias, scale, sums);
    bool right = true;
    for (size_t i = 0; i < AMX_ROWS * AMX_CHANNELS; i++) {
        int32_t wanted = 0;
        for (size_t k = 0; k < VALUES; k++) {
            wanted += code(i / AMX_CHANNELS * VALUES + k) * whole(i % AMX_CHANNELS * VALUES + k);
        }
        right = right && sums[i] == ((float)wanted + small(i % AMX_CHANNELS)) * 0.5F;
    }
    return right;
}

bool amx_kernels_are_right(const struct amx_kernels *kernels)
{
    return sums_are_right(kernels) && whole_sums_are_right(kernels);
}
