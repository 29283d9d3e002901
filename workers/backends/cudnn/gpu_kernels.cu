/*
 * The kernels of gpu_kernels.h: what one item is computed by, and below it the entry points. The
 * double of a GPU compiles the same lines with g++ (tests/gpu/double/words).
 */
#include "gpu_kernels.h"

#include <cuda_fp16.h>

#define ITEM static __device__ __forceinline__

/* ---- elements ---- */

/* Eight elements of 16 bits, or four of 32: what a thread reads and writes at once. */
struct __align__(16) word {
    uint32_t parts[4];
};

struct group {
    float values[8];
};

ITEM uint32_t bits_of(float value)
{
    union {
        float value;
        uint32_t bits;
    } u;
    u.value = value;
    return u.bits;
}

ITEM float float_of(uint32_t bits)
{
    union {
        float value;
        uint32_t bits;
    } u;
    u.bits = bits;
    return u.value;
}

/* To nearest even; a NaN stays one. */
ITEM uint32_t to_bf16(float value)
{
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return 0x7fc0u;
    }
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

ITEM float from_f16(uint32_t bits)
{
    return __half2float(__ushort_as_half((unsigned short)bits));
}

ITEM uint32_t to_f16(float value)
{
    return __half_as_ushort(__float2half_rn(value));
}

ITEM float widen(enum gpu_type type, uint32_t half)
{
    return type == GPU_BF16 ? float_of(half << 16) : from_f16(half);
}

ITEM uint32_t narrow(enum gpu_type type, float value)
{
    return type == GPU_BF16 ? to_bf16(value) : to_f16(value);
}

/* Elements `at` to at + 7 of data; at is a multiple of 8. */
ITEM struct group group_load(enum gpu_type type, const void *data, uint64_t at)
{
    struct group group;
    if (type == GPU_F32) {
        const struct word *words = (const struct word *)data + at / 4;
        struct word low = words[0];
        struct word high = words[1];
        for (int i = 0; i < 4; i++) {
            group.values[i] = float_of(low.parts[i]);
            group.values[4 + i] = float_of(high.parts[i]);
        }
        return group;
    }
    struct word word = ((const struct word *)data)[at / 8];
    for (int i = 0; i < 4; i++) {
        group.values[2 * i] = widen(type, word.parts[i] & 0xffffu);
        group.values[2 * i + 1] = widen(type, word.parts[i] >> 16);
    }
    return group;
}

ITEM void group_store(enum gpu_type type, void *data, uint64_t at, const struct group *group)
{
    if (type == GPU_F32) {
        struct word *words = (struct word *)data + at / 4;
        struct word low;
        struct word high;
        for (int i = 0; i < 4; i++) {
            low.parts[i] = bits_of(group->values[i]);
            high.parts[i] = bits_of(group->values[4 + i]);
        }
        words[0] = low;
        words[1] = high;
        return;
    }
    struct word word;
    for (int i = 0; i < 4; i++) {
        word.parts[i] = narrow(type, group->values[2 * i]) |
                        narrow(type, group->values[2 * i + 1]) << 16;
    }
    ((struct word *)data)[at / 8] = word;
}

/* ---- pixels ---- */

struct place {
    uint32_t image;
    uint32_t y;
    uint32_t x;
    uint32_t channel;
};

/* An item as 8 channels of a pixel of a grid; channels run fastest. */
ITEM struct place place_of(uint32_t item, uint32_t depth, uint32_t height, uint32_t width)
{
    struct place place;
    uint32_t groups = depth / 8;
    uint32_t pixel = item / groups;
    place.channel = (item - pixel * groups) * 8;
    uint32_t row = pixel / width;
    place.x = pixel - row * width;
    place.image = row / height;
    place.y = row - place.image * height;
    return place;
}

ITEM uint64_t element_at(const struct gpu_image *image, uint32_t n, uint32_t y, uint32_t x,
                         uint32_t channel)
{
    return (((uint64_t)n * image->height + y) * image->width + x) * image->pitch + channel;
}

ITEM struct group pixel_load(enum gpu_type type, const struct gpu_image *image,
                             const struct place *place, uint32_t y, uint32_t x)
{
    return group_load(type, image->data, element_at(image, place->image, y, x, place->channel));
}

ITEM void pixel_store(enum gpu_type type, const struct gpu_image *image, const struct place *place,
                      const struct group *group)
{
    group_store(type, image->data,
                element_at(image, place->image, place->y, place->x, place->channel), group);
}

/* ---- the kernels ---- */

/* Types are numbered as in unetserve/tensor.h; gpu_backend.c asserts it. */
ITEM float tile_value(uint32_t dtype, const void *tiles, uint64_t at)
{
    switch (dtype) {
    case 1: return (float)((const uint8_t *)tiles)[at];
    case 2: return (float)((const int8_t *)tiles)[at];
    case 3: return (float)((const uint16_t *)tiles)[at];
    case 4: return (float)((const int16_t *)tiles)[at];
    case 5: return from_f16(((const uint16_t *)tiles)[at]);
    default: return ((const float *)tiles)[at];
    }
}

