#include "gpu_lane.h"

#include <errno.h>
#include <string.h>

/* The kernel that loads tiles counts on it. */
_Static_assert(UNETSERVE_U8 == 1 && UNETSERVE_I8 == 2 && UNETSERVE_U16 == 3 && UNETSERVE_I16 == 4 &&
                   UNETSERVE_F16 == 5 && UNETSERVE_F32 == 6,
               "element types are numbered otherwise");

int gpu_lane_open(struct gpu_device *device, struct gpu_lane *out)
{
    struct gpu_lane lane = {.stream = NULL};
    int code = gpu_call(device, cuStreamCreate, &lane.stream, CU_STREAM_NON_BLOCKING);
    if (code == 0) {
        code = gpu_call(device, cuEventCreate, &lane.done, CU_EVENT_DISABLE_TIMING);
    }
    if (code != 0) {
        gpu_lane_close(device, &lane);
        return code;
    }
    *out = lane;
    return 0;
}

static int free_buffers(struct gpu_device *device, void **host, CUdeviceptr *on_device)
{
    void *old_host = *host;
    CUdeviceptr old = *on_device;
    *host = NULL;
    *on_device = 0;
    int code = old_host != NULL ? gpu_call(device, cuMemFreeHost, old_host) : 0;
    int second = old != 0 ? gpu_call(device, cuMemFree, old) : 0;
    return code != 0 ? code : second;
}

void gpu_lane_close(struct gpu_device *device, struct gpu_lane *lane)
{
    (void)free_buffers(device, &lane->host_in, &lane->in);
    (void)free_buffers(device, &lane->host_out, &lane->out);
    if (lane->done != NULL) {
        device->driver->cuEventDestroy(lane->done);
    }
    if (lane->stream != NULL) {
        device->driver->cuStreamDestroy(lane->stream);
    }
    *lane = (struct gpu_lane){.stream = NULL};
}

/* Room on both sides. */
static int reserve(struct gpu_device *device, size_t bytes, void **host, CUdeviceptr *on_device,
                   size_t *have)
{
    if (bytes <= *have) {
        return 0;
    }
    *have = 0;
    int code = free_buffers(device, host, on_device);
    if (code == 0) {
        code = gpu_call(device, cuMemAllocHost, host, bytes);
    }
    if (code == 0) {
        code = gpu_call(device, cuMemAlloc, on_device, bytes);
    }
    *have = code == 0 ? bytes : 0;
    return code;
}

static size_t plane_of(const struct backend_batch *batch)
{
    return (size_t)batch->height * batch->width;
}

static int reserve_lane(struct gpu_device *device, struct gpu_lane *lane, size_t in_bytes,
                        uint32_t classes)
{
    const struct backend_batch *batch = &lane->batch;
    size_t pixels = batch->count * plane_of(batch);
    lane->logits_offset = (pixels + GPU_ALIGN_BYTES - 1) / GPU_ALIGN_BYTES * GPU_ALIGN_BYTES;
    size_t out_bytes = lane->logits_offset +
                       (batch->logits != NULL ? pixels * classes * sizeof(float) : 0);
    int code = reserve(device, in_bytes, &lane->host_in, &lane->in, &lane->in_bytes);
    return code != 0 ? code
                     : reserve(device, out_bytes, &lane->host_out, &lane->out, &lane->out_bytes);
}

/* The driver's addresses are numbers, the kernels' are pointers. */
static void *pointer(CUdeviceptr address)
{
    return (void *)(uintptr_t)address; /* NOLINT(performance-no-int-to-ptr) */
}

static int load(struct gpu_device *device, const struct gpu_lane *lane,
                const struct gpu_shape *shape, const struct backend_preprocess *preprocess)
{
    const struct gpu_layout *layout = &shape->plan.layout;
    const struct gpu_load_args args = {
        .items = layout->count * layout->height * layout->width,
        .channels = shape->bound.network->in_channels,
        .tiles = pointer(lane->in),
        .out = gpu_steps_image(&shape->bound, &layout->input),
        .dtype = lane->batch.dtype,
        .clip = preprocess->clip,
        .offset = preprocess->offset,
        .scale = preprocess->scale,
        .low = preprocess->clip_low,
        .high = preprocess->clip_high,
    };
    return gpu_launch(device, lane->stream, GPU_KERNEL_load, layout->type, &args);
}

