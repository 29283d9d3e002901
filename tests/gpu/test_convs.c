/*
 * Convolutions alone, as cuDNN runs them, on a double of a GPU or on a GPU, against plain loops in
 * double precision: bias, ReLU and what is rounded when. Whole networks have looser bounds, in
 * which a rounding too many is lost.
 */
#include "tests/gpu/one_device.h"
#include "workers/backends/cudnn/gpu_conv.h"
#include "workers/backends/cudnn/gpu_layout.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A tensor in the device's memory and here. */
struct tensor {
    enum gpu_type type;
    size_t count;
    float *values;
    void *host; /* page-locked */
    CUdeviceptr memory;
};

static size_t bytes_of(const struct tensor *t)
{
    return t->count * gpu_type_bytes(t->type);
}

static uint32_t seed = 11;

static float random_value(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (float)((int32_t)(seed >> 8 & 0xffff) - 0x8000) / 32768.0f;
}

static void fetch(const struct tensor *t)
{
    assert_int_equal(gpu_call(&device, cuStreamSynchronize, stream), 0);
    for (size_t i = 0; i < t->count; i++) {
        t->values[i] = widen(t->type, t->host, i);
    }
}

/* Random values times `scale`, as the type has them. */
static struct tensor tensor_make(enum gpu_type type, int64_t elements, float scale)
{
    struct tensor t = {.type = type, .count = (size_t)elements};
    t.values = (float *)malloc(t.count * sizeof(float));
    assert_int_equal(gpu_call(&device, cuMemAlloc, &t.memory, bytes_of(&t)), 0);
    assert_int_equal(gpu_call(&device, cuMemAllocHost, &t.host, bytes_of(&t)), 0);
    for (size_t i = 0; i < t.count; i++) {
        if (type == GPU_F32) {
            ((float *)t.host)[i] = random_value() * scale;
        } else {
            ((uint16_t *)t.host)[i] = gpu_weights_narrow(type, random_value() * scale);
        }
    }
    assert_int_equal(gpu_call(&device, cuMemcpyHtoDAsync, t.memory, t.host, bytes_of(&t), stream),
                     0);
    fetch(&t);
    return t;
}

static void tensor_free(struct tensor *t)
{
    free(t->values);
    assert_int_equal(gpu_call(&device, cuMemFree, t->memory), 0);
    assert_int_equal(gpu_call(&device, cuMemFreeHost, t->host), 0);
}

static void *pointer(const struct tensor *t)
{
    return (void *)(uintptr_t)t->memory; /* NOLINT(performance-no-int-to-ptr) */
}

struct operands {
    struct tensor in;
    struct tensor weights;
    struct tensor bias;
    struct tensor out;
};

/* One value in double, and the sum of what it is made of, without signs. */
static double expect(const struct gpu_conv_shape *s, const struct operands *o, int64_t at,
                     double *made_of)
{
    int64_t k = at % s->out_depth;
    int64_t x = at / s->out_depth % s->out_width;
    int64_t y = at / s->out_depth / s->out_width % s->out_height;
    int64_t n = at / s->out_depth / s->out_width / s->out_height;
    double sum = o->bias.values[k];
    *made_of = fabs(sum);
    for (int64_t tap = 0; tap < s->kernel * s->kernel; tap++) {
        int64_t from_y = y * s->stride + tap / s->kernel - s->padding;
        int64_t from_x = x * s->stride + tap % s->kernel - s->padding;
        if (from_y < 0 || from_y >= s->in_height || from_x < 0 || from_x >= s->in_width) {
            continue;
        }
        const float *pixel = o->in.values +
                             ((n * s->in_height + from_y) * s->in_width + from_x) * s->in_depth;
        const float *row = o->weights.values + (k * s->kernel * s->kernel + tap) * s->in_depth;
        for (int64_t c = 0; c < s->in_depth; c++) {
            sum += (double)pixel[c] * row[c];
            *made_of += fabs((double)pixel[c] * row[c]);
        }
    }
    return s->relu && sum < 0 ? 0 : sum;
}

/* Sums in float, rounded once: half a step of the type, and of float what sums lose. A device may
 * put a value on the other side of a half step. */
static void check(const struct gpu_conv_shape *s, const struct operands *o)
{
    static const double steps[] = {[GPU_F32] = 0x1p-23, [GPU_F16] = 0x1p-10, [GPU_BF16] = 0x1p-7};
    for (size_t i = 0; i < o->out.count; i++) {
        double made_of = 0;
        double want = expect(s, o, (int64_t)i, &made_of);
        double got = (double)o->out.values[i];
        double error = fabs(want) * steps[s->type] * 0.51 + made_of * 0x1p-20;
        error += s->type == GPU_F16 ? 0x1p-24 : 0; /* between subnormals */
        if (!(fabs(got - want) <= error)) {
            print_error("type %d, kernel %ld, stride %ld, padding %ld, element %zu: %.9g, not "
                        "%.9g\n",
                        s->type, (long)s->kernel, (long)s->stride, (long)s->padding, i, got, want);
        }
        assert_true(fabs(got - want) <= error);
    }
}

