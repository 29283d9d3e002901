/*
 * What this machine's cores can do at best: multiply-adds in registers, nothing read, nothing
 * written. The instruction sets are those that CPUID reports.
 */
#ifndef PEAK_H
#define PEAK_H

#include <stddef.h>
#include <stdint.h>

/* One loop: runs `rounds` times, returns the operations of a round. */
struct peak_loop {
    const char *isa;       /* "amx", "avx512" ... */
    const char *precision; /* "int8", "bf16", "f32" */
    uint64_t (*run)(uint64_t rounds);
};

/* The best loop of this processor for a precision, NULL if it has none. */
const struct peak_loop *peak_find(const char *precision);

/* Run it on so many threads at once for 20 ms, forty times; the best rate of them all together, in
 * GFLOP/s: short trials, because a machine that others use too is quiet for short times only. */
double peak_measure(const struct peak_loop *loop, uint32_t threads);

/* The loops, one a file or function; call only where the processor has the instructions. */
uint64_t peak_amx_bf16(uint64_t rounds);
uint64_t peak_avx512_bf16(uint64_t rounds);
uint64_t peak_avx512_int8(uint64_t rounds);
uint64_t peak_avx512_f32(uint64_t rounds);
uint64_t peak_avx2_f32(uint64_t rounds);
uint64_t peak_sse_f32(uint64_t rounds);

#endif
