/* Rows of numbers for AVX2. */
#include "lib/json_rows.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,popcnt"))), apply_to = function)
#else
#pragma GCC target("avx2,bmi,bmi2,popcnt")
#endif

struct masks {
    uint64_t digits, zeros, commas, spaces, dots, minuses, closes;
};

static inline uint64_t equal(__m256i a, __m256i b, char c)
{
    __m256i wanted = _mm256_set1_epi8(c);
    uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(a, wanted));
    uint32_t high = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(b, wanted));
    return low | (uint64_t)high << 32;
}

static inline uint32_t find_digits(__m256i a)
{
    __m256i value = _mm256_sub_epi8(a, _mm256_set1_epi8('0'));
    __m256i capped = _mm256_min_epu8(value, _mm256_set1_epi8(9));
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(capped, value));
}

static inline void classify(const char *text, struct masks *m)
{
    __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)text);
    __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(text + 32));
    m->digits = find_digits(a) | (uint64_t)find_digits(b) << 32;
    m->zeros = equal(a, b, '0');
    m->commas = equal(a, b, ',');
    m->spaces = equal(a, b, ' ') | equal(a, b, '\n');
    m->dots = equal(a, b, '.');
    m->minuses = equal(a, b, '-');
    m->closes = equal(a, b, ']');
}

/* Four times eight digits, the first in the lowest byte, to floats. */
static inline void store_four(const uint64_t words[4], float *out)
{
    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)words);
    v = _mm256_maddubs_epi16(v, _mm256_set1_epi16(0x010a));         /* pairs */
    v = _mm256_madd_epi16(v, _mm256_set1_epi32(0x00010064));        /* fours */
    __m256i first = _mm256_mul_epu32(v, _mm256_set1_epi64x(10000)); /* of the lower four */
    v = _mm256_add_epi64(first, _mm256_srli_epi64(v, 32));
    v = _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
    _mm_storeu_ps(out, _mm_cvtepi32_ps(_mm256_castsi256_si128(v)));
}

static inline void store_integers(const char *text, uint64_t starts, uint64_t ends, size_t count,
                                  float *out)
{
    uint64_t
        words[36]; /* 32 numbers fit a window, and the last four may be some that are not there */
    for (size_t i = 0; i < count; i++, starts &= starts - 1, ends &= ends - 1) {
        unsigned start = (unsigned)__builtin_ctzll(starts);
        unsigned digits = (unsigned)__builtin_ctzll(ends) - start;
        uint64_t word;
        memcpy(&word, text + start, sizeof word);
        words[i] = (word ^ UINT64_C(0x3030303030303030)) << (64 - 8 * digits);
    }
    size_t i = 0;
    for (; i + 4 <= count; i += 4)
        store_four(words + i, out + i);
    if (i < count) {
        float rest[4];
        memset(words + count, 0, 4 * sizeof words[0]);
        store_four(words + i, rest);
        memcpy(out + i, rest, (count - i) * sizeof rest[0]);
    }
}

/* The last n of its first 32 bytes, read at n, are set. */
static const unsigned char last_bytes[64] = {
    [32 ... 63] = 0xff,
};

static inline __m256i last(unsigned count)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)(last_bytes + count));
}

static inline __m256i select_digits(const char *end, unsigned after, unsigned count)
{
    __m256i there = _mm256_loadu_si256((const __m256i *)(const void *)(end - 32));
    __m256i before = _mm256_loadu_si256((const __m256i *)(const void *)(end - 33));
    __m256i v = _mm256_blendv_epi8(before, there, last(after));
    v = _mm256_and_si256(_mm256_sub_epi8(v, _mm256_set1_epi8('0')), last(count));
    return v;
}

#define ROWS_READ json_rows_read_avx2
#include "lib/json_rows_body.h"

#ifdef __clang__
#pragma clang attribute pop
#endif
