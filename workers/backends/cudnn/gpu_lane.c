#include "gpu_lane.h"

#include <errno.h>
#include <string.h>

/* The kernel that loads tiles counts on it. */
_Static_assert(UNETSERVE_U8 == 1 && UNETSERVE_I8 == 2 && UNETSERVE_U16 == 3 && UNETSERVE_I16 == 4 &&
                   UNETSERVE_F16 == 5 && UNETSERVE_F32 == 6,
               "element types are numbered otherwise");

/* ---- opening ---- */

int gpu_streams_open(struct gpu_device *device, struct gpu_streams *out)
{
    struct gpu_streams streams = {.in = NULL};
    int code = gpu_call(device, cuStreamCreate, &streams.in, CU_STREAM_NON_BLOCKING);
    if (code == 0) {
        code = gpu_call(device, cuStreamCreate, &streams.forward, CU_STREAM_NON_BLOCKING);
    }
    if (code == 0) {
        code = gpu_call(device, cuStreamCreate, &streams.out, CU_STREAM_NON_BLOCKING);
    }
    if (code != 0) {
        gpu_streams_close(device, &streams);
        return code;
    }
    *out = streams;
    return 0;
}

void gpu_streams_close(struct gpu_device *device, struct gpu_streams *streams)
{
    CUstream all[] = {streams->in, streams->forward, streams->out};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i] != NULL) {
            device->driver->cuStreamDestroy(all[i]);
        }
    }
    *streams = (struct gpu_streams){.in = NULL};
}

int gpu_lane_open(struct gpu_device *device, struct gpu_lane *out)
{
    struct gpu_lane lane = {.loaded = NULL};
    int code = gpu_call(device, cuEventCreate, &lane.loaded, CU_EVENT_DISABLE_TIMING);
    if (code == 0) {
        code = gpu_call(device, cuEventCreate, &lane.labelled, CU_EVENT_DISABLE_TIMING);
    }
    if (code == 0) {
        /* Who waits for it sleeps: a worker's cores are for publishing. */
        code = gpu_call(device, cuEventCreate, &lane.done,
                        CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC);
    }
    if (code != 0) {
        gpu_lane_close(device, &lane);
        return code;
    }
    *out = lane;
    return 0;
}

static void close_event(struct gpu_device *device, CUevent event)
{
    if (event != NULL) {
        device->driver->cuEventDestroy(event);
    }
}

static int free_host(struct gpu_device *device, struct gpu_buffer *buffer)
{
    void *old = buffer->host;
    buffer->host = NULL;
    buffer->host_bytes = 0;
    return old != NULL ? gpu_call(device, cuMemFreeHost, old) : 0;
}

static int free_device(struct gpu_device *device, struct gpu_buffer *buffer)
{
    CUdeviceptr old = buffer->device;
    buffer->device = 0;
    buffer->device_bytes = 0;
    return old != 0 ? gpu_call(device, cuMemFree, old) : 0;
}

void gpu_lane_close(struct gpu_device *device, struct gpu_lane *lane)
{
    (void)free_host(device, &lane->in);
    (void)free_device(device, &lane->in);
    (void)free_host(device, &lane->out);
    (void)free_device(device, &lane->out);
    close_event(device, lane->loaded);
    close_event(device, lane->labelled);
    close_event(device, lane->done);
    *lane = (struct gpu_lane){.loaded = NULL};
}

/* ---- memory ---- */

static int reserve_device(struct gpu_device *device, struct gpu_buffer *buffer, size_t bytes)
{
    if (bytes <= buffer->device_bytes) {
        return 0;
    }
    int code = free_device(device, buffer);
    if (code == 0) {
        code = gpu_call(device, cuMemAlloc, &buffer->device, bytes);
    }
    buffer->device_bytes = code == 0 ? bytes : 0;
    return code;
}

/* As much as the device has: called while copies for this very batch may already use it, so it is
 * made whole or not at all. */
static int reserve_host(struct gpu_device *device, struct gpu_buffer *buffer)
{
    if (buffer->host != NULL) {
        return 0;
    }
    int code = gpu_call(device, cuMemAllocHost, &buffer->host, buffer->device_bytes);
    buffer->host_bytes = code == 0 ? buffer->device_bytes : 0;
    return code;
}

static size_t plane_of(const struct backend_batch *batch)
{
    return (size_t)batch->height * batch->width;
}

static size_t tile_bytes_of(const struct backend_batch *batch, const struct network *network)
{
    return plane_of(batch) * network->in_channels * unetserve_dtype_size(batch->dtype);
}

