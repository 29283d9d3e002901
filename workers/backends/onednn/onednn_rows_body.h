/*
 * The inner loops themselves: included once by each onednn_rows_*.c, which sets the instruction set
 * and names the table. Plain loops that the compiler vectorises; only the transpositions are spelt
 * out, in SSE2, which every x86-64 has.
 */
#include "onednn_rows.h"

#include <emmintrin.h>
#include <string.h>

#define BLOCK_PIXELS   ONEDNN_ROWS_PIXELS
#define BLOCK_CHANNELS ONEDNN_ROWS_CHANNELS

static inline uint32_t bits_of(float value)
{
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits)
{
    float value = 0;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float widen(uint16_t value)
{
    return float_of((uint32_t)value << 16);
}

static inline uint16_t narrow(float value)
{
    uint32_t bits = bits_of(value);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    uint32_t quiet = bits >> 16 | 0x40u; /* rounding must not carry a NaN into infinity */
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

/* bfloat16 in the order of signed integers: the map is its own inverse. */
static inline int16_t ordered(uint16_t value)
{
    int16_t word = (int16_t)value;
    return (int16_t)(word ^ ((word >> 15) & 0x7fff));
}

static inline int16_t larger(int16_t a, int16_t b)
{
    return a > b ? a : b;
}

static inline uint16_t max_of_bf16(uint16_t a, uint16_t b)
{
    return (uint16_t)ordered((uint16_t)larger(ordered(a), ordered(b)));
}

static inline float max_of_f32(float a, float b)
{
    return a > b ? a : b;
}

static void pool_bf16(const struct onednn_pool_row *row)
{
    for (size_t p = 0; p < row->pixels; p++) {
        const uint16_t *restrict a = (const uint16_t *)row->top + 2 * p * row->in_pitch;
        const uint16_t *restrict b = (const uint16_t *)row->bottom + 2 * p * row->in_pitch;
        const uint16_t *restrict c = a + row->in_pitch;
        const uint16_t *restrict d = b + row->in_pitch;
        uint16_t *restrict out = (uint16_t *)row->out + p * row->out_pitch;
        for (size_t i = 0; i < row->channels; i++) {
            int16_t upper = larger(ordered(a[i]), ordered(c[i]));
            int16_t lower = larger(ordered(b[i]), ordered(d[i]));
            out[i] = (uint16_t)ordered((uint16_t)larger(upper, lower));
        }
    }
}

static void pool_f32(const struct onednn_pool_row *row)
{
    for (size_t p = 0; p < row->pixels; p++) {
        const float *restrict a = (const float *)row->top + 2 * p * row->in_pitch;
        const float *restrict b = (const float *)row->bottom + 2 * p * row->in_pitch;
        const float *restrict c = a + row->in_pitch;
        const float *restrict d = b + row->in_pitch;
        float *restrict out = (float *)row->out + p * row->out_pitch;
        for (size_t i = 0; i < row->channels; i++) {
            out[i] = max_of_f32(max_of_f32(a[i], c[i]), max_of_f32(b[i], d[i]));
        }
    }
}

/* Bytes may alias anything, so bounds of loops that store bytes are arguments: read again after
 * each store they would keep the compiler from vectorising. Constant ones leave no rest of a
 * vector. */
static inline __attribute__((always_inline)) void pool_bytes(const struct onednn_pool_row *row,
                                                             size_t channels)
{
    size_t pixels = row->pixels;
    for (size_t p = 0; p < pixels; p++) {
        const uint8_t *restrict a = (const uint8_t *)row->top + 2 * p * row->in_pitch;
        const uint8_t *restrict b = (const uint8_t *)row->bottom + 2 * p * row->in_pitch;
        const uint8_t *restrict c = a + row->in_pitch;
        const uint8_t *restrict d = b + row->in_pitch;
        uint8_t *restrict out = (uint8_t *)row->out + p * row->out_pitch;
        for (size_t i = 0; i < channels; i++) {
            uint8_t upper = a[i] > c[i] ? a[i] : c[i];
            uint8_t lower = b[i] > d[i] ? b[i] : d[i];
            out[i] = upper > lower ? upper : lower;
        }
    }
}

static void pool_u8(const struct onednn_pool_row *row)
{
    switch (row->channels) {
    case 16: pool_bytes(row, 16); break;
    case 32: pool_bytes(row, 32); break;
    default: pool_bytes(row, row->channels); break;
    }
}

/* Pixels of `unit` bytes times a whole number: the compiler turns each constant unit into a
 * register's move. */
static inline __attribute__((always_inline)) void copy_units(unsigned char *out, size_t out_step,
                                                             const unsigned char *in,
                                                             size_t in_step, size_t bytes,
                                                             size_t pixels, size_t unit)
{
    for (size_t p = 0; p < pixels; p++) {
        for (size_t i = 0; i < bytes; i += unit) {
            memcpy(out + p * out_step + i, in + p * in_step + i, unit);
        }
    }
}

static void copy(unsigned char *out, size_t out_step, const unsigned char *in, size_t in_step,
                 size_t bytes, size_t pixels)
{
    if (bytes == 16) {
        copy_units(out, out_step, in, in_step, 16, pixels, 16);
    } else if (bytes == 32) {
        copy_units(out, out_step, in, in_step, 32, pixels, 32);
    } else if (bytes == 64) {
        copy_units(out, out_step, in, in_step, 64, pixels, 64);
    } else if (bytes % 64 == 0 && bytes < 2048) {
        copy_units(out, out_step, in, in_step, bytes, pixels, 64);
    } else {
        copy_units(out, out_step, in, in_step, bytes, pixels, bytes);
    }
}

static void max_bf16(uint16_t *restrict io, const uint16_t *restrict in, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        io[i] = max_of_bf16(io[i], in[i]);
    }
}

static void max_f32(float *restrict io, const float *restrict in, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        io[i] = max_of_f32(io[i], in[i]);
    }
}

