/* The device and the stream that a program's tests have in common, and what its memory holds as a
 * float. Included once a program. */
#ifndef ONE_DEVICE_H
#define ONE_DEVICE_H

#include "workers/backends/cudnn/gpu_device.h"
#include "workers/backends/cudnn/gpu_weights.h"
#include "workers/models/unet/half.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct gpu_device device;
static CUstream stream;

/* cmocka's setup and teardown of the group. */
static int open_device(void **state)
{
    char error[512] = "";
    (void)state;
    if (gpu_device_open(0, &device, error, sizeof error) != 0) {
        print_error("%s\n", error);
        return -1;
    }
    return gpu_device_enter(&device) != 0 ||
           gpu_call(&device, cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING) != 0;
}

static int close_device(void **state)
{
    (void)state;
    device.driver->cuStreamDestroy(stream);
    gpu_device_close(&device);
    return 0;
}

static float widen(enum gpu_type type, const void *data, size_t at)
{
    const uint16_t *halves = (const uint16_t *)data;
    return type == GPU_F32   ? ((const float *)data)[at]
           : type == GPU_F16 ? half_to_f32(halves[at])
                             : bfloat16_to_f32(halves[at]);
}

#endif
