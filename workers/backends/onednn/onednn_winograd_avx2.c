/* Winograd's convolutions for AVX2 and FMA. */
#include "onednn_winograd.h"

#include <immintrin.h>
#include <string.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC optimize("O3")
#pragma GCC target("avx2,fma")
#endif

#define VECTOR           __m256
#define LANES            8u
#define SPLAT(value)     _mm256_set1_ps(value)
#define LOAD(from)       _mm256_loadu_ps(from)
#define STORE(to, value) _mm256_storeu_ps(to, value)
#define FMA(a, b, c)     _mm256_fmadd_ps(a, b, c)
#define MAX(a, b)        _mm256_max_ps(a, b)
#define ROWS             6u
#define EACH_ROW_COUNT   X(1) X(2) X(3) X(4) X(5) X(6)
#define WINOGRAD_KERNEL  onednn_winograd_avx2
#define KERNEL_NAME      "avx2"
#include "onednn_winograd_body.h"

#ifdef __clang__
#pragma clang attribute pop
#endif