static void max_u8(uint8_t *restrict io, const uint8_t *restrict in, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        io[i] = io[i] > in[i] ? io[i] : in[i];
    }
}

static void add_bf16(uint16_t *out, const uint16_t *a, const uint16_t *b, size_t count, bool relu)
{
    float floor = relu ? 0.0F : -__builtin_inff();
    for (size_t i = 0; i < count; i++) {
        out[i] = narrow(max_of_f32(widen(a[i]) + widen(b[i]), floor));
    }
}

static void add_f32(float *out, const float *a, const float *b, size_t count, bool relu)
{
    float floor = relu ? 0.0F : -__builtin_inff();
    for (size_t i = 0; i < count; i++) {
        out[i] = max_of_f32(a[i] + b[i], floor);
    }
}

static void blend_bf16(uint16_t *restrict out, const void *const in[4], const float weight[4],
                       size_t count)
{
    const uint16_t *restrict a = (const uint16_t *)in[0];
    const uint16_t *restrict b = (const uint16_t *)in[1];
    const uint16_t *restrict c = (const uint16_t *)in[2];
    const uint16_t *restrict d = (const uint16_t *)in[3];
    float w0 = weight[0];
    float w1 = weight[1];
    float w2 = weight[2];
    float w3 = weight[3];
    for (size_t i = 0; i < count; i++) {
        out[i] = narrow(widen(a[i]) * w0 + widen(b[i]) * w1 + widen(c[i]) * w2 + widen(d[i]) * w3);
    }
}

static void blend_f32(float *restrict out, const void *const in[4], const float weight[4],
                      size_t count)
{
    const float *restrict a = (const float *)in[0];
    const float *restrict b = (const float *)in[1];
    const float *restrict c = (const float *)in[2];
    const float *restrict d = (const float *)in[3];
    float w0 = weight[0];
    float w1 = weight[1];
    float w2 = weight[2];
    float w3 = weight[3];
    for (size_t i = 0; i < count; i++) {
        out[i] = a[i] * w0 + b[i] * w1 + c[i] * w2 + d[i] * w3;
    }
}

