/* Winograd's convolutions for AVX-512 F. */
#include "onednn_winograd.h"

#include <immintrin.h>
#include <string.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))),        \
                             apply_to = function)
#else
#pragma GCC optimize("O3")
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif

#define VECTOR           __m512
#define LANES            16u
#define SPLAT(value)     _mm512_set1_ps(value)
#define LOAD(from)       _mm512_loadu_ps(from)
#define STORE(to, value) _mm512_storeu_ps(to, value)
#define FMA(a, b, c)     _mm512_fmadd_ps(a, b, c)
#define MAX(a, b)        _mm512_max_ps(a, b)
#define ROWS             14u
#define EACH_ROW_COUNT   X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)
#define WINOGRAD_KERNEL  onednn_winograd_avx512
#define KERNEL_NAME      "avx512"
#include "onednn_winograd_body.h"

#ifdef __clang__
#pragma clang attribute pop
#endif
