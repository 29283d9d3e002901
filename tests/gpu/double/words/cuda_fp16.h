/*
 * CUDA's words for an ordinary C++ compiler, so that device_kernels.cc compiles the very lines of
 * gpu_kernels.cu that nvcc compiles: that file includes this one for NVIDIA's.
 */
#ifndef CUDA_FP16_H
#define CUDA_FP16_H

#include <math.h>
#include <stdint.h>

#define __device__
#define __global__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(threads)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

/* One dimension is all that the kernels use. */
struct double_index {
    uint32_t x;
};
extern struct double_indices {
    struct double_index grid, block_size, block, thread;
} double_indices;
#define gridDim   double_indices.grid
#define blockDim  double_indices.block_size
#define blockIdx  double_indices.block
#define threadIdx double_indices.thread

/* device_half.c: this compiler's C has halves, its C++ does not. */
extern "C" float double_from_half(uint16_t bits);
extern "C" uint16_t double_to_half(float value);

struct __half {
    uint16_t bits;
};

static inline struct __half __ushort_as_half(unsigned short bits)
{
    return {bits};
}

static inline unsigned short __half_as_ushort(struct __half half)
{
    return half.bits;
}

static inline float __half2float(struct __half half)
{
    return double_from_half(half.bits);
}

static inline struct __half __float2half_rn(float value)
{
    return {double_to_half(value)};
}

#endif
