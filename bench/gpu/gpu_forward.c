/*
 * What a GPU takes for our forward pass, one JSON line a figure, for bench/gpu/run.py:
 *
 *   gpu_forward MODEL [--precision P] [--size N] [--runs N] [--batch N]... [--layers] [--cache DIR]
 *
 * forward: a batch with its copies, as a worker runs it, wall clock. graph: the pass alone, on
 * tiles that lie in the arena, launched one after the other. layer (with --layers, of the last
 * batch): each step alone, repeated. copy_in, copy_out: page-locked memory to the device and back.
 * peak_memory: the device's memory, by our kernel that copies. peak_arithmetic: a large product of
 * matrices in the network's type (gpu_peaks.c). With --cache engines are timed, and
 * kept there, as a worker does; without it they are what cuDNN's heuristics choose.
 */
#include "gpu_bench.h"
#include "workers/backends/backends.h"
#include "workers/backends/cudnn/gpu_roofline.h"
#include "workers/models/unet/source.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#define MOST_BATCH 64
#define TOGETHER   8  /* tiles in a worker's largest run */
#define REPEATS    20 /* of what is too short for a clock */

static char problem[4096];

double bench_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

void bench_print(const char *more, const double *ms, uint32_t count)
{
    printf("{%s, \"ms\": [", more);
    for (uint32_t i = 0; i < count; i++) {
        printf("%s%.6f", i > 0 ? ", " : "", ms[i]);
    }
    printf("]}\n");
}

/* ---- as a worker runs it ---- */

struct tiles {
    void *inputs[MOST_BATCH];
    uint8_t *labels[MOST_BATCH];
};

static int tiles_make(const struct network *network, uint32_t size, struct tiles *out)
{
    size_t elements = (size_t)size * size * network->in_channels;
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < MOST_BATCH; i++) {
        uint16_t *tile = (uint16_t *)malloc(elements * sizeof *tile);
        out->inputs[i] = tile;
        out->labels[i] = (uint8_t *)malloc((size_t)size * size);
        if (tile == NULL || out->labels[i] == NULL) {
            return -ENOMEM;
        }
        for (size_t k = 0; k < elements; k++) {
            tile[k] = (uint16_t)((k * 2654435761u >> 7) % 10000);
        }
    }
    return 0;
}

static void tiles_free(struct tiles *tiles)
{
    for (uint32_t i = 0; i < MOST_BATCH; i++) {
        free(tiles->inputs[i]);
        free(tiles->labels[i]);
    }
}

/* The first runs plan, capture and load kernels. */
static int time_forward(const struct bench_settings *s, void *instance, const struct tiles *tiles,
                        uint32_t count)
{
    const struct backend_batch batch = {.count = count,
                                        .dtype = UNETSERVE_U16,
                                        .height = s->size,
                                        .width = s->size,
                                        .inputs = (const void *const *)tiles->inputs,
                                        .labels = tiles->labels};
    double ms[BENCH_MOST_RUNS];
    char more[128];
    int code = 0;
    for (uint32_t i = 0; i < s->runs + 3 && code == 0; i++) {
        double begin = bench_now_ms();
        code = backend_cudnn.forward(instance, &batch);
        ms[i < 3 ? 0 : i - 3] = bench_now_ms() - begin;
    }
    snprintf(more, sizeof more, "\"figure\": \"forward\", \"batch\": %u", count);
    if (code == 0) {
        bench_print(more, ms, s->runs);
    }
    return code;
}

static struct backend_options options_of(const struct bench_settings *s)
{
    return (struct backend_options){
        .precision = s->precision,
        .threads = 1,
        .tile = s->size,
        .max_batch = TOGETHER,
        .cache_dir = s->cache,
        .preprocess = {.scale = 10000, .clip = true, .clip_low = 0, .clip_high = 1}};
}

static int bench_forward(const struct bench_settings *s, const struct network *network)
{
    const struct backend_options options = options_of(s);
    struct tiles tiles;
    void *instance = NULL;
    int code = tiles_make(network, s->size, &tiles);
    if (code == 0) {
        code = backend_cudnn.create(network, &options, &instance, problem, sizeof problem);
    }
    for (uint32_t i = 0; i < s->batch_count && code == 0; i++) {
        code = time_forward(s, instance, &tiles, s->batches[i]);
    }
    if (instance != NULL) {
        backend_cudnn.destroy(instance);
    }
    tiles_free(&tiles);
    return code;
}

/* ---- the device's own time ---- */

static int wait(struct bench *b)
{
    return gpu_call(&b->device, cuStreamSynchronize, b->stream);
}

