#include "gpu_timing.h"

#include "gpu_layout.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#define WARM_RUNS  1 /* the first loads code */
#define TIMED_RUNS 5

int gpu_timing_open(struct gpu_device *device, struct gpu_timing *out)
{
    struct gpu_timing timing = {.device = device};
    int code = gpu_call(device, cuStreamCreate, &timing.stream, CU_STREAM_NON_BLOCKING);
    if (code == 0) {
        code = gpu_call(device, cuEventCreate, &timing.begin, CU_EVENT_DEFAULT);
    }
    if (code == 0) {
        code = gpu_call(device, cuEventCreate, &timing.end, CU_EVENT_DEFAULT);
    }
    if (code != 0) {
        gpu_timing_close(&timing);
        return code;
    }
    *out = timing;
    return 0;
}

void gpu_timing_close(struct gpu_timing *timing)
{
    const struct gpu_driver *driver = timing->device->driver;
    if (timing->scratch != 0) {
        driver->cuMemFree(timing->scratch);
    }
    if (timing->begin != NULL) {
        driver->cuEventDestroy(timing->begin);
    }
    if (timing->end != NULL) {
        driver->cuEventDestroy(timing->end);
    }
    if (timing->stream != NULL) {
        driver->cuStreamDestroy(timing->stream);
    }
    *timing = (struct gpu_timing){.device = timing->device};
}

/* ---- memory ---- */

/* Where a convolution's tensors lie, and how large all is. */
struct places {
    size_t weights;
    size_t bias;
    size_t out;
    size_t workspace;
    size_t bytes;
};

static size_t align(size_t bytes)
{
    return (bytes + GPU_ALIGN_BYTES - 1) / GPU_ALIGN_BYTES * GPU_ALIGN_BYTES;
}

static struct places lay_out(const struct gpu_conv_shape *s, int64_t workspace_bytes)
{
    size_t element = gpu_type_bytes((enum gpu_type)s->type);
    size_t in = (size_t)(s->count * s->in_depth * s->in_height * s->in_width) * element;
    size_t weights = (size_t)(s->out_depth * s->in_depth * s->kernel * s->kernel) * element;
    size_t out = (size_t)(s->count * s->out_depth * s->out_height * s->out_width) * element;
    struct places places = {.weights = align(in)};
    places.bias = places.weights + align(weights);
    places.out = places.bias + align((size_t)s->out_depth * element);
    places.workspace = places.out + align(out);
    places.bytes = places.workspace + align((size_t)workspace_bytes);
    return places;
}

/* Not through gpu_call: that there is no memory for one candidate is no failure of the device. */
static int reserve(struct gpu_timing *timing, size_t bytes)
{
    struct gpu_device *device = timing->device;
    if (bytes <= timing->scratch_bytes) {
        return 0;
    }
    CUdeviceptr old = timing->scratch;
    timing->scratch = 0;
    timing->scratch_bytes = 0;
    int code = old != 0 ? gpu_call(device, cuMemFree, old) : 0;
    if (code != 0) {
        return code;
    }
    CUresult result = device->driver->cuMemAlloc(&timing->scratch, bytes);
    if (result == CUDA_ERROR_OUT_OF_MEMORY) {
        return -ENOMEM;
    }
    code = gpu_check(device, result, "cuMemAlloc");
    timing->scratch_bytes = code == 0 ? bytes : 0;
    return code;
}

/* ---- one candidate ---- */

static void *pointer(CUdeviceptr address)
{
    return (void *)(uintptr_t)address; /* NOLINT(performance-no-int-to-ptr) */
}

/* cuDNN's word for what failed in it does not tell the device's end from an engine's refusal. The
 * device does. */
static int refused_or_lost(struct gpu_timing *timing)
{
    int code = gpu_call(timing->device, cuStreamSynchronize, timing->stream);
    return code == 0 ? -ENOTSUP : -EIO;
}

