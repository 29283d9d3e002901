/*
 * What this processor can do, asked of CPUID and, for the registers that the kernel must save, of
 * XCR0. Never of the model name.
 */
#ifndef ONEDNN_ISA_H
#define ONEDNN_ISA_H

#include <stdbool.h>

/* The widest vectors that our own kernels may use. Ordered. */
enum onednn_vector { ONEDNN_VECTOR_BASELINE, ONEDNN_VECTOR_AVX2, ONEDNN_VECTOR_AVX512 };

struct onednn_isa {
    enum onednn_vector vector; /* AVX512: F, BW, DQ and VL together */
    bool fma;                  /* with AVX2 */
    bool avx512_vnni;
    bool avx512_bf16;
    bool amx_bf16;
    bool amx_int8;
};

/* Ask the processor. Cheap, no state. */
struct onednn_isa onednn_isa_detect(void);

/* "amx-bf16", "avx512-bf16", "avx512", "avx2" or "baseline": the best of them. Static storage. */
const char *onednn_isa_name(const struct onednn_isa *isa);

#endif
