/* The inner loops for AVX-512 F, BW, DQ and VL. */
#include "onednn_rows.h"

#include <emmintrin.h>
#include <string.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))),        \
                             apply_to = function)
#else
#pragma GCC optimize("O3")
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif

#define ONEDNN_ROWS_TABLE onednn_rows_avx512
#include "onednn_rows_body.h"

#ifdef __clang__
#pragma clang attribute pop
#endif