int bench_time(struct bench *b, int (*work)(struct bench *b, void *what), void *what, double *ms)
{
    int code = work(b, what); /* once beside the clock */
    code = code == 0 ? wait(b) : code;
    for (uint32_t i = 0; i < b->settings->runs && code == 0; i++) {
        double begin = bench_now_ms();
        for (uint32_t k = 0; k < REPEATS && code == 0; k++) {
            code = work(b, what);
        }
        code = code == 0 ? wait(b) : code;
        ms[i] = (bench_now_ms() - begin) / REPEATS;
    }
    return code;
}

static int work_graph(struct bench *b, void *what)
{
    return gpu_shapes_run(&b->shapes, (struct gpu_shape *)what, b->stream);
}

static int work_step(struct bench *b, void *what)
{
    return gpu_steps_run(&b->device, (const struct gpu_bound *)what, b->stream);
}

/* A plan of one step of another's. */
static int time_step(struct bench *b, const struct gpu_bound *bound, size_t index)
{
    static const char *const kinds[] = {"conv", "shuffle", "pool", "upsample", "fit", "add"};
    struct gpu_plan plan = *bound->plan;
    struct gpu_bound one = *bound;
    const struct gpu_step *step = &bound->plan->layout.steps[index];
    struct gpu_cost cost = gpu_step_cost(bound->network, &bound->plan->layout, step);
    double ms[BENCH_MOST_RUNS];
    char more[400];
    plan.layout.steps += index;
    plan.layout.step_count = 1;
    plan.convs += index;
    one.plan = &plan;
    one.packs += index;
    int code = bench_time(b, work_step, &one, ms);
    snprintf(more, sizeof more,
             "\"figure\": \"layer\", \"batch\": %u, \"layer\": %u, \"step\": \"%s\", \"engine\": "
             "%lld, \"flop\": %.0f, \"bytes\": %.0f",
             bound->plan->layout.count, step->layer, kinds[step->kind],
             (long long)(plan.convs[0].plan != NULL ? plan.convs[0].engine.id : -1), cost.flop,
             cost.bytes);
    if (code == 0) {
        bench_print(more, ms, b->settings->runs);
    }
    return code;
}

int bench_fill(struct bench *b, CUdeviceptr memory, size_t bytes)
{
    bool whole = b->shapes.type == GPU_F32;
    uint16_t *values = (uint16_t *)malloc(bytes);
    if (values == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < bytes / 2; i++) {
        float value = (float)(i * 2654435761u >> 8 & 0xffff) / 65536.0f;
        /* The upper half of a float is a bf16; what is in the lower one does not matter. */
        values[i] = gpu_weights_narrow(whole ? GPU_BF16 : b->shapes.type, value);
    }
    int code = gpu_call(&b->device, cuMemcpyHtoD, memory, values, bytes);
    free(values);
    /* The driver's own stream brings it over; ours does not wait for that one. */
    return code == 0 ? gpu_call(&b->device, cuStreamSynchronize, NULL) : code;
}

/* As an earlier batch would have left the arena. */
static int fill_arena(struct bench *b, const struct gpu_shape *shape)
{
    return bench_fill(b, shape->bound.arena, gpu_steps_arena_bytes(&shape->plan));
}

static int bench_batch(struct bench *b, uint32_t count, bool layers)
{
    uint32_t size = b->settings->size;
    struct gpu_shape *shape = NULL;
    double ms[BENCH_MOST_RUNS];
    char more[128];
    int code = gpu_shapes_get(&b->shapes, count, size, size, &shape, problem, sizeof problem);
    code = code == 0 ? fill_arena(b, shape) : code;
    for (int i = 0; i < 2 && code == 0; i++) { /* until it is captured */
        code = gpu_shapes_run(&b->shapes, shape, b->stream);
    }
    code = code == 0 ? bench_time(b, work_graph, shape, ms) : code;
    if (code == 0) {
        snprintf(more, sizeof more, "\"figure\": \"graph\", \"batch\": %u, \"arena_bytes\": %zu",
                 count, gpu_steps_arena_bytes(&shape->plan));
        bench_print(more, ms, b->settings->runs);
    }
    for (size_t i = 0; layers && code == 0 && i < shape->plan.layout.step_count; i++) {
        code = time_step(b, &shape->bound, i);
    }
    return code;
}

/* ---- all of it ---- */

static int open_bench(struct bench *b, const struct network *network)
{
    int code = gpu_device_open(0, &b->device, problem, sizeof problem);
    code = code == 0 ? gpu_device_enter(&b->device) : code;
    if (code == 0) {
        code = gpu_call(&b->device, cuStreamCreate, &b->stream, CU_STREAM_NON_BLOCKING);
    }
    b->shapes.device = &b->device;
    b->shapes.network = network;
    b->shapes.weights = &b->weights;
    if (code == 0) {
        code = gpu_type_choose(b->settings->precision, b->device.capability, &b->shapes.type,
                               problem, sizeof problem);
    }
    code = code == 0 ? gpu_weights_create(&b->device, network, b->shapes.type, &b->weights) : code;
    const struct backend_options options = options_of(b->settings);
    b->choices = (struct gpu_choices){.find = gpu_tuning_find, .opaque = &b->tuning};
    b->shapes.choices = &b->choices;
    return code == 0 ? gpu_tuning_open(&b->device, network, b->shapes.type, &options,
                                       b->settings->size, TOGETHER, &b->tuning)
                     : code;
}

