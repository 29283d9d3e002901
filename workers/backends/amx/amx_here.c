/* Whether this process can run on tiles. */
#include "amx_kernels.h"

#include "workers/backends/onednn/onednn_isa.h"

#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_TILE_DATA  18

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

/* Do the instructions do what the kernels take them to do? Pixel p's window holds numbers from
 * 32 p on, and weight k of channel c is number 32 c + k. */
static bool sums_are_right(const struct amx_kernels *kernels)
{
    enum { VALUES = 2 * AMX_PAIRS };
    static const size_t offset = 0;
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
    struct amx_block block = {.in = {(const unsigned char *)in},
                              .tiles = 1,
                              .in_step = VALUES * sizeof *in,
                              .offsets = &offset,
                              .steps = 1,
                              .weights = (const unsigned char *)weights,
                              .weight_step = sizeof weights,
                              .bias = bias,
                              .sums = sums,
                              .sums_step = AMX_CHANNELS};
    kernels->begin(AMX_ROWS, AMX_PAIRS);
    kernels->sum(&block);
    kernels->end();
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

const struct amx_kernels *amx_kernels_here(char *error, size_t error_size)
{
    struct onednn_isa isa = onednn_isa_detect();
    if (!isa.amx_bf16 || !isa.avx512_bf16) {
        snprintf(error, error_size,
                 "this CPU has no AMX-BF16, or the kernel does not save its "
                 "tiles");
        return NULL;
    }
    /* Linux hands the tiles' 8 KiB of state only to processes that ask. */
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILE_DATA) != 0) {
        snprintf(error, error_size, "the kernel does not let this process use AMX's tiles");
        return NULL;
    }
    if (!sums_are_right(&amx_hardware)) {
        snprintf(error, error_size, "AMX's tiles do not sum as they should here");
        return NULL;
    }
    return &amx_hardware;
}