static void run(const struct gpu_conv_shape *s, const struct gpu_conv *conv)
{
    enum gpu_type type = (enum gpu_type)s->type;
    float scale = 2.0f / sqrtf((float)(s->in_depth * s->kernel * s->kernel));
    struct tensor workspace = tensor_make(GPU_F32, conv->workspace_bytes / 4 + 4, 1);
    struct operands o = {
        .in = tensor_make(type, s->count * s->in_height * s->in_width * s->in_depth, 1),
        .weights = tensor_make(type, s->out_depth * s->kernel * s->kernel * s->in_depth, scale),
        .bias = tensor_make(type, s->out_depth, 1),
        .out = tensor_make(type, s->count * s->out_height * s->out_width * s->out_depth, 1)};
    const struct gpu_conv_pointers pointers = {.in = pointer(&o.in),
                                               .weights = pointer(&o.weights),
                                               .bias = pointer(&o.bias),
                                               .out = pointer(&o.out),
                                               .workspace = pointer(&workspace)};
    const struct gpu_place *place = &device.place;
    cudnnBackendDescriptor_t pack = NULL;
    assert_int_equal(gpu_conv_bind(place->cudnn, &pointers, &pack), 0);
    assert_int_equal(place->cudnn->cudnnSetStream(place->handle, stream), 0);
    assert_int_equal(place->cudnn->cudnnBackendExecute(place->handle, conv->plan, pack), 0);
    assert_int_equal(
        gpu_call(&device, cuMemcpyDtoHAsync, o.out.host, o.out.memory, bytes_of(&o.out), stream),
        0);
    fetch(&o.out);
    check(s, &o);
    place->cudnn->cudnnBackendDestroyDescriptor(pack);
    tensor_free(&workspace);
    tensor_free(&o.in);
    tensor_free(&o.weights);
    tensor_free(&o.bias);
    tensor_free(&o.out);
}

static struct gpu_conv_shape shape_of(int32_t type, const int64_t way[3], int64_t in_depth,
                                      int64_t out_depth, int32_t relu)
{
    struct gpu_conv_shape s;
    memset(&s, 0, sizeof s);
    s.count = 2;
    s.in_depth = in_depth;
    s.in_height = 9;
    s.in_width = 12;
    s.out_depth = out_depth;
    s.kernel = way[0];
    s.stride = way[1];
    s.padding = way[2];
    s.out_height = (s.in_height + 2 * s.padding - s.kernel) / s.stride + 1;
    s.out_width = (s.in_width + 2 * s.padding - s.kernel) / s.stride + 1;
    s.type = type;
    s.relu = relu;
    return s;
}

/* Earlier devices have no bf16 in their tensor cores. */
static int32_t last_type(void)
{
    return device.capability >= 80 ? GPU_BF16 : GPU_F16;
}

static void plans_compute_what_they_say(void **state)
{
    (void)state;
    static const int64_t ways[][3] = {{3, 1, 1}, {1, 1, 0}, {7, 2, 3},
                                      {3, 2, 1}, {1, 2, 0}, {4, 1, 0}};
    for (int32_t type = GPU_F32; type <= last_type(); type++) {
        for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
            char error[300] = "";
            struct gpu_conv conv;
            struct gpu_conv again;
            const struct gpu_conv_shape s = shape_of(type, ways[w], 16 + 16 * (w % 2),
                                                     w % 3 == 0 ? 16 : 48, w % 2 == 0);
            if (gpu_conv_plan(&device.place, &s, &conv, error, sizeof error) != 0) {
                fail_msg("%s", error);
            }
            run(&s, &conv);
            /* Made from its engine's number and settings it is the same one. */
            assert_int_equal(gpu_conv_plan_for(&device.place, &s, &conv.engine, &again), 0);
            assert_int_equal(again.engine.id, conv.engine.id);
            assert_int_equal(again.workspace_bytes, conv.workspace_bytes);
            assert_string_equal(again.notes, conv.notes);
            run(&s, &again);
            gpu_conv_free(device.place.cudnn, &conv);
            gpu_conv_free(device.place.cudnn, &again);
        }
    }
}

/* All that may be chosen by time compute the same, on tensor cores, or for float on none. */
static void candidates_differ_in_speed_only(void **state)
{
    (void)state;
    static const int64_t way[3] = {3, 1, 1};
    for (int32_t type = GPU_F32; type <= last_type(); type++) {
        struct gpu_conv candidates[4];
        char error[300] = "";
        struct gpu_conv first;
        const struct gpu_conv_shape s = shape_of(type, way, 32, 16, true);
        size_t count = gpu_conv_candidates(&device.place, &s, candidates, 4);
        assert_true(count > 0);
        assert_int_equal(gpu_conv_plan(&device.place, &s, &first, error, sizeof error), 0);
        assert_int_equal(first.engine.id, candidates[0].engine.id);
        gpu_conv_free(device.place.cudnn, &first);
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(candidates[i].tensor_core, type != GPU_F32);
            run(&s, &candidates[i]);
            gpu_conv_free(device.place.cudnn, &candidates[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_compute_what_they_say),
        cmocka_unit_test(candidates_differ_in_speed_only),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