static int reserve(struct gpu_device *device, struct gpu_lane *lane, const struct network *network)
{
    const struct backend_batch *batch = &lane->batch;
    size_t pixels = batch->count * plane_of(batch);
    lane->logits_offset = (pixels + GPU_ALIGN_BYTES - 1) / GPU_ALIGN_BYTES * GPU_ALIGN_BYTES;
    size_t out_bytes = lane->logits_offset +
                       (batch->logits != NULL ? pixels * network->classes * sizeof(float) : 0);
    int code = reserve_device(device, &lane->in, batch->count * tile_bytes_of(batch, network));
    if (code == 0) {
        code = reserve_device(device, &lane->out, out_bytes);
    }
    if (code == 0 && lane->in.host_bytes < lane->in.device_bytes) {
        code = free_host(device, &lane->in);
    }
    if (code == 0 && lane->out.host_bytes < lane->out.device_bytes) {
        code = free_host(device, &lane->out);
    }
    return code;
}

/* ---- in ---- */

/* A tile, as far as may be straight from where it lies. */
static int copy_in(struct gpu_lane *lane, struct gpu_way *way, const char *tile, size_t bytes,
                   size_t offset)
{
    struct gpu_device *device = way->device;
    CUstream stream = way->streams.in;
    size_t direct = 1;
    int code = 0;
    while (code == 0 && bytes > 0 && direct > 0) {
        code = gpu_areas_lock(&way->areas, tile, bytes, false, &direct);
        if (code == 0 && direct > 0) {
            code = gpu_call(device, cuMemcpyHtoDAsync, lane->in.device + offset, tile, direct,
                            stream);
            tile += direct;
            offset += direct;
            bytes -= direct;
        }
    }
    if (code != 0 || bytes == 0) {
        return code;
    }
    code = reserve_host(device, &lane->in);
    if (code == 0) {
        char *passing = (char *)lane->in.host + offset;
        memcpy(passing, tile, bytes);
        code = gpu_call(device, cuMemcpyHtoDAsync, lane->in.device + offset, passing, bytes,
                        stream);
    }
    return code;
}

static int bring_in(struct gpu_lane *lane, struct gpu_way *way)
{
    const struct backend_batch *batch = &lane->batch;
    struct gpu_device *device = way->device;
    size_t bytes = tile_bytes_of(batch, way->shapes->network);
    int code = 0;
    for (uint32_t i = 0; i < batch->count && code == 0; i++) {
        code = copy_in(lane, way, (const char *)batch->inputs[i], bytes, i * bytes);
    }
    if (code == 0) {
        code = gpu_call(device, cuEventRecord, lane->loaded, way->streams.in);
    }
    return code == 0 ? gpu_call(device, cuStreamWaitEvent, way->streams.forward, lane->loaded, 0)
                     : code;
}

/* ---- forward ---- */

/* The driver's addresses are numbers, the kernels' are pointers. */
static void *pointer(CUdeviceptr address)
{
    return (void *)(uintptr_t)address; /* NOLINT(performance-no-int-to-ptr) */
}

static int load(const struct gpu_lane *lane, const struct gpu_way *way,
                const struct gpu_shape *shape)
{
    const struct gpu_layout *layout = &shape->plan.layout;
    const struct backend_preprocess *preprocess = way->preprocess;
    const struct gpu_load_args args = {
        .items = layout->count * layout->height * layout->width,
        .channels = shape->bound.network->in_channels,
        .tiles = pointer(lane->in.device),
        .out = gpu_steps_image(&shape->bound, &layout->input),
        .dtype = lane->batch.dtype,
        .clip = preprocess->clip,
        .offset = preprocess->offset,
        .scale = preprocess->scale,
        .low = preprocess->clip_low,
        .high = preprocess->clip_high,
    };
    return gpu_launch(way->device, way->streams.forward, GPU_KERNEL_load, layout->type, &args);
}

static int label(const struct gpu_lane *lane, const struct gpu_way *way,
                 const struct gpu_shape *shape)
{
    const struct gpu_layout *layout = &shape->plan.layout;
    CUstream stream = way->streams.forward;
    uint32_t classes = shape->bound.network->classes;
    uint32_t pixels = layout->count * layout->height * layout->width;
    struct gpu_image result = gpu_steps_image(&shape->bound, &layout->result);
    const struct gpu_labels_args labels = {
        .items = pixels, .classes = classes, .in = result, .labels = pointer(lane->out.device)};
    const struct gpu_logits_args logits = {
        .items = pixels,
        .classes = classes,
        .in = result,
        .logits = pointer(lane->out.device + lane->logits_offset)};
    int code = 0;
    if (lane->batch.labels != NULL) {
        code = gpu_launch(way->device, stream, GPU_KERNEL_labels, layout->type, &labels);
    }
    if (code == 0 && lane->batch.logits != NULL) {
        code = gpu_launch(way->device, stream, GPU_KERNEL_logits, layout->type, &logits);
    }
    return code;
}

