/* Vector registers: as many independent sums as hide the latency of an instruction on any core so
 * far. */
#include "peak.h"

#include <immintrin.h>

#define SUMS 14

/* Or the sums would live in memory. */
#define UNROLL _Pragma("GCC unroll 14")

/* Keeps the compiler from working the sums out, or from dropping them. */
#define KEEP(value) __asm__ volatile("" : "+v"(value))

__attribute__((target("avx512f,avx512bf16"))) uint64_t peak_avx512_bf16(uint64_t rounds)
{
    __m512 sums[SUMS];
    UNROLL
    for (int i = 0; i < SUMS; i++) {
        sums[i] = _mm512_set1_ps((float)i);
    }
    __m512i ones = _mm512_set1_epi16(0x3f80);
    __m512i small = _mm512_set1_epi16(0x0080);
    KEEP(ones);
    KEEP(small);
    for (uint64_t r = 0; r < rounds; r++) {
        UNROLL
        for (int i = 0; i < SUMS; i++) {
            sums[i] = _mm512_dpbf16_ps(sums[i], (__m512bh)ones, (__m512bh)small);
        }
        KEEP(ones);
    }
    UNROLL
    for (int i = 0; i < SUMS; i++) {
        KEEP(sums[i]);
    }
    return UINT64_C(2) * 32 * SUMS;
}

__attribute__((target("avx512f,avx512vnni"))) uint64_t peak_avx512_int8(uint64_t rounds)
{
    __m512i sums[SUMS];
    UNROLL
    for (int i = 0; i < SUMS; i++) {
        sums[i] = _mm512_set1_epi32(i);
    }
    __m512i codes = _mm512_set1_epi8(3);
    __m512i weights = _mm512_set1_epi8(1);
    KEEP(codes);
    KEEP(weights);
    for (uint64_t r = 0; r < rounds; r++) {
        UNROLL
        for (int i = 0; i < SUMS; i++) {
            sums[i] = _mm512_dpbusd_epi32(sums[i], codes, weights);
        }
        KEEP(codes);
    }
    UNROLL
    for (int i = 0; i < SUMS; i++) {
        KEEP(sums[i]);
    }
    return UINT64_C(2) * 64 * SUMS;
}

__attribute__((target("avx512f"))) uint64_t peak_avx512_f32(uint64_t rounds)
{
    __m512 sums[SUMS];
    UNROLL
    for (int i = 0; i < SUMS; i++) {
        sums[i] = _mm512_set1_ps((float)i);
    }
    __m512 ones = _mm512_set1_ps(1.0F);
    __m512 small = _mm512_set1_ps(1e-9F);
    KEEP(ones);
    KEEP(small);
    for (uint64_t r = 0; r < rounds; r++) {
        UNROLL
        for (int i = 0; i < SUMS; i++) {
            sums[i] = _mm512_fmadd_ps(ones, small, sums[i]);
        }
        KEEP(ones);
    }
    UNROLL
    for (int i = 0; i < SUMS; i++) {
        KEEP(sums[i]);
    }
    return UINT64_C(2) * 16 * SUMS;
}

__attribute__((target("avx2,fma"))) uint64_t peak_avx2_f32(uint64_t rounds)
{
    __m256 sums[SUMS];
    UNROLL
    for (int i = 0; i < SUMS; i++) {
        sums[i] = _mm256_set1_ps((float)i);
    }
    __m256 ones = _mm256_set1_ps(1.0F);
    __m256 small = _mm256_set1_ps(1e-9F);
    KEEP(ones);
    KEEP(small);
    for (uint64_t r = 0; r < rounds; r++) {
        UNROLL
        for (int i = 0; i < SUMS; i++) {
            sums[i] = _mm256_fmadd_ps(ones, small, sums[i]);
        }
        KEEP(ones);
    }
    UNROLL
    for (int i = 0; i < SUMS; i++) {
        KEEP(sums[i]);
    }
    return UINT64_C(2) * 8 * SUMS;
}

/* Multiplications and additions apart: a core without FMA does one of each at a time. */
uint64_t peak_sse_f32(uint64_t rounds)
{
    __m128 sums[SUMS / 2];
    __m128 products[SUMS / 2];
    UNROLL
    for (int i = 0; i < SUMS / 2; i++) {
        sums[i] = _mm_set1_ps((float)i);
        products[i] = _mm_set1_ps(1.0F);
    }
    __m128 ones = _mm_set1_ps(1.0F);
    __m128 small = _mm_set1_ps(1e-9F);
    __asm__ volatile("" : "+x"(ones), "+x"(small));
    for (uint64_t r = 0; r < rounds; r++) {
        UNROLL
        for (int i = 0; i < SUMS / 2; i++) {
            sums[i] = _mm_add_ps(sums[i], small);
            products[i] = _mm_mul_ps(products[i], ones);
        }
        __asm__ volatile("" : "+x"(ones));
    }
    UNROLL
    for (int i = 0; i < SUMS / 2; i++) {
        __asm__ volatile("" : "+x"(sums[i]), "+x"(products[i]));
    }
    return UINT64_C(4) * SUMS;
}
