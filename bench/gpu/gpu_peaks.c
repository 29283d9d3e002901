/* What the device does at best: copies, and arithmetic in the network's type. */
#include "gpu_bench.h"

#include "workers/backends/cudnn/gpu_timing.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- copies ---- */

struct copying {
    CUdeviceptr device, other;
    void *host;
    size_t bytes;
};

static int work_in(struct bench *b, void *what)
{
    const struct copying *c = (const struct copying *)what;
    return gpu_call(&b->device, cuMemcpyHtoDAsync, c->device, c->host, c->bytes, b->stream);
}

static int work_out(struct bench *b, void *what)
{
    const struct copying *c = (const struct copying *)what;
    return gpu_call(&b->device, cuMemcpyDtoHAsync, c->host, c->device, c->bytes, b->stream);
}

/* Of equal sizes a fit is a copy: bytes once read and once written. */
static int work_within(struct bench *b, void *what)
{
    const struct copying *c = (const struct copying *)what;
    struct gpu_image in = {.data = (void *)(uintptr_t)c->device, /* NOLINT */
                           .pitch = 64,
                           .depth = 64,
                           .height = 256,
                           .width = (uint32_t)(c->bytes / (256u * 64 * 4))};
    struct gpu_image out = in;
    out.data = (void *)(uintptr_t)c->other; /* NOLINT */
    const struct gpu_fit_args args = {.items = in.height * in.width * 8, .in = in, .out = out};
    return gpu_launch(&b->device, b->stream, GPU_KERNEL_fit, GPU_F32, &args);
}

static int print_copy(struct bench *b, struct copying *copying, const char *name,
                      int (*work)(struct bench *, void *), double factor)
{
    double ms[BENCH_MOST_RUNS];
    char more[128];
    int code = bench_time(b, work, copying, ms);
    snprintf(more, sizeof more, "\"figure\": \"%s\", \"bytes\": %.0f", name,
             (double)copying->bytes * factor);
    if (code == 0) {
        bench_print(more, ms, b->settings->runs);
    }
    return code;
}

/* Memory of the device, or of the host, is freed whatever became of its device. */
static void free_copying(struct bench *b, const struct copying *copying)
{
    if (copying->host != NULL) {
        (void)gpu_call(&b->device, cuMemFreeHost, copying->host);
    }
    if (copying->device != 0) {
        (void)gpu_call(&b->device, cuMemFree, copying->device);
    }
    if (copying->other != 0) {
        (void)gpu_call(&b->device, cuMemFree, copying->other);
    }
}

/* What 32 tiles take; smaller where they are. */
static size_t copied_bytes(const struct bench *b)
{
    size_t side = b->settings->size;
    size_t bytes = side * side * 12 * 2 * 32 / 65536 * 65536;
    return bytes > 0 ? bytes : 65536;
}

static int copy_over(struct bench *b)
{
    struct copying copying = {.bytes = copied_bytes(b)};
    int code = gpu_call(&b->device, cuMemAllocHost, &copying.host, copying.bytes);
    if (code == 0) {
        memset(copying.host, 0, copying.bytes);
        code = gpu_call(&b->device, cuMemAlloc, &copying.device, copying.bytes);
    }
    code = code == 0 ? print_copy(b, &copying, "copy_in", work_in, 1) : code;
    code = code == 0 ? print_copy(b, &copying, "copy_out", work_out, 1) : code;
    free_copying(b, &copying);
    return code;
}

/* Of tiles of 256 x 256 it is 200 MB from here to there: no device has a cache for that. */
static int copy_within(struct bench *b)
{
    struct copying copying = {.bytes = 4 * copied_bytes(b)};
    int code = gpu_call(&b->device, cuMemAlloc, &copying.device, copying.bytes);
    code = code == 0 ? gpu_call(&b->device, cuMemAlloc, &copying.other, copying.bytes) : code;
    code = code == 0 ? bench_fill(b, copying.device, copying.bytes) : code;
    code = code == 0 ? print_copy(b, &copying, "peak_memory", work_within, 2) : code;
    free_copying(b, &copying);
    return code;
}

int bench_copies(struct bench *b)
{
    int code = copy_over(b);
    return code == 0 ? copy_within(b) : code;
}

/* ---- arithmetic ---- */

/* A convolution of 1 x 1 pixel: pixels x channels times channels x channels. */
struct product {
    struct gpu_conv_shape shape;
    struct gpu_conv conv;
    cudnnBackendDescriptor_t pack;
    CUdeviceptr memory; /* in, weights, bias, out and workspace, one behind the other */
};

/* 16384 x 2048 times 2048 x 2048 where tiles are of 256 x 256: a thousand operations for each byte,
 * in a tenth of a millisecond on the fastest devices. */