static int run_once(struct gpu_timing *timing, const struct gpu_conv *conv,
                    cudnnBackendDescriptor_t pack, float *milliseconds)
{
    struct gpu_device *device = timing->device;
    const struct gpu_place *place = &device->place;
    int code = gpu_call(device, cuEventRecord, timing->begin, timing->stream);
    if (code == 0 && place->cudnn->cudnnBackendExecute(place->handle, conv->plan, pack) !=
                         CUDNN_STATUS_SUCCESS) {
        code = refused_or_lost(timing);
    }
    if (code == 0) {
        code = gpu_call(device, cuEventRecord, timing->end, timing->stream);
    }
    if (code == 0) {
        code = gpu_call(device, cuEventSynchronize, timing->end);
    }
    if (code == 0) {
        code = gpu_call(device, cuEventElapsedTime, milliseconds, timing->begin, timing->end);
    }
    return code;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a;
    float y = *(const float *)b;
    return (x > y) - (x < y);
}

static int run_often(struct gpu_timing *timing, const struct gpu_conv *conv,
                     cudnnBackendDescriptor_t pack, float *median)
{
    float times[TIMED_RUNS] = {0};
    int code = 0;
    for (int i = -WARM_RUNS; i < TIMED_RUNS && code == 0; i++) {
        code = run_once(timing, conv, pack, &times[i < 0 ? 0 : i]);
    }
    if (code == 0) {
        qsort(times, TIMED_RUNS, sizeof times[0], by_value);
        *median = times[TIMED_RUNS / 2];
    }
    return code;
}

/* Tensors are zeroed, the workspace is the engine's to write. 0, -ENOTSUP, -ENOMEM: not this one;
 * -EIO. */
static int time_plan(struct gpu_timing *timing, const struct gpu_conv_shape *shape,
                     const struct gpu_conv *conv, float *median)
{
    struct gpu_device *device = timing->device;
    const struct gpu_place *place = &device->place;
    const struct places places = lay_out(shape, conv->workspace_bytes);
    cudnnBackendDescriptor_t pack = NULL;
    int code = reserve(timing, places.bytes);
    if (code != 0) {
        return code;
    }
    const struct gpu_conv_pointers pointers = {
        .in = pointer(timing->scratch),
        .weights = pointer(timing->scratch + places.weights),
        .bias = pointer(timing->scratch + places.bias),
        .out = pointer(timing->scratch + places.out),
        .workspace = pointer(timing->scratch + places.workspace),
    };
    code = gpu_call(device, cuMemsetD8Async, timing->scratch, 0, places.out, timing->stream);
    if (code == 0 &&
        (place->cudnn->cudnnSetStream(place->handle, timing->stream) != CUDNN_STATUS_SUCCESS ||
         gpu_conv_bind(place->cudnn, &pointers, &pack) != 0)) {
        code = refused_or_lost(timing);
    }
    if (code == 0) {
        code = run_often(timing, conv, pack, median);
    }
    if (pack != NULL) {
        place->cudnn->cudnnBackendDestroyDescriptor(pack);
    }
    return code;
}

int gpu_timing_best(struct gpu_timing *timing, const struct gpu_conv_shape *shape,
                    struct gpu_engine *out, bool *first)
{
    struct gpu_conv candidates[GPU_TIMING_CANDIDATES];
    const struct gpu_place *place = &timing->device->place;
    size_t count = gpu_conv_candidates(place, shape, candidates, GPU_TIMING_CANDIDATES);
    size_t best = count;
    float best_time = INFINITY;
    int code = 0;
    for (size_t i = 0; i < count && code != -EIO; i++) {
        float median = 0;
        code = time_plan(timing, shape, &candidates[i], &median);
        timing->plans += code == 0;
        timing->dropped += code == -ENOTSUP || code == -ENOMEM;
        if (code == 0 && median < best_time) {
            best = i;
            best_time = median;
        }
    }
    if (code != -EIO && best < count) {
        *out = candidates[best].engine;
        *first = best == 0;
    }
    for (size_t i = 0; i < count; i++) {
        gpu_conv_free(place->cudnn, &candidates[i]);
    }
    return code == -EIO ? -EIO : best < count ? 0 : -ENOENT;
}
