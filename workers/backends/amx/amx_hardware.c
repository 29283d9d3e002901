/* The kernels with the instructions of AMX, and of the AVX-512 that comes with it. */
#include "amx_kernels.h"

#include <immintrin.h>
#include <string.h>

#ifdef __clang__
#pragma clang attribute push(                                                                      \
    __attribute__((                                                                                \
        target("amx-tile,amx-bf16,amx-int8,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))),      \
    apply_to = function)
#else
#pragma GCC optimize("O3")
#pragma GCC target("amx-tile,amx-bf16,amx-int8,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#endif

/* gcc's intrinsics do not say what they read, so it is told that all memory matters. */
#define MEMORY_MATTERS() __asm__ volatile("" ::: "memory")

#define TILE_CONFIG(config)                                                                        \
    do {                                                                                           \
        MEMORY_MATTERS();                                                                          \
        _tile_loadconfig(config);                                                                  \
    } while (0)
#define TILE_RELEASE() _tile_release()
#define TILE_LOAD(tile, from, step)                                                                \
    do {                                                                                           \
        MEMORY_MATTERS();                                                                          \
        _tile_loadd(tile, from, step);                                                             \
    } while (0)
#define TILE_STORE(tile, to, step)                                                                 \
    do {                                                                                           \
        _tile_stored(tile, to, step);                                                              \
        MEMORY_MATTERS();                                                                          \
    } while (0)
#define TILE_SUM(sums, a, b)       _tile_dpbf16ps(sums, a, b)
#define TILE_SUM_CODES(sums, a, b) _tile_dpbusd(sums, a, b)

#define LANES            __m512
#define LANES_LOAD(from) _mm512_loadu_ps(from)
/* A NaN in b stays one, as in the rest of the network. */
#define LANES_LARGER(a, b) _mm512_max_ps(a, b)
#define LANES_RELU(a)      _mm512_max_ps(_mm512_setzero_ps(), a)
#define LANES_KEEP(a, to)  _mm512_storeu_ps(to, a)
#define LANES_WHOLE(from)  _mm512_cvtepi32_ps(_mm512_loadu_si512(from))
#define LANES_ADD(a, b)    _mm512_add_ps(a, b)
#define LANES_TIMES(a, b)  _mm512_mul_ps(a, b)
/* Cut off first, so that what is no number becomes 0; to nearest even. */
#define LANES_CODE(a, out)                                                                         \
    do {                                                                                           \
        __m512 positive = _mm512_max_ps(a, _mm512_setzero_ps());                                   \
        __m512 cut = _mm512_min_ps(positive, _mm512_set1_ps(255.0F));                              \
        __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(cut));                             \
        memcpy(out, &bytes, sizeof bytes);                                                         \
    } while (0)
#define LANES_NARROW(a, out)                                                                       \
    do {                                                                                           \
        __m256bh narrowed = _mm512_cvtneps_pbh(a);                                                 \
        memcpy(out, &narrowed, sizeof narrowed);                                                   \
    } while (0)

#define AMX_TABLE amx_hardware
#include "amx_body.h"

#ifdef __clang__
#pragma clang attribute pop
#endif