static int compute(struct gpu_lane *lane, struct gpu_way *way, struct gpu_shape *shape)
{
    int code = load(lane, way, shape);
    if (code == 0) {
        code = gpu_shapes_run(way->shapes, shape, way->streams.forward);
    }
    if (code == 0) {
        code = label(lane, way, shape);
    }
    if (code == 0) {
        code = gpu_call(way->device, cuEventRecord, lane->labelled, way->streams.forward);
    }
    return code == 0 ? gpu_call(way->device, cuStreamWaitEvent, way->streams.out, lane->labelled, 0)
                     : code;
}

/* ---- out ---- */

static int pass_out(struct gpu_lane *lane, struct gpu_way *way, size_t offset, size_t bytes)
{
    int code = reserve_host(way->device, &lane->out);
    return code == 0 ? gpu_call(way->device, cuMemcpyDtoHAsync, (char *)lane->out.host + offset,
                                lane->out.device + offset, bytes, way->streams.out)
                     : code;
}

/* A tile's labels, as far as may be straight to where they go. */
static int copy_out(struct gpu_lane *lane, struct gpu_way *way, uint32_t tile)
{
    char *labels = (char *)lane->batch.labels[tile];
    size_t bytes = plane_of(&lane->batch);
    size_t offset = tile * bytes;
    size_t done = 0;
    size_t direct = 1;
    int code = 0;
    while (code == 0 && done < bytes && direct > 0) {
        code = gpu_areas_lock(&way->areas, labels + done, bytes - done, true, &direct);
        if (code == 0 && direct > 0) {
            code = gpu_call(way->device, cuMemcpyDtoHAsync, labels + done,
                            lane->out.device + offset + done, direct, way->streams.out);
            done += direct;
        }
    }
    lane->straight[tile] = done;
    return code == 0 && done < bytes ? pass_out(lane, way, offset + done, bytes - done) : code;
}

static int bring_out(struct gpu_lane *lane, struct gpu_way *way)
{
    const struct backend_batch *batch = &lane->batch;
    int code = 0;
    for (uint32_t i = 0; batch->labels != NULL && i < batch->count && code == 0; i++) {
        code = copy_out(lane, way, i);
    }
    if (code == 0 && batch->logits != NULL) {
        code = pass_out(lane, way, lane->logits_offset,
                        batch->count * plane_of(batch) * way->shapes->network->classes *
                            sizeof(float));
    }
    return code == 0 ? gpu_call(way->device, cuEventRecord, lane->done, way->streams.out) : code;
}

/* Its arrays are the caller's, and may be others' before the lane is finished. */
static void keep(struct gpu_lane *lane, const struct backend_batch *batch)
{
    lane->batch = *batch;
    if (batch->labels != NULL) {
        memcpy(lane->labels, batch->labels, batch->count * sizeof *batch->labels);
        lane->batch.labels = lane->labels;
    }
    if (batch->logits != NULL) {
        memcpy(lane->logits, batch->logits, batch->count * sizeof *batch->logits);
        lane->batch.logits = lane->logits;
    }
}

int gpu_lane_begin(struct gpu_lane *lane, struct gpu_way *way, struct gpu_shape *shape,
                   const struct backend_batch *batch)
{
    if (batch->count > GPU_LANE_TILES) {
        return -EINVAL;
    }
    keep(lane, batch);
    int code = reserve(way->device, lane, way->shapes->network);
    if (code != 0) {
        return code;
    }
    code = bring_in(lane, way);
    if (code == 0) {
        code = compute(lane, way, shape);
    }
    if (code == 0) {
        code = bring_out(lane, way);
    }
    lane->batch.inputs = NULL;
    lane->busy = code == 0;
    /* What was put on the streams may still read the tiles: it cannot be taken back. */
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
    const char *labels = (const char *)lane->out.host;
    size_t logit_bytes = plane * classes * sizeof(float);
    for (uint32_t i = 0; i < batch->count; i++) {
        size_t straight = lane->straight[i];
        if (batch->labels != NULL && straight < plane) {
            memcpy(batch->labels[i] + straight, labels + i * plane + straight, plane - straight);
        }
        if (batch->logits != NULL) {
            memcpy(batch->logits[i], labels + lane->logits_offset + i * logit_bytes, logit_bytes);
        }
    }
    return 0;
}