static int store(struct gpu_device *device, const struct gpu_lane *lane,
                 const struct gpu_shape *shape)
{
    const struct gpu_layout *layout = &shape->plan.layout;
    uint32_t classes = shape->bound.network->classes;
    uint32_t pixels = layout->count * layout->height * layout->width;
    struct gpu_image result = gpu_steps_image(&shape->bound, &layout->result);
    const struct gpu_labels_args labels = {
        .items = pixels, .classes = classes, .in = result, .labels = pointer(lane->out)};
    const struct gpu_logits_args logits = {.items = pixels,
                                           .classes = classes,
                                           .in = result,
                                           .logits = pointer(lane->out + lane->logits_offset)};
    int code = 0;
    if (lane->batch.labels != NULL) {
        code = gpu_launch(device, lane->stream, GPU_KERNEL_labels, layout->type, &labels);
    }
    if (code == 0 && lane->batch.logits != NULL) {
        code = gpu_launch(device, lane->stream, GPU_KERNEL_logits, layout->type, &logits);
    }
    return code;
}

/* The answers' way back. */
static int fetch(struct gpu_device *device, const struct gpu_lane *lane, uint32_t classes)
{
    const struct backend_batch *batch = &lane->batch;
    size_t pixels = batch->count * plane_of(batch);
    int code = 0;
    if (batch->labels != NULL) {
        code = gpu_call(device, cuMemcpyDtoHAsync, lane->host_out, lane->out, pixels, lane->stream);
    }
    if (code == 0 && batch->logits != NULL) {
        code = gpu_call(device, cuMemcpyDtoHAsync, (char *)lane->host_out + lane->logits_offset,
                        lane->out + lane->logits_offset, pixels * classes * sizeof(float),
                        lane->stream);
    }
    return code;
}

int gpu_lane_begin(struct gpu_lane *lane, struct gpu_shapes *shapes, struct gpu_shape *shape,
                   const struct backend_preprocess *preprocess, const struct backend_batch *batch,
                   CUevent arena_free)
{
    struct gpu_device *device = shapes->device;
    uint32_t classes = shapes->network->classes;
    size_t tile_bytes = plane_of(batch) * shapes->network->in_channels *
                        unetserve_dtype_size(batch->dtype);
    lane->batch = *batch;
    int code = reserve_lane(device, lane, tile_bytes * batch->count, classes);
    if (code != 0) {
        return code;
    }
    for (uint32_t i = 0; i < batch->count; i++) {
        memcpy((char *)lane->host_in + i * tile_bytes, batch->inputs[i], tile_bytes);
    }
    code = gpu_call(device, cuMemcpyHtoDAsync, lane->in, lane->host_in, tile_bytes * batch->count,
                    lane->stream);
    if (code == 0) {
        code = gpu_call(device, cuStreamWaitEvent, lane->stream, arena_free, 0);
    }
    if (code == 0) {
        code = load(device, lane, shape, preprocess);
    }
    if (code == 0) {
        code = gpu_shapes_run(shapes, shape, lane->stream);
    }
    if (code == 0) {
        code = store(device, lane, shape);
    }
    if (code == 0) {
        code = gpu_call(device, cuEventRecord, arena_free, lane->stream);
    }
    if (code == 0) {
        code = fetch(device, lane, classes);
    }
    if (code == 0) {
        code = gpu_call(device, cuEventRecord, lane->done, lane->stream);
    }
    lane->busy = code == 0;
    /* What was put on the stream may still read host_in: it cannot be taken back. */
    return code == 0 ? 0 : -EIO;
}

int gpu_lane_finish(struct gpu_device *device, uint32_t classes, struct gpu_lane *lane)
{
    const struct backend_batch *batch = &lane->batch;
    size_t plane = plane_of(batch);
    if (!lane->busy) {
        return 0;
    }
    lane->busy = false;
    int code = gpu_call(device, cuEventSynchronize, lane->done);
    if (code != 0) {
        return code;
    }
    const char *labels = (const char *)lane->host_out;
    const char *logits = (const char *)lane->host_out + lane->logits_offset;
    size_t logit_bytes = plane * classes * sizeof(float);
    for (uint32_t i = 0; i < batch->count; i++) {
        if (batch->labels != NULL) {
            memcpy(batch->labels[i], labels + i * plane, plane);
        }
        if (batch->logits != NULL) {
            memcpy(batch->logits[i], logits + i * logit_bytes, logit_bytes);
        }
    }
    return 0;
}