/* Comparisons that a NaN fails, so that it stays one. */
ITEM float preprocess(const struct gpu_load_args *a, float value)
{
    value = (value + a->offset) / a->scale;
    if (a->clip) {
        value = value < a->low ? a->low : value;
        value = value > a->high ? a->high : value;
    }
    return value;
}

ITEM void load_item(enum gpu_type type, const struct gpu_load_args *a, uint32_t item)
{
    uint32_t plane = a->out.height * a->out.width;
    uint32_t image = item / plane;
    uint64_t tile = (uint64_t)image * a->channels * plane + (item - image * plane);
    for (uint32_t first = 0; first < a->out.depth; first += 8) {
        struct group group;
        for (uint32_t i = 0; i < 8; i++) {
            uint32_t channel = first + i;
            group.values[i] = channel < a->channels
                                  ? preprocess(a, tile_value(a->dtype, a->tiles,
                                                             tile + (uint64_t)channel * plane))
                                  : 0.0f;
        }
        group_store(type, a->out.data, (uint64_t)item * a->out.pitch + first, &group);
    }
}

ITEM void keep_larger(struct group *best, const struct group *other)
{
    for (int i = 0; i < 8; i++) {
        best->values[i] = other->values[i] > best->values[i] ? other->values[i] : best->values[i];
    }
}

ITEM struct group lowest(void)
{
    struct group group;
    for (int i = 0; i < 8; i++) {
        group.values[i] = -INFINITY;
    }
    return group;
}

ITEM void pool_item(enum gpu_type type, const struct gpu_pool_args *a, uint32_t item)
{
    struct place place = place_of(item, a->out.depth, a->out.height, a->out.width);
    struct group best = lowest();
    for (uint32_t ky = 0; ky < a->kernel; ky++) {
        int32_t y = (int32_t)(place.y * a->stride + ky) - (int32_t)a->padding;
        if (y < 0 || y >= (int32_t)a->in.height) {
            continue;
        }
        for (uint32_t kx = 0; kx < a->kernel; kx++) {
            int32_t x = (int32_t)(place.x * a->stride + kx) - (int32_t)a->padding;
            if (x < 0 || x >= (int32_t)a->in.width) {
                continue;
            }
            struct group other = pixel_load(type, &a->in, &place, (uint32_t)y, (uint32_t)x);
            keep_larger(&best, &other);
        }
    }
    pixel_store(type, &a->out, &place, &best);
}

ITEM void halve_item(enum gpu_type type, const struct gpu_halve_args *a, uint32_t item)
{
    struct place place = place_of(item, a->in.depth, (a->in.height + 1) / 2, (a->in.width + 1) / 2);
    struct group best = lowest();
    for (uint32_t k = 0; k < 4; k++) {
        struct place at = place;
        at.y = 2 * place.y + k / 2;
        at.x = 2 * place.x + k % 2;
        if (at.y < a->in.height && at.x < a->in.width) {
            struct group group = pixel_load(type, &a->in, &at, at.y, at.x);
            pixel_store(type, &a->copy, &at, &group);
            keep_larger(&best, &group);
        }
    }
    if (place.y < a->out.height && place.x < a->out.width) {
        pixel_store(type, &a->out, &place, &best);
    }
}

ITEM void shuffle_item(enum gpu_type type, const struct gpu_shuffle_args *a, uint32_t item)
{
    struct place place = place_of(item, a->out.depth, a->out.height, a->out.width);
    struct place from = place;
    from.channel += (place.y % 2 * 2 + place.x % 2) * a->out.depth;
    struct group group = pixel_load(type, &a->in, &from, place.y / 2, place.x / 2);
    pixel_store(type, &a->out, &place, &group);
}

/* Where an output position falls between two inputs. Not aligned: pixel centres correspond;
 * aligned: corner pixels do. */
struct between {
    uint32_t low;
    uint32_t high;
    float fraction; /* weight of high */
};

ITEM struct between find_between(uint32_t at, uint32_t in, uint32_t out, uint32_t aligned)
{
    struct between between;
    float where;
    if (aligned) {
        where = out > 1 ? (float)at * ((float)(in - 1) / (float)(out - 1)) : 0.0f;
    } else {
        where = ((float)at + 0.5f) * ((float)in / (float)out) - 0.5f;
    }
    where = where < 0.0f ? 0.0f : where;
    between.low = (uint32_t)where;
    between.low = between.low > in - 1 ? in - 1 : between.low;
    between.high = between.low + 1 < in ? between.low + 1 : between.low;
    between.fraction = where - (float)between.low;
    return between;
}

