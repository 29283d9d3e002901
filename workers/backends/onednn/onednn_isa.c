#include "onednn_isa.h"

#include <cpuid.h>
#include <stdint.h>

/* Bits of XCR0: which register files the kernel saves at a context switch. */
#define XCR0_YMM    0x06u
#define XCR0_ZMM    0xe6u
#define XCR0_TILES  0x60000u
#define LEAF1_FMA   (1u << 12)
#define LEAF1_XSAVE (1u << 27)

static uint64_t saved_registers(void)
{
    uint32_t low = 0;
    uint32_t high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool has(uint32_t word, unsigned bit)
{
    return (word >> bit & 1u) != 0;
}

struct onednn_isa onednn_isa_detect(void)
{
    struct onednn_isa isa = {.vector = ONEDNN_VECTOR_BASELINE};
    uint32_t a = 0;
    uint32_t b = 0;
    uint32_t c = 0;
    uint32_t d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & LEAF1_XSAVE) == 0) {
        return isa;
    }
    bool fma = (c & LEAF1_FMA) != 0;
    uint64_t saved = saved_registers();
    if ((saved & XCR0_YMM) != XCR0_YMM || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) {
        return isa;
    }
    uint32_t amx = d;
    bool vnni = has(c, 11);
    if (!has(b, 5)) {
        return isa;
    }
    isa.vector = ONEDNN_VECTOR_AVX2;
    isa.fma = fma;
    bool wide = has(b, 16) && has(b, 17) && has(b, 30) && has(b, 31); /* F, DQ, BW, VL */
    if (!wide || (saved & XCR0_ZMM) != XCR0_ZMM) {
        return isa;
    }
    isa.vector = ONEDNN_VECTOR_AVX512;
    isa.avx512_vnni = vnni;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) {
        isa.avx512_bf16 = has(a, 5);
    }
    bool tiles = (saved & XCR0_TILES) == XCR0_TILES;
    isa.amx_bf16 = tiles && has(amx, 22) && has(amx, 24);
    isa.amx_int8 = tiles && has(amx, 25) && has(amx, 24);
    return isa;
}

const char *onednn_isa_name(const struct onednn_isa *isa)
{
    if (isa->amx_bf16) {
        return "amx-bf16";
    }
    if (isa->avx512_bf16) {
        return "avx512-bf16";
    }
    if (isa->vector == ONEDNN_VECTOR_AVX512) {
        return "avx512";
    }
    return isa->vector == ONEDNN_VECTOR_AVX2 ? "avx2" : "baseline";
}
