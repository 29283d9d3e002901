/*
 * How long a forward pass takes here, beside what the machine could do at best. Prints a JSON line
 * a precision:
 *
 *   bench/forward [--model PATH] [--base 64] [--depth 4] [--channels 12] [--classes 11] [--size
 * 256] [--batch 1]
 *                 [--threads N] [--runs 10] [--precision f32|bf16|int8]
 *                 [--convolution auto|direct|winograd] [--backend auto|onednn|amx|reference]
 *                 [--profile]
 *   bench/forward --peak [--threads N]
 *
 * Without --model, a UNet of transposed convolutions with random weights (the defaults: 31M
 * parameters). int8 takes the ranges of the model's directory, or else of the tiles that it runs
 * on. --profile adds a line a layer, on oneDNN: milliseconds in its convolution and in our own
 * kernels.
 */
#include "observed_ranges.h"
#include "peak.h"
#include "random_network.h"
#include "workers/backends/amx/amx.h"
#include "workers/backends/backends.h"
#include "workers/backends/onednn/onednn.h"
#include "workers/models/unet/source.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define MAX_BATCH 64
#define MAX_RUNS  10000
#define WARM_RUNS 2

struct settings {
    const char *model;
    const char *precision; /* NULL: each that there is */
    const char *convolution;
    const char *backend;
    struct random_network random;
    uint32_t size;
    uint32_t batch;
    uint32_t threads;
    uint32_t runs;
    int profile;
    int peak;
};

/* Tiles, their labels, and the instance that runs them. */
struct bench {
    const struct settings *settings;
    const struct network *network;
    const struct backend *backend;
    void *instance;
    const void *inputs[MAX_BATCH];
    uint8_t *labels[MAX_BATCH];
    struct backend_batch batch;
};

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void tiles_free(struct bench *bench)
{
    for (uint32_t i = 0; i < MAX_BATCH; i++) {
        free((void *)(uintptr_t)bench->inputs[i]);
        free(bench->labels[i]);
    }
}

static int tiles_make(struct bench *bench)
{
    const struct settings *s = bench->settings;
    size_t pixels = (size_t)s->size * s->size;
    size_t elements = pixels * bench->network->in_channels;
    for (uint32_t i = 0; i < s->batch; i++) {
        uint16_t *tile = (uint16_t *)malloc(elements * sizeof *tile);
        bench->inputs[i] = tile;
        bench->labels[i] = (uint8_t *)malloc(pixels);
        if (tile == NULL || bench->labels[i] == NULL) {
            return -ENOMEM;
        }
        for (size_t k = 0; k < elements; k++) {
            tile[k] = (uint16_t)((k * 2654435761u >> 7) % 10000);
        }
    }
    bench->batch = (struct backend_batch){.count = s->batch,
                                          .dtype = UNETSERVE_U16,
                                          .height = s->size,
                                          .width = s->size,
                                          .inputs = bench->inputs,
                                          .labels = bench->labels};
    return 0;
}

/* ---- a precision ---- */

static void print_layer(const char *name, const char *op, const char *with,
                        const struct onednn_time *time, uint64_t flop)
{
    double ms = (double)time->convolution_ns * 1e-6;
    printf("{\"layer\": \"%s\", \"op\": \"%s\", \"with\": \"%s\", \"convolution_ms\": %.3f, "
           "\"own_ms\": %.3f, \"gflops\": %.0f}\n",
           name, op, with, ms, (double)time->own_ns * 1e-6,
           ms > 0 ? (double)flop * 1e-6 / ms : 0.0);
}

static uint64_t layer_flop(const struct bench *bench, size_t layer)
{
    const struct network *network = bench->network;
    struct network part = *network;
    part.layer_count = layer;
    uint64_t before = network_flop(&part, bench->batch.height, bench->batch.width);
    part.layer_count = layer + 1;
    return (network_flop(&part, bench->batch.height, bench->batch.width) - before) *
           bench->batch.count;
}

