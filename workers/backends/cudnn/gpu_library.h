/*
 * The libraries of a GPU, opened at run time: the driver (libcuda), cuDNN, and cuBLASLt, without
 * which cuDNN ends the process. Nothing of unetserve is linked against them, so one build serves
 * machines with and without. Their functions are called through the tables here.
 *
 * They stay open as long as the process: a driver cannot be taken away again.
 */
#ifndef GPU_LIBRARY_H
#define GPU_LIBRARY_H

#include <cuda.h>
#include <cudnn.h>

#include <stdbool.h>
#include <stddef.h>

/* The names go through cuda.h's macros, which say which version of a function the header means. */
#define GPU_DRIVER_CALLS(X)                                                                        \
    X(cuInit)                                                                                      \
    X(cuDriverGetVersion)                                                                          \
    X(cuGetErrorString)                                                                            \
    X(cuDeviceGetCount)                                                                            \
    X(cuDeviceGet)                                                                                 \
    X(cuDeviceGetName)                                                                             \
    X(cuDeviceGetAttribute)                                                                        \
    X(cuDevicePrimaryCtxRetain)                                                                    \
    X(cuDevicePrimaryCtxRelease)                                                                   \
    X(cuCtxSetCurrent)                                                                             \
    X(cuMemGetInfo)                                                                                \
    X(cuMemAlloc)                                                                                  \
    X(cuMemFree)                                                                                   \
    X(cuMemAllocHost)                                                                              \
    X(cuMemFreeHost)                                                                               \
    X(cuMemHostRegister)                                                                           \
    X(cuMemHostUnregister)                                                                         \
    X(cuMemsetD8Async)                                                                             \
    X(cuMemcpyHtoD)                                                                                \
    X(cuMemcpyHtoDAsync)                                                                           \
    X(cuMemcpyDtoHAsync)                                                                           \
    X(cuStreamCreate)                                                                              \
    X(cuStreamDestroy)                                                                             \
    X(cuStreamSynchronize)                                                                         \
    X(cuStreamWaitEvent)                                                                           \
    X(cuStreamBeginCapture)                                                                        \
    X(cuStreamEndCapture)                                                                          \
    X(cuEventCreate)                                                                               \
    X(cuEventDestroy)                                                                              \
    X(cuEventRecord)                                                                               \
    X(cuEventSynchronize)                                                                          \
    X(cuEventElapsedTime)                                                                          \
    X(cuGraphInstantiateWithFlags)                                                                 \
    X(cuGraphDestroy)                                                                              \
    X(cuGraphExecDestroy)                                                                          \
    X(cuGraphLaunch)                                                                               \
    X(cuModuleLoadData)                                                                            \
    X(cuModuleUnload)                                                                              \
    X(cuModuleGetFunction)                                                                         \
    X(cuLaunchKernel)

#define GPU_CUDNN_CALLS(X)                                                                         \
    X(cudnnGetVersion)                                                                             \
    X(cudnnGetErrorString)                                                                         \
    X(cudnnGetLastErrorString)                                                                     \
    X(cudnnCreate)                                                                                 \
    X(cudnnDestroy)                                                                                \
    X(cudnnSetStream)                                                                              \
    X(cudnnBackendCreateDescriptor)                                                                \
    X(cudnnBackendDestroyDescriptor)                                                               \
    X(cudnnBackendSetAttribute)                                                                    \
    X(cudnnBackendGetAttribute)                                                                    \
    X(cudnnBackendFinalize)                                                                        \
    X(cudnnBackendExecute)

#define GPU_POINTER(call) __typeof__(call) *call;

struct gpu_driver {
    GPU_DRIVER_CALLS(GPU_POINTER)
    int version; /* 13000: CUDA 13.0 */
};

struct gpu_cudnn {
    GPU_CUDNN_CALLS(GPU_POINTER)
    size_t version; /* 91900: 9.19.0 */
};

/* Each opens its library once a process and gives the same table ever after. 0, or -ENODEV with a
 * sentence that names what is missing or too old. Planning needs cuDNN only. */
int gpu_driver_open(const struct gpu_driver **out, char *error, size_t error_size);
int gpu_cudnn_open(const struct gpu_cudnn **out, char *error, size_t error_size);

#endif
