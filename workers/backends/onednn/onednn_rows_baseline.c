/* The inner loops for any x86-64, and the choice among the three builds. */
#include "onednn_rows.h"

#ifndef __clang__
#pragma GCC optimize(                                                                              \
    "O3") /* gcc 12 does not vectorise loops of unknown length at -O2; clang does */
#endif

#define ONEDNN_ROWS_TABLE onednn_rows_baseline
#include "onednn_rows_body.h"

const struct onednn_rows *onednn_rows_select(enum onednn_vector vector)
{
    switch (vector) {
    case ONEDNN_VECTOR_AVX512: return &onednn_rows_avx512;
    case ONEDNN_VECTOR_AVX2: return &onednn_rows_avx2;
    case ONEDNN_VECTOR_BASELINE: break;
    }
    return &onednn_rows_baseline;
}