static struct gpu_conv_shape product_shape(const struct bench *b)
{
    int64_t side = b->settings->size;
    int64_t depth = 8 * side < GPU_GRANULE ? GPU_GRANULE : 8 * side / GPU_GRANULE * GPU_GRANULE;
    struct gpu_conv_shape shape;
    memset(&shape, 0, sizeof shape);
    shape.count = 1;
    shape.in_depth = shape.out_depth = depth;
    shape.in_height = shape.out_height = 64;
    shape.in_width = shape.out_width = side;
    shape.kernel = shape.stride = 1;
    shape.type = (int32_t)b->shapes.type;
    return shape;
}

/* The fastest of what cuDNN proposes; where none can be timed, what it would choose. */
static int plan_product(struct bench *b, struct product *product, char *error, size_t error_size)
{
    const struct gpu_place *place = &b->device.place;
    struct gpu_timing timing;
    struct gpu_engine engine;
    bool first = false;
    int code = gpu_timing_open(&b->device, &timing);
    if (code != 0) {
        return code;
    }
    code = gpu_timing_best(&timing, &product->shape, &engine, &first);
    gpu_timing_close(&timing);
    if (code == 0) {
        code = gpu_conv_plan_for(place, &product->shape, &engine, &product->conv);
    }
    return code == 0 || code == -EIO
               ? code
               : gpu_conv_plan(place, &product->shape, &product->conv, error, error_size);
}

static size_t aligned(int64_t elements, enum gpu_type type)
{
    size_t bytes = (size_t)elements * gpu_type_bytes(type);
    return (bytes + GPU_ALIGN_BYTES - 1) / GPU_ALIGN_BYTES * GPU_ALIGN_BYTES;
}

static int place_product(struct bench *b, struct product *product)
{
    const struct gpu_conv_shape *s = &product->shape;
    enum gpu_type type = b->shapes.type;
    size_t image = aligned(s->in_depth * s->in_height * s->in_width, type);
    size_t weights = aligned(s->in_depth * s->out_depth, type);
    size_t bias = aligned(s->out_depth, type);
    size_t filled = image + weights + bias;
    size_t bytes = filled + image + (size_t)product->conv.workspace_bytes;
    int code = gpu_call(&b->device, cuMemAlloc, &product->memory, bytes);
    if (code == 0) {
        code = bench_fill(b, product->memory, filled);
    }
    char *at = (char *)(uintptr_t)product->memory; /* NOLINT(performance-no-int-to-ptr) */
    const struct gpu_conv_pointers pointers = {.in = at,
                                               .weights = at + image,
                                               .bias = at + image + weights,
                                               .out = at + filled,
                                               .workspace = at + filled + image};
    return code == 0 ? gpu_conv_bind(b->device.place.cudnn, &pointers, &product->pack) : code;
}

static int work_product(struct bench *b, void *what)
{
    const struct product *product = (const struct product *)what;
    const struct gpu_place *place = &b->device.place;
    int code = gpu_check_cudnn(&b->device, place->cudnn->cudnnSetStream(place->handle, b->stream),
                               "cudnnSetStream");
    return code != 0 ? code
                     : gpu_check_cudnn(&b->device,
                                       place->cudnn->cudnnBackendExecute(
                                           place->handle, product->conv.plan, product->pack),
                                       "cudnnBackendExecute");
}

static int print_product(struct bench *b, struct product *product)
{
    const struct gpu_conv_shape *s = &product->shape;
    double flop = 2.0 * (double)(s->out_height * s->out_width) * (double)s->in_depth *
                  (double)s->out_depth;
    double ms[BENCH_MOST_RUNS];
    char more[200];
    int code = bench_time(b, work_product, product, ms);
    snprintf(more, sizeof more,
             "\"figure\": \"peak_arithmetic\", \"engine\": %lld, \"flop\": %.0f, \"type\": \"%s\"",
             (long long)product->conv.engine.id, flop, gpu_type_name(b->shapes.type));
    if (code == 0) {
        bench_print(more, ms, b->settings->runs);
    }
    return code;
}

int bench_product(struct bench *b, char *error, size_t error_size)
{
    struct product product = {.shape = product_shape(b)};
    const struct gpu_cudnn *cudnn = b->device.place.cudnn;
    int code = plan_product(b, &product, error, error_size);
    code = code == 0 ? place_product(b, &product) : code;
    code = code == 0 ? print_product(b, &product) : code;
    if (product.pack != NULL) {
        cudnn->cudnnBackendDestroyDescriptor(product.pack);
    }
    if (product.conv.plan != NULL) {
        gpu_conv_free(cudnn, &product.conv);
    }
    if (product.memory != 0) {
        (void)gpu_call(&b->device, cuMemFree, product.memory);
    }
    return code;
}
