#include "gpu_library.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>

/* Kernels and PTX of one major version of the toolkit run on drivers of that version or later. */
#define DRIVER_AT_LEAST (CUDA_VERSION / 1000 * 1000)
#define CUDNN_AT_LEAST  90000u
#define CUDNN_BELOW     100000u

#define GPU_TEXT_OF(x) #x
#define GPU_TEXT(x)    GPU_TEXT_OF(x)
#define CUBLASLT_NAME  "libcublasLt.so." GPU_TEXT(CUDART_MAJOR)
#if CUDA_VERSION >= 13000
#define CUDART_MAJOR 13
#else
#define CUDART_MAJOR 12
#endif

/* A function's address in a table of pointers to functions, as POSIX wants it. */
static bool find(void *library, const char *name, void *pointer)
{
    void *symbol = dlsym(library, name);
    *(void **)pointer = symbol;
    return symbol != NULL;
}

static void *open_library(const char *name, const char *what, char *error, size_t error_size)
{
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *reason = dlerror();
        snprintf(error, error_size, "%s is missing: %s", what, reason != NULL ? reason : name);
    }
    return library;
}

static int fill_driver(void *library, struct gpu_driver *out, char *error, size_t error_size)
{
    struct gpu_driver driver = {0};
#define FIND(call)                                                                                 \
    if (!find(library, GPU_TEXT(call), &driver.call)) {                                            \
        snprintf(error, error_size, "the NVIDIA driver is too old: libcuda.so.1 has no %s",        \
                 GPU_TEXT(call));                                                                  \
        return -ENODEV;                                                                            \
    }
    GPU_DRIVER_CALLS(FIND)
#undef FIND
    if (driver.cuDriverGetVersion(&driver.version) != CUDA_SUCCESS ||
        driver.version < DRIVER_AT_LEAST) {
        snprintf(error, error_size, "the NVIDIA driver is for CUDA %d.%d, needed is %d.0 or later",
                 driver.version / 1000, driver.version % 1000 / 10, DRIVER_AT_LEAST / 1000);
        return -ENODEV;
    }
    *out = driver;
    return 0;
}

int gpu_driver_open(const struct gpu_driver **out, char *error, size_t error_size)
{
    static struct gpu_driver driver;
    if (driver.version == 0) {
        void *library = open_library("libcuda.so.1", "the NVIDIA driver", error, error_size);
        if (library == NULL || fill_driver(library, &driver, error, error_size) != 0) {
            return -ENODEV;
        }
    }
    *out = &driver;
    return 0;
}

static int fill_cudnn(void *library, struct gpu_cudnn *out, char *error, size_t error_size)
{
    struct gpu_cudnn cudnn = {0};
#define FIND(call)                                                                                 \
    if (!find(library, #call, &cudnn.call)) {                                                      \
        snprintf(error, error_size, "libcudnn.so.9 is too old: it has no %s", #call);              \
        return -ENODEV;                                                                            \
    }
    GPU_CUDNN_CALLS(FIND)
#undef FIND
    size_t version = cudnn.cudnnGetVersion();
    if (version < CUDNN_AT_LEAST || version >= CUDNN_BELOW) {
        snprintf(error, error_size, "libcudnn.so.9 says that it is version %zu, needed is 9",
                 version);
        return -ENODEV;
    }
    cudnn.version = version;
    *out = cudnn;
    return 0;
}

int gpu_cudnn_open(const struct gpu_cudnn **out, char *error, size_t error_size)
{
    static struct gpu_cudnn cudnn;
    if (cudnn.version == 0) {
        void *library = open_library(CUBLASLT_NAME, "cuBLASLt, which cuDNN needs,", error,
                                     error_size);
        if (library != NULL) {
            library = open_library("libcudnn.so.9", "cuDNN 9", error, error_size);
        }
        if (library == NULL || fill_cudnn(library, &cudnn, error, error_size) != 0) {
            return -ENODEV;
        }
    }
    *out = &cudnn;
    return 0;
}