/* ---- codes ---- */

/* To the nearest code, of two the even one: behind a number as large as this a float has no room
 * for halves. What is no number becomes 0. */
static inline uint8_t code_of(float value)
{
    float floored = value > 0.0F ? value : 0.0F;
    float cut = floored < 255.0F ? floored : 255.0F;
    return (uint8_t)bits_of(cut + 0x1.8p23F);
}

static void blend_u8(uint8_t *restrict out, const void *const in[4], const float weight[4],
                     size_t count)
{
    const uint8_t *restrict a = (const uint8_t *)in[0];
    const uint8_t *restrict b = (const uint8_t *)in[1];
    const uint8_t *restrict c = (const uint8_t *)in[2];
    const uint8_t *restrict d = (const uint8_t *)in[3];
    float w0 = weight[0];
    float w1 = weight[1];
    float w2 = weight[2];
    float w3 = weight[3];
    for (size_t i = 0; i < count; i++) {
        out[i] = code_of((float)a[i] * w0 + (float)b[i] * w1 + (float)c[i] * w2 + (float)d[i] * w3);
    }
}

/* Codes of several pixels in a row, where these have few channels and nothing between them. */
struct repeated {
    float steps[BLOCK_PIXELS];
    float zero[BLOCK_PIXELS];
};

/* How many pixels a block takes, and its codes; 1 where it does not work out. */
static size_t repeat_codes(const struct onednn_codes *codes, size_t pitch, struct repeated *room,
                           struct onednn_codes *out)
{
    size_t channels = codes->channels;
    if (pitch != channels || channels >= BLOCK_PIXELS || BLOCK_PIXELS % channels != 0) {
        return 1;
    }
    for (size_t i = 0; i < BLOCK_PIXELS; i++) {
        room->steps[i] = codes->steps[i % channels];
        room->zero[i] = codes->zero[i % channels];
    }
    out->steps = room->steps;
    out->zero = room->zero;
    out->channels = BLOCK_PIXELS;
    return BLOCK_PIXELS / channels;
}

/* A number of a row of them, bf16 or float. */
static inline __attribute__((always_inline)) float number_at(const void *row, size_t at, bool half)
{
    return half ? widen(((const uint16_t *)row)[at]) : ((const float *)row)[at];
}

static inline __attribute__((always_inline)) void encode_row(const struct onednn_codes *codes,
                                                             uint8_t *restrict to,
                                                             const void *restrict from, bool half)
{
    size_t channels = codes->channels;
    const float *restrict steps = codes->steps;
    const float *restrict zero = codes->zero;
    for (size_t i = 0; i < channels; i++) {
        to[i] = code_of(number_at(from, i, half) * steps[i] + zero[i]);
    }
}

static inline __attribute__((always_inline)) void encode(const struct onednn_codes *codes,
                                                         uint8_t *out, size_t out_pitch,
                                                         const void *in, size_t in_pitch,
                                                         size_t pixels, bool half)
{
    struct repeated room;
    struct onednn_codes wide = *codes;
    size_t share = out_pitch == in_pitch ? repeat_codes(codes, in_pitch, &room, &wide) : 1;
    size_t blocks = pixels / share;
    size_t element = half ? sizeof(uint16_t) : sizeof(float);
    for (size_t p = 0; p < blocks; p++) {
        encode_row(&wide, out + p * out_pitch * share,
                   (const char *)in + p * in_pitch * share * element, half);
    }
    for (size_t i = blocks * wide.channels; share > 1 && i < pixels * in_pitch; i++) {
        size_t channel = i % in_pitch;
        out[i] = code_of(number_at(in, i, half) * codes->steps[channel] + codes->zero[channel]);
    }
}

static void encode_bf16(const struct onednn_codes *codes, uint8_t *out, size_t out_pitch,
                        const uint16_t *in, size_t in_pitch, size_t pixels)
{
    encode(codes, out, out_pitch, in, in_pitch, pixels, true);
}

