/*
 * Our kernels for the double: gpu_kernels.cu as nvcc reads it, one thread after the other. Compiled
 * with -fsanitize=thread, but not linked so: what that compiler calls at each access to memory is
 * here, and asks device_memory.c whether a device would have found it in order.
 */
#include "workers/backends/cudnn/gpu_kernels.cu"

#include "device.h"

struct double_indices double_indices;

static void thread_at(uint32_t thread, uint32_t threads)
{
    blockDim.x = GPU_BLOCK_THREADS;
    gridDim.x = threads / GPU_BLOCK_THREADS;
    blockIdx.x = thread / GPU_BLOCK_THREADS;
    threadIdx.x = thread % GPU_BLOCK_THREADS;
}

#define RUN(name, suffix)                                                                          \
    static void run_##name##_##suffix(const void *args, uint32_t thread, uint32_t threads)         \
    {                                                                                              \
        thread_at(thread, threads);                                                                \
        gpu_##name##_##suffix(*(const struct gpu_##name##_args *)args);                            \
    }
#define RUNS(name) RUN(name, f32) RUN(name, f16) RUN(name, bf16)
GPU_KERNELS(RUNS)

#define LIST(name)                                                                                 \
    {"gpu_" #name "_f32", sizeof(struct gpu_##name##_args), run_##name##_f32, false},              \
        {"gpu_" #name "_f16", sizeof(struct gpu_##name##_args), run_##name##_f16, false},          \
        {"gpu_" #name "_bf16", sizeof(struct gpu_##name##_args), run_##name##_bf16, false},
struct device_function device_functions[] = {GPU_KERNELS(LIST){nullptr, 0, nullptr, false}};

/* A device has those in registers. */
static void touch(void *at, size_t bytes, bool written)
{
    const char *place = (const char *)at;
    const char *indices = (const char *)&double_indices;
    if (place < indices || place >= indices + sizeof double_indices) {
        memory_touch(at, bytes, written);
    }
}

#define HOOK(name, bytes, written)                                                                 \
    extern "C" void __tsan_##name##bytes(void *at)                                                 \
    {                                                                                              \
        touch(at, bytes, written);                                                                 \
    }
#define HOOKS(bytes)                                                                               \
    HOOK(read, bytes, false)                                                                       \
    HOOK(write, bytes, true)                                                                       \
    HOOK(unaligned_read, bytes, false) HOOK(unaligned_write, bytes, true)
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

extern "C" void __tsan_read_range(void *at, unsigned long bytes)
{
    touch(at, bytes, false);
}

extern "C" void __tsan_write_range(void *at, unsigned long bytes)
{
    touch(at, bytes, true);
}

extern "C" void __tsan_init(void)
{
}