static void print_profile(const struct bench *bench, const struct onednn_time *times)
{
    static const char *const names[] = {"conv",   "conv_up", "max_pool", "upsample",
                                        "concat", "fit",     "add"};
    const struct network *network = bench->network;
    print_layer("input", "load", "", &times[0], 0);
    for (size_t i = 0; i < network->layer_count; i++) {
        print_layer(network->layers[i].name, names[network->layers[i].op],
                    onednn_implementation(bench->instance, i), &times[i + 1], layer_flop(bench, i));
    }
    print_layer("labels", "store", "", &times[network->layer_count + 1], 0);
}

/* Each layer's best of all runs. */
static int profile(const struct bench *bench)
{
    size_t count = bench->network->layer_count + 2;
    struct onednn_time *times = (struct onednn_time *)calloc(count * 2, sizeof *times);
    int error = times == NULL ? -ENOMEM : 0;
    for (uint32_t run = 0; run < bench->settings->runs && error == 0; run++) {
        struct onednn_time *now = times + count;
        error = onednn_forward_timed(bench->instance, &bench->batch, now);
        for (size_t i = 0; i < count; i++) {
            bool first = run == 0;
            times[i].convolution_ns = first || now[i].convolution_ns < times[i].convolution_ns
                                          ? now[i].convolution_ns
                                          : times[i].convolution_ns;
            times[i].own_ns = first || now[i].own_ns < times[i].own_ns ? now[i].own_ns
                                                                       : times[i].own_ns;
        }
    }
    if (error == 0) {
        print_profile(bench, times);
    }
    free(times);
    return error;
}

static size_t arena_bytes(const struct bench *bench)
{
    if (bench->backend == &backend_amx) {
        return amx_last_plan(bench->instance)->layout.arena_bytes;
    }
    return bench->backend == &backend_onednn ? onednn_arena_bytes(bench->instance) : 0;
}

/* peak: measured before and after, the better of both, since other processes may have had their
 * share of the cores. */
static void print_result(const struct bench *bench, const char *precision, const double *ms,
                         double peak)
{
    const struct settings *s = bench->settings;
    uint32_t runs = s->runs;
    double gflop = (double)network_flop(bench->network, s->size, s->size) * 1e-9 * s->batch;
    const struct peak_loop *loop = peak_find(precision);
    double gflops = gflop / ms[0] * 1e3;
    printf("{\"backend\": \"%s\", \"precision\": \"%s\", \"batch\": %u, \"size\": %u, \"threads\": "
           "%u, "
           "\"parameters\": %llu, \"arena_bytes\": %zu, \"ms\": %.3f, \"median_ms\": %.3f, "
           "\"ms_a_tile\": %.3f, "
           "\"gflop\": %.3f, \"gflops\": %.1f, \"peak_isa\": \"%s\", \"peak_gflops\": %.1f, "
           "\"share_of_peak\": %.4f, \"samples_ms\": [",
           bench->backend->name, precision, s->batch, s->size, s->threads,
           (unsigned long long)bench->network->parameters, arena_bytes(bench), ms[0], ms[runs / 2],
           ms[0] / s->batch, gflop, gflops, loop != NULL ? loop->isa : "", peak,
           peak > 0 ? gflops / peak : 0.0);
    for (uint32_t i = 0; i < runs; i++) {
        printf("%s%.3f", i > 0 ? ", " : "", ms[i]);
    }
    printf("]}\n");
}

static double measure_peak(const struct bench *bench)
{
    const struct peak_loop *loop = peak_find(bench->backend->precision(bench->instance));
    return loop != NULL ? peak_measure(loop, bench->settings->threads) : 0;
}