static void encode_f32(const struct onednn_codes *codes, uint8_t *out, size_t out_pitch,
                       const float *in, size_t in_pitch, size_t pixels)
{
    encode(codes, out, out_pitch, in, in_pitch, pixels, false);
}

static void decode(const struct onednn_codes *codes, float *restrict out,
                   const uint8_t *restrict in)
{
    const float *restrict scale = codes->scale;
    const float *restrict zero = codes->zero;
    for (size_t i = 0; i < codes->channels; i++) {
        out[i] = ((float)in[i] - zero[i]) * scale[i];
    }
}

static void narrow_bf16(uint16_t *restrict out, const float *restrict in, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = narrow(in[i]);
    }
}

static void widen_bf16(float *restrict out, const uint16_t *restrict in, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = widen(in[i]);
    }
}

/* ---- from planes of any type to pixels ---- */

static inline float widen_f16(uint16_t value)
{
    /* Exponent and mantissa moved to where a float has them are the value times 2^-112, subnormals
     * included. */
    uint32_t magnitude = (uint32_t)(value & 0x7fff) << 13;
    float scaled = float_of(magnitude) * 0x1p112F;
    uint32_t infinite = magnitude | 0x7f800000u;
    uint32_t bits = (value & 0x7c00) == 0x7c00 ? infinite : bits_of(scaled);
    return float_of(bits | (uint32_t)(value & 0x8000) << 16);
}

static inline float load_f16(const void *in)
{
    uint16_t value = 0;
    memcpy(&value, in, sizeof value);
    return widen_f16(value);
}

/* Elements of any type to float. Inputs may lie unaligned, hence the memcpy. */
static void to_float(uint32_t dtype, const void *in, size_t count, float *restrict out)
{
    const unsigned char *bytes = (const unsigned char *)in;
    switch (dtype) {
    case UNETSERVE_U8:
        for (size_t i = 0; i < count; i++) {
            out[i] = bytes[i];
        }
        break;
    case UNETSERVE_I8:
        for (size_t i = 0; i < count; i++) {
            out[i] = (signed char)bytes[i];
        }
        break;
    case UNETSERVE_U16:
        for (size_t i = 0; i < count; i++) {
            uint16_t value = 0;
            memcpy(&value, bytes + 2 * i, sizeof value);
            out[i] = value;
        }
        break;
    case UNETSERVE_I16:
        for (size_t i = 0; i < count; i++) {
            int16_t value = 0;
            memcpy(&value, bytes + 2 * i, sizeof value);
            out[i] = value;
        }
        break;
    case UNETSERVE_F16:
        for (size_t i = 0; i < count; i++) {
            out[i] = load_f16(bytes + 2 * i);
        }
        break;
    default: /* UNETSERVE_F32: forward has refused all others */
        memcpy(out, bytes, count * sizeof *out);
        break;
    }
}

static void clip(const struct backend_preprocess *preprocess, float *io, size_t count)
{
    float low = preprocess->clip_low;
    float high = preprocess->clip_high;
    for (size_t i = 0; i < count; i++) {
        float value = io[i] < low ? low : io[i];
        io[i] = value > high ? high : value;
    }
}

static void prepare(const struct backend_preprocess *preprocess, float *io, size_t count)
{
    float offset = preprocess->offset;
    float scale = preprocess->scale;
    for (size_t i = 0; i < count; i++) {
        io[i] = (io[i] + offset) / scale;
    }
    if (preprocess->clip) {
        clip(preprocess, io, count);
    }
}

