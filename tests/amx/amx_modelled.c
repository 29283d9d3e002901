/* The kernels on the software model: the same source as amx_hardware.c. */
#include "amx_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lanes {
    float lane[AMX_CHANNELS];
};

static void expect(amx_fault fault)
{
    if (fault != NULL) {
        (void)fprintf(stderr, "%s\n", fault);
        abort();
    }
}

static struct lanes lanes_load(const float *from)
{
    struct lanes lanes;
    memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

/* As VMAXPS: the second where either is no number. */
static struct lanes lanes_larger(struct lanes a, struct lanes b)
{
    for (size_t i = 0; i < AMX_CHANNELS; i++) {
        b.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
    }
    return b;
}

static struct lanes lanes_relu(struct lanes a)
{
    static const struct lanes zero = {{0}};
    return lanes_larger(zero, a);
}

/* As VCVTNEPS2BF16: to nearest even; denormal numbers become zeros, and no number stays none. */
static uint16_t narrow(float value)
{
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    uint32_t size = bits & 0x7fffffffU;
    if (size > 0x7f800000U) {
        return (uint16_t)(bits >> 16 | 0x40U);
    }
    if (size < 0x00800000U) {
        return (uint16_t)(bits >> 16 & 0x8000U);
    }
    return (uint16_t)((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

static void lanes_narrow(struct lanes a, unsigned char *out)
{
    for (size_t i = 0; i < AMX_CHANNELS; i++) {
        uint16_t half = narrow(a.lane[i]);
        memcpy(out + i * sizeof half, &half, sizeof half);
    }
}

static void lanes_keep(struct lanes a, float *to)
{
    memcpy(to, &a, sizeof a);
}

static struct lanes lanes_whole(const float *from)
{
    int32_t whole[AMX_CHANNELS];
    struct lanes lanes;
    memcpy(whole, from, sizeof whole);
    for (size_t i = 0; i < AMX_CHANNELS; i++) {
        lanes.lane[i] = (float)whole[i];
    }
    return lanes;
}

static struct lanes lanes_add(struct lanes a, struct lanes b)
{
    for (size_t i = 0; i < AMX_CHANNELS; i++) {
        a.lane[i] += b.lane[i];
    }
    return a;
}

static struct lanes lanes_times(struct lanes a, struct lanes b)
{
    for (size_t i = 0; i < AMX_CHANNELS; i++) {
        a.lane[i] *= b.lane[i];
    }
    return a;
}

/* As VMAXPS, VMINPS and VCVTPS2DQ: to nearest even, and 0 for what is no number. */
static void lanes_code(struct lanes a, unsigned char *out)
{
    for (size_t i = 0; i < AMX_CHANNELS; i++) {
        float positive = a.lane[i] > 0.0F ? a.lane[i] : 0.0F;
        out[i] = (unsigned char)rintf(positive < 255.0F ? positive : 255.0F);
    }
}

#define TILE_CONFIG(config)         expect(amx_model_config(config))
#define TILE_RELEASE()              amx_model_release()
#define TILE_LOAD(tile, from, step) expect(amx_model_load(tile, from, step))
#define TILE_STORE(tile, to, step)  expect(amx_model_store(tile, to, step))
#define TILE_SUM(sums, a, b)        expect(amx_model_sum(sums, a, b))
#define TILE_SUM_CODES(sums, a, b)  expect(amx_model_sum_codes(sums, a, b))
#define LANES                       struct lanes
#define LANES_LOAD(from)            lanes_load(from)
#define LANES_LARGER(a, b)          lanes_larger(a, b)
#define LANES_RELU(a)               lanes_relu(a)
#define LANES_NARROW(a, out)        lanes_narrow(a, out)
#define LANES_KEEP(a, to)           lanes_keep(a, to)
#define LANES_WHOLE(from)           lanes_whole(from)
#define LANES_ADD(a, b)             lanes_add(a, b)
#define LANES_TIMES(a, b)           lanes_times(a, b)
#define LANES_CODE(a, out)          lanes_code(a, out)

#define AMX_TABLE amx_modelled
#include "workers/backends/amx/amx_body.h"