static int time_runs(const struct bench *bench)
{
    uint32_t runs = bench->settings->runs;
    double *ms = (double *)calloc(runs, sizeof *ms);
    int error = ms == NULL ? -ENOMEM : 0;
    double before = measure_peak(bench);
    for (uint32_t i = 0; i < runs + WARM_RUNS && error == 0; i++) {
        double start = now_ms();
        error = bench->backend->forward(bench->instance, &bench->batch);
        ms[i < WARM_RUNS ? 0 : i - WARM_RUNS] = now_ms() - start;
    }
    if (error == 0) {
        double after = measure_peak(bench);
        qsort(ms, runs, sizeof *ms, by_size);
        print_result(bench, bench->backend->precision(bench->instance), ms,
                     after > before ? after : before);
    }
    free(ms);
    return error;
}

static int bench_precision(const struct settings *settings, const struct network *network,
                           const struct quantise_ranges *calibrated, const char *precision)
{
    struct backend_options options = {
        .precision = precision,
        .convolution = settings->convolution,
        .threads = settings->threads,
        .preprocess = {.scale = 10000, .clip = true, .clip_low = 0, .clip_high = 1},
    };
    char reason[256];
    struct bench bench = {.settings = settings, .network = network};
    bench.backend = backend_choose(settings->backend, network, precision);
    if (bench.backend == NULL || bench.backend->probe(reason, sizeof reason) != 0) {
        fprintf(stderr, "forward: backend %s does not run here\n", settings->backend);
        return -ENODEV;
    }
    int error = tiles_make(&bench);
    struct quantise_ranges ranges = {0};
    if (error == 0 && strcmp(precision, "int8") == 0) {
        options.ranges = calibrated != NULL ? calibrated : &ranges;
    }
    if (error == 0 && options.ranges == &ranges) {
        error = observed_ranges_make(network, &bench.batch, settings->threads, &ranges);
    }
    if (error == 0) {
        snprintf(reason, sizeof reason, "no memory");
        error = bench.backend->create(network, &options, &bench.instance, reason, sizeof reason);
    }
    quantise_ranges_free(&ranges);
    if (error != 0) {
        fprintf(stderr, "forward: %s: %s\n", precision, reason);
        tiles_free(&bench);
        return error;
    }
    error = time_runs(&bench);
    if (error == 0 && settings->profile && bench.backend == &backend_onednn) {
        error = profile(&bench);
    }
    if (error != 0) {
        fprintf(stderr, "forward: %s: %s\n", precision, strerror(-error));
    }
    tiles_free(&bench);
    bench.backend->destroy(bench.instance);
    return error;
}

/* calibrated: NULL where the model has no ranges; the tiles at hand make some then. */
static int bench_network(const struct settings *settings, const struct network *network,
                         const struct quantise_ranges *calibrated)
{
    if (settings->precision != NULL) {
        return bench_precision(settings, network, calibrated, settings->precision);
    }
    int error = bench_precision(settings, network, calibrated, "auto");
    if (error == 0 && peak_find("bf16") != NULL) {
        error = bench_precision(settings, network, calibrated, "f32");
    }
    if (error == 0 && peak_find("int8") != NULL) {
        error = bench_precision(settings, network, calibrated, "int8");
    }
    return error;
}

/* ---- the network ---- */

static int run_random(const struct settings *settings)
{
    struct network network;
    int error = random_network_make(&settings->random, &network);
    if (error != 0) {
        fprintf(stderr, "forward: no network: %s\n", strerror(-error));
        return EX_DATAERR;
    }
    error = bench_network(settings, &network, NULL);
    network_free(&network);
    return error == 0 ? EX_OK : EX_SOFTWARE;
}

static int run_model(const struct settings *settings)
{
    static struct source source;
    static char report[4096];
    const struct network *network = NULL;
    int error = source_open(settings->model, false, &source, report, sizeof report);
    if (error != 0) {
        fprintf(stderr, "forward: %s: %s\n", settings->model, report);
        return EX_DATAERR;
    }
    struct quantise_ranges ranges = {0};
    error = source_load(&source, &network, report, sizeof report);
    if (error != 0) {
        fprintf(stderr, "forward: %s: %s\n", settings->model, report);
    } else {
        bool calibrated = source_load_ranges(&source, &ranges, report, sizeof report) == 0;
        error = bench_network(settings, network, calibrated ? &ranges : NULL);
    }
    quantise_ranges_free(&ranges);
    source_close(&source);
    return error == 0 ? EX_OK : EX_SOFTWARE;
}

