#include "gpu_device.h"

#include "unetserve/model.h"

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

/* What a driver's answer says of the device. */
static int loss_of(CUresult result)
{
    switch ((int)result) {
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE: return UNETSERVE_LOSS_ECC;
    case CUDA_ERROR_NO_DEVICE:
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
    case CUDA_ERROR_SYSTEM_NOT_READY: return UNETSERVE_LOSS_GONE;
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_LAUNCH_FAILED: return UNETSERVE_LOSS_FAULT;
    default: return UNETSERVE_LOSS_OTHER;
    }
}

/* The first failure is told, and what is final before what may pass. */
static void note(struct gpu_device *device, int loss, const char *what, const char *reason,
                 int number)
{
    if (device->loss >= 0 || (loss < 0 && device->failure[0] != '\0')) {
        return;
    }
    device->loss = loss;
    snprintf(device->failure, sizeof device->failure, "%s failed on %s: %s (%d)", what,
             device->name, reason != NULL ? reason : "unknown error", number);
}

int gpu_check(struct gpu_device *device, CUresult result, const char *what)
{
    if (result == CUDA_SUCCESS) {
        return 0;
    }
    const char *reason = NULL;
    device->driver->cuGetErrorString(result, &reason);
    bool passes = result == CUDA_ERROR_OUT_OF_MEMORY;
    note(device, passes ? -1 : loss_of(result), what, reason, (int)result);
    return passes ? -ENOMEM : -EIO;
}

int gpu_check_cudnn(struct gpu_device *device, cudnnStatus_t status, const char *what)
{
    const struct gpu_cudnn *cudnn = device->place.cudnn;
    size_t available = 0;
    size_t total = 0;
    if (status == CUDNN_STATUS_SUCCESS) {
        return 0;
    }
    bool passes = status == CUDNN_STATUS_ALLOC_FAILED;
    /* cuDNN has one word for all that a device may have; the driver still knows. */
    CUresult known = passes ? CUDA_SUCCESS : device->driver->cuMemGetInfo(&available, &total);
    note(device, passes ? -1 : loss_of(known), what, cudnn->cudnnGetErrorString(status),
         (int)status);
    return passes ? -ENOMEM : -EIO;
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
    struct gpu_device device = {.driver = NULL, .loss = -1};
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