static void print_device(const struct bench *b)
{
    printf("{\"figure\": \"device\", \"name\": \"%s\", \"capability\": %d, \"processors\": %d, "
           "\"memory_bytes\": %zu, \"type\": \"%s\", \"cudnn\": %zu, \"driver\": %d}\n",
           b->device.name, b->device.capability, b->device.processors, b->device.memory_bytes,
           gpu_type_name(b->shapes.type), b->device.place.cudnn->version,
           b->device.driver->version);
}

static int bench_device(const struct bench_settings *s, const struct network *network)
{
    static struct bench bench;
    bench.settings = s;
    int code = open_bench(&bench, network);
    if (code == 0) {
        print_device(&bench);
        code = bench_copies(&bench);
        code = code == 0 ? bench_product(&bench, problem, sizeof problem) : code;
    }
    for (uint32_t i = 0; i < s->batch_count && code == 0; i++) {
        code = bench_batch(&bench, s->batches[i], s->layers && i + 1 == s->batch_count);
    }
    if (bench.device.driver == NULL) {
        return code;
    }
    if (code != 0 && problem[0] == '\0') {
        snprintf(problem, sizeof problem, "%s", bench.device.failure);
    }
    if (bench.stream != NULL) {
        (void)wait(&bench);
        gpu_shapes_clear(&bench.shapes);
        gpu_weights_free(&bench.device, &bench.weights);
        gpu_tuning_close(&bench.tuning);
        bench.device.driver->cuStreamDestroy(bench.stream);
    }
    gpu_device_close(&bench.device);
    return code;
}

static int number(const char *text, uint32_t most, uint32_t *out)
{
    char *end = NULL;
    unsigned long value = strtoul(text, &end, 10);
    if (end == text || *end != '\0' || value == 0 || value > most) {
        return -EINVAL;
    }
    *out = (uint32_t)value;
    return 0;
}

static int parse(int argc, char **argv, struct bench_settings *out)
{
    const struct option options[] = {{"precision", required_argument, NULL, 'p'},
                                     {"size", required_argument, NULL, 's'},
                                     {"runs", required_argument, NULL, 'r'},
                                     {"batch", required_argument, NULL, 'b'},
                                     {"layers", no_argument, &out->layers, 1},
                                     {"cache", required_argument, NULL, 'c'},
                                     {NULL, 0, NULL, 0}};
    int option;
    int wrong = 0;
    while (wrong == 0 && (option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'p': out->precision = optarg; break;
        case 'c': out->cache = optarg; break;
        case 's': wrong = number(optarg, 4096, &out->size); break;
        case 'r': wrong = number(optarg, BENCH_MOST_RUNS, &out->runs); break;
        case 'b':
            wrong = out->batch_count == BENCH_MOST_BATCHES
                        ? -EINVAL
                        : number(optarg, MOST_BATCH, &out->batches[out->batch_count++]);
            break;
        case 0: break;
        default: wrong = -EINVAL;
        }
    }
    out->model = optind + 1 == argc ? argv[optind] : NULL;
    return wrong == 0 && out->model != NULL ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
    struct bench_settings settings = {.precision = "auto", .size = 256, .runs = 10};
    static struct source source;
    const struct network *network = NULL;
    if (parse(argc, argv, &settings) != 0) {
        fprintf(stderr, "usage: gpu_forward MODEL [--precision P] [--size N] [--runs N] "
                        "[--batch N]... [--layers] [--cache DIR]\n");
        return EX_USAGE;
    }
    if (settings.batch_count == 0) {
        settings.batches[settings.batch_count++] = 1;
    }
    int code = source_open(settings.model, false, &source, problem, sizeof problem);
    code = code == 0 ? source_load(&source, &network, problem, sizeof problem) : code;
    code = code == 0 ? bench_device(&settings, network) : code;
    code = code == 0 ? bench_forward(&settings, network) : code;
    if (code != 0) {
        fprintf(stderr, "gpu_forward: %s\n", problem[0] != '\0' ? problem : strerror(-code));
    }
    return code == 0          ? EX_OK
           : code == -ENODEV  ? EX_UNAVAILABLE
           : code == -ENOENT  ? EX_NOINPUT
           : code == -EBADMSG ? EX_DATAERR
                              : EX_SOFTWARE;
}