static int print_peaks(const struct settings *settings)
{
    static const char *const precisions[] = {"int8", "bf16", "f32"};
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++) {
        const struct peak_loop *loop = peak_find(precisions[i]);
        if (loop != NULL) {
            printf("{\"isa\": \"%s\", \"precision\": \"%s\", \"threads\": %u, \"gflops\": %.1f}\n",
                   loop->isa, loop->precision, settings->threads,
                   peak_measure(loop, settings->threads));
        }
    }
    return EX_OK;
}

/* ---- the command line ---- */

static int parse_number(const char *text, uint32_t most, uint32_t *out)
{
    char *end = NULL;
    unsigned long value = strtoul(text, &end, 10);
    if (end == text || *end != '\0' || value == 0 || value > most) {
        fprintf(stderr, "forward: %s: want a number from 1 to %u\n", text, most);
        return -EINVAL;
    }
    *out = (uint32_t)value;
    return 0;
}

static int set(struct settings *settings, int option, const char *text)
{
    switch (option) {
    case 'm': settings->model = text; return 0;
    case 'p': settings->precision = text; return 0;
    case 'k': settings->backend = text; return 0;
    case 'w': settings->convolution = text; return 0;
    case 'b': return parse_number(text, 1024, &settings->random.base);
    case 'd': return parse_number(text, 8, &settings->random.depth);
    case 'c': return parse_number(text, 1024, &settings->random.channels);
    case 'o': return parse_number(text, 256, &settings->random.classes);
    case 's': return parse_number(text, 8192, &settings->size);
    case 'n': return parse_number(text, MAX_BATCH, &settings->batch);
    case 't': return parse_number(text, 1024, &settings->threads);
    case 'r': return parse_number(text, MAX_RUNS, &settings->runs);
    case 0: return 0; /* a flag, already set */
    default: return -EINVAL;
    }
}

static int parse(int argc, char **argv, struct settings *settings)
{
    const struct option options[] = {
        {"model", required_argument, NULL, 'm'},
        {"precision", required_argument, NULL, 'p'},
        {"convolution", required_argument, NULL, 'w'},
        {"backend", required_argument, NULL, 'k'},
        {"base", required_argument, NULL, 'b'},
        {"depth", required_argument, NULL, 'd'},
        {"channels", required_argument, NULL, 'c'},
        {"classes", required_argument, NULL, 'o'},
        {"size", required_argument, NULL, 's'},
        {"batch", required_argument, NULL, 'n'},
        {"threads", required_argument, NULL, 't'},
        {"runs", required_argument, NULL, 'r'},
        {"profile", no_argument, &settings->profile, 1},
        {"peak", no_argument, &settings->peak, 1},
        {NULL, 0, NULL, 0},
    };
    for (;;) {
        int option = getopt_long(argc, argv, "", options, NULL);
        if (option == -1) {
            return optind == argc ? 0 : -EINVAL;
        }
        if (set(settings, option, optarg) != 0) {
            return -EINVAL;
        }
    }
}

int main(int argc, char **argv)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct settings settings = {
        .random = {.base = 64, .depth = 4, .channels = 12, .classes = 11},
        .backend = "auto",
        .convolution = "auto",
        .size = 256,
        .batch = 1,
        .threads = cores > 0 ? (uint32_t)cores : 1,
        .runs = 10,
    };
    if (parse(argc, argv, &settings) != 0) {
        fprintf(stderr,
                "usage: forward [--model PATH | --base N --depth N --channels N --classes N] "
                "[--size N] [--batch N] [--threads N] [--runs N] [--precision P] "
                "[--convolution auto|direct|winograd] [--backend B] [--profile] [--peak]\n");
        return EX_USAGE;
    }
    if (settings.peak) {
        return print_peaks(&settings);
    }
    return settings.model != NULL ? run_model(&settings) : run_random(&settings);
}
