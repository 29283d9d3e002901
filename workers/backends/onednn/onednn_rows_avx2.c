/* The inner loops for AVX2. */
#include "onednn_rows.h"

#include <emmintrin.h>
#include <string.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC optimize("O3")
#pragma GCC target("avx2")
#endif

#define ONEDNN_ROWS_TABLE onednn_rows_avx2
#include "onednn_rows_body.h"

#ifdef __clang__
#pragma clang attribute pop
#endif
