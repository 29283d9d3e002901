/* Rows of numbers for AVX-512 F, BW, DQ, VL, VBMI and VBMI2. */
#include "lib/json_rows.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#ifdef __clang__
#pragma clang attribute push(                                                                      \
    __attribute__((                                                                                \
        target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,bmi,bmi2,popcnt"))),     \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,bmi,bmi2,popcnt")
#endif

struct masks {
    uint64_t digits, zeros, commas, spaces, dots, minuses, closes;
};

static inline uint64_t equal(__m512i bytes, char c)
{
    return _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(c));
}

static inline void classify(const char *text, struct masks *m)
{
    __m512i bytes = _mm512_loadu_si512(text);
    m->digits = _mm512_cmplt_epu8_mask(_mm512_sub_epi8(bytes, _mm512_set1_epi8('0')),
                                       _mm512_set1_epi8(10));
    m->zeros = equal(bytes, '0');
    m->commas = equal(bytes, ',');
    m->spaces = equal(bytes, ' ') | equal(bytes, '\n');
    m->dots = equal(bytes, '.');
    m->minuses = equal(bytes, '-');
    m->closes = equal(bytes, ']');
}

/* Every eighth byte from `number` on, eight times each. */
static inline __m512i spread(unsigned number)
{
    const __m512i eighths = _mm512_set_epi64(
        0x0707070707070707, 0x0606060606060606, 0x0505050505050505, 0x0404040404040404,
        0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    return _mm512_add_epi8(eighths, _mm512_set1_epi8((char)number));
}

/* Eight numbers at once: their digits are brought to the end of a word each, zeros in front. */
static inline void store_integers(const char *text, uint64_t starts, uint64_t ends, size_t count,
                                  float *out)
{
    const __m512i places = _mm512_set_epi64(
        0x3f3e3d3c3b3a3938, 0x3736353433323130, 0x2f2e2d2c2b2a2928, 0x2726252423222120,
        0x1f1e1d1c1b1a1918, 0x1716151413121110, 0x0f0e0d0c0b0a0908, 0x0706050403020100);
    const __m512i steps = _mm512_set1_epi64(0x0706050403020100);
    __m512i bytes = _mm512_loadu_si512(text);
    __m512i first = _mm512_maskz_compress_epi8(starts, places);
    __m512i lengths = _mm512_sub_epi8(_mm512_maskz_compress_epi8(ends, places), first);
    for (unsigned i = 0; i < count; i += 8) {
        __m512i from = _mm512_add_epi8(_mm512_permutexvar_epi8(spread(i), first), steps);
        __m512i digits = _mm512_sub_epi8(_mm512_permutexvar_epi8(from, bytes),
                                         _mm512_set1_epi8('0'));
        __m512i length = _mm512_and_si512(_mm512_permutexvar_epi8(spread(i), lengths),
                                          _mm512_set1_epi64(0xff));
        __m512i shift = _mm512_sub_epi64(_mm512_set1_epi64(64), _mm512_slli_epi64(length, 3));
        __m512i v = _mm512_sllv_epi64(digits, shift);
        v = _mm512_maddubs_epi16(v, _mm512_set1_epi16(0x010a));  /* pairs */
        v = _mm512_madd_epi16(v, _mm512_set1_epi32(0x00010064)); /* fours */
        v = _mm512_add_epi64(_mm512_mul_epu32(v, _mm512_set1_epi64(10000)),
                             _mm512_srli_epi64(v, 32));
        __m256 floats = _mm256_cvtepi32_ps(_mm512_cvtepi64_epi32(v));
        size_t left = count - i;
        _mm256_mask_storeu_ps(out + i, left < 8 ? (__mmask8)((1u << left) - 1) : 0xff, floats);
    }
}

static inline __mmask32 last(unsigned count)
{
    return (__mmask32)(UINT64_C(0xffffffff00000000) >> count);
}

static inline __m256i select_digits(const char *end, unsigned after, unsigned count)
{
    __m256i there = _mm256_loadu_si256((const __m256i *)(const void *)(end - 32));
    __m256i before = _mm256_loadu_si256((const __m256i *)(const void *)(end - 33));
    __m256i v = _mm256_mask_blend_epi8(last(after), before, there);
    v = _mm256_maskz_sub_epi8(last(count), v, _mm256_set1_epi8('0'));
    return v;
}

#define ROWS_READ json_rows_read_avx512
#include "lib/json_rows_body.h"

#ifdef __clang__
#pragma clang attribute pop
#endif
