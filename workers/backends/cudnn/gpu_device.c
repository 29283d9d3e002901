#include "gpu_device.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Threads that keep a multiprocessor busy; more blocks only wait. */
#define BLOCKS_A_PROCESSOR 16

extern const unsigned char gpu_image_start[]; /* gpu_image.c: the kernels for every architecture */

static int count_devices(const struct gpu_driver *driver, int *out, char *error, size_t error_size)
{
    const char *reason = "none is visible (CUDA_VISIBLE_DEVICES)";
    int count = 0;
    CUresult result = driver->cuInit(0);
    if (result == CUDA_SUCCESS) {
        result = driver->cuDeviceGetCount(&count);
    }
    if (result != CUDA_SUCCESS) {
        driver->cuGetErrorString(result, &reason);
    }
    if (result != CUDA_SUCCESS || count == 0) {
        snprintf(error, error_size, "the NVIDIA driver finds no device: %s", reason);
        return -ENODEV;
    }
    *out = count;
    return 0;
}

int gpu_device_probe(char *error, size_t error_size)
{
    const struct gpu_driver *driver;
    const struct gpu_cudnn *cudnn;
    int count;
    int code = gpu_driver_open(&driver, error, error_size);
    if (code == 0) {
        code = gpu_cudnn_open(&cudnn, error, error_size);
    }
    return code == 0 ? count_devices(driver, &count, error, error_size) : code;
}

int gpu_check(struct gpu_device *device, CUresult result, const char *what)
{
    if (result == CUDA_SUCCESS) {
        return 0;
    }
    const char *reason = NULL;
    if (device->failure[0] == '\0') {
        device->driver->cuGetErrorString(result, &reason);
        snprintf(device->failure, sizeof device->failure, "%s failed on %s: %s (%d)", what,
                 device->name, reason != NULL ? reason : "unknown error", (int)result);
    }
    return result == CUDA_ERROR_OUT_OF_MEMORY ? -ENOMEM : -EIO;
}

int gpu_check_cudnn(struct gpu_device *device, cudnnStatus_t status, const char *what)
{
    const struct gpu_cudnn *cudnn = device->place.cudnn;
    if (status == CUDNN_STATUS_SUCCESS) {
        return 0;
    }
    if (device->failure[0] == '\0') {
        snprintf(device->failure, sizeof device->failure, "%s failed on %s: %s (%d)", what,
                 device->name, cudnn->cudnnGetErrorString(status), (int)status);
    }
    return status == CUDNN_STATUS_ALLOC_FAILED ? -ENOMEM : -EIO;
}

static int read_attributes(struct gpu_device *device)
{
    int major = 0;
    int minor = 0;
    int code = gpu_call(device, cuDeviceGetName, device->name, sizeof device->name, device->number);
    if (code == 0) {
        code = gpu_call(device, cuDeviceGetAttribute, &major,
                        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device->number);
    }
    if (code == 0) {
        code = gpu_call(device, cuDeviceGetAttribute, &minor,
                        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device->number);
    }
    if (code == 0) {
        code = gpu_call(device, cuDeviceGetAttribute, &device->processors,
                        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device->number);
    }
    device->capability = 10 * major + minor;
    return code;
}

static int load_kernels(struct gpu_device *device)
{
#define KERNEL_NAMES(name) {"gpu_" #name "_f32", "gpu_" #name "_f16", "gpu_" #name "_bf16"},
    static const char *const names[GPU_KERNEL_COUNT][3] = {GPU_KERNELS(KERNEL_NAMES)};
#undef KERNEL_NAMES
    int code = gpu_call(device, cuModuleLoadData, &device->module, gpu_image_start);
    for (int kernel = 0; kernel < GPU_KERNEL_COUNT && code == 0; kernel++) {
        for (int type = 0; type < 3 && code == 0; type++) {
            code = gpu_call(device, cuModuleGetFunction, &device->kernels[type][kernel],
                            device->module, names[kernel][type]);
        }
    }
    return code;
}

static int start(struct gpu_device *device)
{
    size_t free_bytes = 0;
    int code = gpu_call(device, cuDevicePrimaryCtxRetain, &device->context, device->number);
    if (code == 0) {
        code = gpu_device_enter(device);
    }
    if (code == 0) {
        code = gpu_call(device, cuMemGetInfo, &free_bytes, &device->memory_bytes);
    }
    if (code == 0) {
        code = load_kernels(device);
    }
    if (code == 0) {
        code = gpu_check_cudnn(device, device->place.cudnn->cudnnCreate(&device->place.handle),
                               "cudnnCreate");
    }
    return code;
}

int gpu_device_open(uint32_t ordinal, struct gpu_device *out, char *error, size_t error_size)
{
    struct gpu_device device = {.driver = NULL};
    int count = 0;
    int code = gpu_driver_open(&device.driver, error, error_size);
    if (code == 0) {
        code = gpu_cudnn_open(&device.place.cudnn, error, error_size);
    }
    if (code == 0) {
        code = count_devices(device.driver, &count, error, error_size);
    }
    if (code != 0) {
        return code;
    }
    if (ordinal >= (uint32_t)count) {
        snprintf(error, error_size, "there is no device %u, the driver shows %d", ordinal, count);
        return -ENODEV;
    }
    snprintf(device.name, sizeof device.name, "device %u", ordinal);
    code = gpu_call(&device, cuDeviceGet, &device.number, (int)ordinal);
    if (code == 0) {
        code = read_attributes(&device);
    }
    if (code == 0) {
        code = start(&device);
    }
    if (code != 0) {
        snprintf(error, error_size, "%s", device.failure);
        gpu_device_close(&device);
        return code;
    }
    *out = device;
    return 0;
}

void gpu_device_close(struct gpu_device *device)
{
    if (device->place.handle != NULL) {
        device->place.cudnn->cudnnDestroy(device->place.handle);
    }
    if (device->module != NULL) {
        device->driver->cuModuleUnload(device->module);
    }
    if (device->context != NULL) {
        device->driver->cuDevicePrimaryCtxRelease(device->number);
    }
    *device = (struct gpu_device){.driver = NULL};
}

int gpu_device_enter(struct gpu_device *device)
{
    return gpu_call(device, cuCtxSetCurrent, device->context);
}

int gpu_launch(struct gpu_device *device, CUstream stream, enum gpu_kernel kernel,
               enum gpu_type type, const void *args)
{
    uint32_t items;
    memcpy(&items, args, sizeof items);
    uint32_t blocks = (items + GPU_BLOCK_THREADS - 1) / GPU_BLOCK_THREADS;
    uint32_t most = (uint32_t)device->processors * BLOCKS_A_PROCESSOR;
    void *parameters[1] = {(void *)(uintptr_t)args};
    return gpu_call(device, cuLaunchKernel, device->kernels[type][kernel],
                    blocks < most ? blocks : most, 1, 1, GPU_BLOCK_THREADS, 1, 1, 0, stream,
                    parameters, NULL);
}