ITEM void upsample_item(enum gpu_type type, const struct gpu_upsample_args *a, uint32_t item)
{
    struct place place = place_of(item, a->out.depth, a->out.height, a->out.width);
    struct group out;
    if (a->mode == 0) { /* nearest */
        out = pixel_load(type, &a->in, &place, place.y / 2, place.x / 2);
        pixel_store(type, &a->out, &place, &out);
        return;
    }
    struct between v = find_between(place.y, a->in.height, a->out.height, a->mode == 2);
    struct between h = find_between(place.x, a->in.width, a->out.width, a->mode == 2);
    struct group corners[4];
    for (uint32_t k = 0; k < 4; k++) {
        corners[k] = pixel_load(type, &a->in, &place, k / 2 ? v.high : v.low,
                                k % 2 ? h.high : h.low);
    }
    for (int i = 0; i < 8; i++) {
        float upper = corners[0].values[i] * (1.0f - h.fraction) + corners[1].values[i] * h.fraction;
        float lower = corners[2].values[i] * (1.0f - h.fraction) + corners[3].values[i] * h.fraction;
        out.values[i] = upper * (1.0f - v.fraction) + lower * v.fraction;
    }
    pixel_store(type, &a->out, &place, &out);
}

ITEM void fit_item(enum gpu_type type, const struct gpu_fit_args *a, uint32_t item)
{
    struct place place = place_of(item, a->out.depth, a->out.height, a->out.width);
    int32_t y = (int32_t)place.y - a->top;
    int32_t x = (int32_t)place.x - a->left;
    struct group group;
    if (y >= 0 && y < (int32_t)a->in.height && x >= 0 && x < (int32_t)a->in.width) {
        group = pixel_load(type, &a->in, &place, (uint32_t)y, (uint32_t)x);
    } else {
        for (int i = 0; i < 8; i++) {
            group.values[i] = 0.0f;
        }
    }
    pixel_store(type, &a->out, &place, &group);
}

ITEM void add_item(enum gpu_type type, const struct gpu_add_args *a, uint32_t item)
{
    struct place place = place_of(item, a->out.depth, a->out.height, a->out.width);
    struct group first = pixel_load(type, &a->in, &place, place.y, place.x);
    struct group second = pixel_load(type, &a->second, &place, place.y, place.x);
    for (int i = 0; i < 8; i++) {
        float sum = first.values[i] + second.values[i];
        first.values[i] = a->relu && sum < 0.0f ? 0.0f : sum;
    }
    pixel_store(type, &a->out, &place, &first);
}

ITEM void labels_item(enum gpu_type type, const struct gpu_labels_args *a, uint32_t item)
{
    float best = 0.0f;
    uint32_t label = 0;
    for (uint32_t first = 0; first < a->classes; first += 8) {
        struct group group = group_load(type, a->in.data, (uint64_t)item * a->in.pitch + first);
        for (uint32_t i = 0; i < 8; i++) {
            uint32_t class_number = first + i;
            bool counts = class_number < a->classes;
            if (counts && (class_number == 0 || group.values[i] > best)) {
                best = group.values[i];
                label = class_number;
            }
        }
    }
    a->labels[item] = a->classes == 1 ? (uint8_t)(best > 0.0f) : (uint8_t)label;
}

ITEM void logits_item(enum gpu_type type, const struct gpu_logits_args *a, uint32_t item)
{
    uint32_t plane = a->in.height * a->in.width;
    uint32_t image = item / plane;
    uint64_t to = (uint64_t)image * a->classes * plane + (item - image * plane);
    for (uint32_t first = 0; first < a->classes; first += 8) {
        struct group group = group_load(type, a->in.data, (uint64_t)item * a->in.pitch + first);
        for (uint32_t i = 0; i < 8 && first + i < a->classes; i++) {
            a->logits[to + (uint64_t)(first + i) * plane] = group.values[i];
        }
    }
}

/* ---- entry points ---- */

#define ENTRY(name, suffix, type)                                                                  \
    extern "C" __global__ void __launch_bounds__(GPU_BLOCK_THREADS)                                \
        gpu_##name##_##suffix(const __grid_constant__ struct gpu_##name##_args args)               \
    {                                                                                              \
        uint32_t threads = gridDim.x * blockDim.x;                                                 \
        for (uint32_t item = blockIdx.x * blockDim.x + threadIdx.x; item < args.items;             \
             item += threads) {                                                                    \
            name##_item(type, &args, item);                                                        \
        }                                                                                          \
    }

#define ENTRIES(name)                                                                              \
    ENTRY(name, f32, GPU_F32)                                                                      \
    ENTRY(name, f16, GPU_F16)                                                                      \
    ENTRY(name, bf16, GPU_BF16)

GPU_KERNELS(ENTRIES)