/* out[r * out_pitch + c] = in[c * in_pitch + r] for 8 x 8 words. */
static inline void transpose_words(const uint16_t *in, size_t in_pitch, uint16_t *out,
                                   size_t out_pitch)
{
    __m128i row[8];
    __m128i pair[8];
    __m128i quad[8];
    for (int i = 0; i < 8; i++) {
        row[i] = _mm_loadu_si128((const __m128i *)(const void *)(in + (size_t)i * in_pitch));
    }
    for (int i = 0; i < 4; i++) {
        pair[2 * i] = _mm_unpacklo_epi16(row[2 * i], row[2 * i + 1]);
        pair[2 * i + 1] = _mm_unpackhi_epi16(row[2 * i], row[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        const __m128i *p = pair + 4 * (size_t)i;
        quad[4 * i] = _mm_unpacklo_epi32(p[0], p[2]);
        quad[4 * i + 1] = _mm_unpackhi_epi32(p[0], p[2]);
        quad[4 * i + 2] = _mm_unpacklo_epi32(p[1], p[3]);
        quad[4 * i + 3] = _mm_unpackhi_epi32(p[1], p[3]);
    }
    for (int i = 0; i < 4; i++) {
        __m128i even = _mm_unpacklo_epi64(quad[i], quad[4 + i]);
        __m128i odd = _mm_unpackhi_epi64(quad[i], quad[4 + i]);
        uint16_t *at = out + 2 * (size_t)i * out_pitch;
        _mm_storeu_si128((__m128i *)(void *)at, even);
        _mm_storeu_si128((__m128i *)(void *)(at + out_pitch), odd);
    }
}

/* The same for 4 x 4 floats. */
static inline void transpose_floats(const float *in, size_t in_pitch, float *out, size_t out_pitch)
{
    __m128 a = _mm_loadu_ps(in);
    __m128 b = _mm_loadu_ps(in + in_pitch);
    __m128 c = _mm_loadu_ps(in + 2 * in_pitch);
    __m128 d = _mm_loadu_ps(in + 3 * in_pitch);
    __m128 low_ab = _mm_unpacklo_ps(a, b);
    __m128 high_ab = _mm_unpackhi_ps(a, b);
    __m128 low_cd = _mm_unpacklo_ps(c, d);
    __m128 high_cd = _mm_unpackhi_ps(c, d);
    _mm_storeu_ps(out, _mm_movelh_ps(low_ab, low_cd));
    _mm_storeu_ps(out + out_pitch, _mm_movehl_ps(low_cd, low_ab));
    _mm_storeu_ps(out + 2 * out_pitch, _mm_movelh_ps(high_ab, high_cd));
    _mm_storeu_ps(out + 3 * out_pitch, _mm_movehl_ps(high_cd, high_ab));
}

/* rows x columns at in to columns x rows at out. */
static void transpose_f32(const float *in, size_t in_pitch, size_t rows, size_t columns, float *out,
                          size_t out_pitch)
{
    size_t whole_rows = rows & ~(size_t)3;
    size_t whole_columns = columns & ~(size_t)3;
    for (size_t c = 0; c < whole_columns; c += 4) {
        for (size_t r = 0; r < whole_rows; r += 4) {
            transpose_floats(in + r * in_pitch + c, in_pitch, out + c * out_pitch + r, out_pitch);
        }
    }
    for (size_t c = 0; c < columns; c++) {
        for (size_t r = c < whole_columns ? whole_rows : 0; r < rows; r++) {
            out[c * out_pitch + r] = in[r * in_pitch + c];
        }
    }
}

static void load_f32(const struct backend_preprocess *preprocess, uint32_t dtype, const void *in,
                     size_t plane_bytes, size_t channels, size_t pixels, float *out, size_t pitch)
{
    float block[BLOCK_CHANNELS][BLOCK_PIXELS];
    for (size_t c = 0; c < channels; c++) {
        to_float(dtype, (const unsigned char *)in + c * plane_bytes, pixels, block[c]);
        prepare(preprocess, block[c], pixels);
    }
    transpose_f32(block[0], BLOCK_PIXELS, channels, pixels, out, pitch);
}

/* Blocks of 8 x 8, the last one of a row or column shifted back to end with it: it writes some
 * values twice. */
static void transpose_u16(const uint16_t *in, size_t in_pitch, size_t rows, size_t columns,
                          uint16_t *out, size_t out_pitch)
{
    if (rows < 8 || columns < 8) {
        for (size_t c = 0; c < columns; c++) {
            for (size_t r = 0; r < rows; r++) {
                out[c * out_pitch + r] = in[r * in_pitch + c];
            }
        }
        return;
    }
    for (size_t c = 0; c < columns; c += 8) {
        size_t column = c + 8 <= columns ? c : columns - 8;
        for (size_t r = 0; r < rows; r += 8) {
            size_t row = r + 8 <= rows ? r : rows - 8;
            transpose_words(in + row * in_pitch + column, in_pitch, out + column * out_pitch + row,
                            out_pitch);
        }
    }
}

static void load_bf16(const struct backend_preprocess *preprocess, uint32_t dtype, const void *in,
                      size_t plane_bytes, size_t channels, size_t pixels, uint16_t *out,
                      size_t pitch)
{
    uint16_t block[BLOCK_CHANNELS][BLOCK_PIXELS];
    float plane[BLOCK_PIXELS];
    for (size_t c = 0; c < channels; c++) {
        to_float(dtype, (const unsigned char *)in + c * plane_bytes, pixels, plane);
        prepare(preprocess, plane, pixels);
        for (size_t p = 0; p < pixels; p++) {
            block[c][p] = narrow(plane[p]);
        }
    }
    transpose_u16(block[0], BLOCK_PIXELS, channels, pixels, out, pitch);
}

/* ---- after the network ---- */

/* Labels start as class 0; a later class wins only if it is greater, so that the first of equal
 * ones stays. */
static void argmax(const float *logits, size_t pitch, size_t classes, size_t pixels,
                   uint8_t *labels)
{
    float block[BLOCK_CHANNELS][BLOCK_PIXELS];
    float best[BLOCK_PIXELS];
    int32_t label[BLOCK_PIXELS];
    memset(block, 0, sizeof block);
    for (size_t p = 0; p < BLOCK_PIXELS; p++) {
        best[p] = -__builtin_inff();
        label[p] = 0;
    }
    for (size_t first = 0; first < classes; first += BLOCK_CHANNELS) {
        size_t here = classes - first < BLOCK_CHANNELS ? classes - first : BLOCK_CHANNELS;
        transpose_f32(logits + first, pitch, pixels, here, block[0], BLOCK_PIXELS);
        for (size_t c = 0; c < here; c++) {
            int32_t number = (int32_t)(first + c);
            for (size_t p = 0; p < BLOCK_PIXELS; p++) {
                label[p] = block[c][p] > best[p] ? number : label[p];
                best[p] = block[c][p] > best[p] ? block[c][p] : best[p];
            }
        }
    }
    for (size_t p = 0; p < pixels; p++) {
        labels[p] = (uint8_t)label[p];
    }
}

static void planes(const float *in, size_t in_pitch, size_t channels, size_t pixels, float *out,
                   size_t out_pitch)
{
    transpose_f32(in, in_pitch, pixels, channels, out, out_pitch);
}

const struct onednn_rows ONEDNN_ROWS_TABLE = {
    .pool_bf16 = pool_bf16,
    .pool_f32 = pool_f32,
    .pool_u8 = pool_u8,
    .copy = copy,
    .max_bf16 = max_bf16,
    .max_f32 = max_f32,
    .max_u8 = max_u8,
    .add_bf16 = add_bf16,
    .add_f32 = add_f32,
    .blend_bf16 = blend_bf16,
    .blend_f32 = blend_f32,
    .blend_u8 = blend_u8,
    .encode_bf16 = encode_bf16,
    .encode_f32 = encode_f32,
    .decode = decode,
    .narrow_bf16 = narrow_bf16,
    .load_bf16 = load_bf16,
    .load_f32 = load_f32,
    .widen_bf16 = widen_bf16,
    .argmax = argmax,
    .planes = planes,
};
