/*
 * A GPU that this process works on: its context, cuDNN's handle, and our kernels loaded into it.
 * Every call's result goes through gpu_check, which keeps a sentence about the first that failed,
 * and why: most failures of a device are final, and whatever is asked of it afterwards fails too.
 * Only memory may run out and be there again, and makes way for what is final.
 */
#ifndef GPU_DEVICE_H
#define GPU_DEVICE_H

#include "gpu_conv.h"
#include "gpu_kernels.h"

struct gpu_device {
    const struct gpu_driver *driver;
    struct gpu_place place; /* with a handle */
    CUdevice number;
    CUcontext context;
    CUmodule module;
    CUfunction kernels[3][GPU_KERNEL_COUNT]; /* by enum gpu_type */
    char name[128];
    int capability; /* 90: 9.0 */
    int processors; /* streaming multiprocessors */
    size_t memory_bytes;
    char failure[256]; /* "" until a call failed */
    int loss;          /* enum unetserve_loss, of the first that was final; -1: none was */
};

/* Is there a driver, cuDNN and a device? 0, or -ENODEV with a sentence naming what is missing. */
int gpu_device_probe(char *error, size_t error_size);

/* Device number `ordinal` of those that CUDA_VISIBLE_DEVICES leaves. 0, -ENODEV, -ENOMEM, -EIO;
 * error gets a sentence. */
int gpu_device_open(uint32_t ordinal, struct gpu_device *out, char *error, size_t error_size);
void gpu_device_close(struct gpu_device *device);

/* This thread's calls are for that device. 0, -EIO. */
int gpu_device_enter(struct gpu_device *device);

/* 0, -ENOMEM or -EIO for a driver's or cuDNN's answer; what: the call, for the sentence. */
int gpu_check(struct gpu_device *device, CUresult result, const char *what);
int gpu_check_cudnn(struct gpu_device *device, cudnnStatus_t status, const char *what);

/* Start a kernel. args: its structure, which begins with the number of items. 0, -EIO. */
int gpu_launch(struct gpu_device *device, CUstream stream, enum gpu_kernel kernel,
               enum gpu_type type, const void *args);

/* The driver's functions through gpu_check: gpu_call(device, cuMemFree, address). */
#define gpu_call(device, function, ...)                                                            \
    gpu_check((device), (device)->driver->function(__VA_ARGS__), #function)

#endif
