/*
 * What the programs that hold the cuDNN backend against the reference backend have in common: the
 * double under them, if it is one, a golden network, tiles for it, and what the answers differ by.
 * Included once a program; the functions are inline only so that a program need not use all.
 */
#ifndef AGAINST_REFERENCE_H
#define AGAINST_REFERENCE_H

#include "tests/gpu/double/double.h"
#include "workers/backends/backend.h"
#include "workers/backends/backends.h"
#include "workers/backends/cudnn/gpu_weights.h"
#include "workers/models/unet/source.h"

#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MOST_TILES 20

/* ---- the double ---- */

/* NULL on a real device. */
static inline void *double_symbol(const char *name)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    return library != NULL ? dlsym(library, name) : NULL;
}

static inline long count(const char *call)
{
    double_count_fn *function;
    *(void **)&function = double_symbol("gpudouble_count");
    return function != NULL ? function(call) : 0;
}

static inline bool on_double(void)
{
    return double_symbol("gpudouble_fail") != NULL;
}

/* ---- networks and batches ---- */

static struct source source;
static const struct network *network;

static inline void open_network(const char *path)
{
    char error[4096];
    assert_int_equal(source_open(path, false, &source, error, sizeof error), 0);
    assert_int_equal(source_load(&source, &network, error, sizeof error), 0);
}

static char last_log[512];

static inline void keep_log(void *opaque, int level, const char *text)
{
    (void)opaque;
    (void)level;
    snprintf(last_log, sizeof last_log, "%s", text);
}

static inline struct backend_options wishes(const char *precision)
{
    return (struct backend_options){
        .precision = precision, .threads = 2, .preprocess = {.scale = 1.0f}, .log = keep_log};
}

static inline void *start(const struct backend *backend, const struct backend_options *options)
{
    char error[1024] = "";
    void *instance = NULL;
    int code = backend->create(network, options, &instance, error, sizeof error);
    if (code != 0) {
        print_error("%s\n", error);
    }
    assert_int_equal(code, 0);
    return instance;
}

static uint32_t seed = 7;

static inline uint32_t random_bits(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

struct tiles {
    uint32_t count;
    uint32_t height;
    uint32_t width;
    void *inputs[MOST_TILES];
    uint8_t *labels[MOST_TILES];
    float *logits[MOST_TILES];
};

static inline void put_element(uint32_t dtype, void *data, size_t at, uint32_t bits)
{
    switch (dtype) {
    case UNETSERVE_U8:
    case UNETSERVE_I8: ((uint8_t *)data)[at] = (uint8_t)bits; break;
    case UNETSERVE_U16: ((uint16_t *)data)[at] = (uint16_t)(bits % 10000); break;
    case UNETSERVE_I16: ((int16_t *)data)[at] = (int16_t)((int32_t)(bits % 12000) - 2000); break;
    case UNETSERVE_F16:
        ((uint16_t *)data)[at] = gpu_weights_narrow(GPU_F16, (float)(bits % 2001) / 1000.0f - 1.0f);
        break;
    default: ((float *)data)[at] = (float)(bits % 2001) / 1000.0f - 1.0f; break;
    }
}

static inline struct tiles make_tiles(uint32_t dtype, uint32_t count, uint32_t height,
                                      uint32_t width)
{
    struct tiles tiles = {.count = count, .height = height, .width = width};
    size_t plane = (size_t)height * width;
    size_t elements = plane * network->in_channels;
    for (uint32_t i = 0; i < count; i++) {
        tiles.inputs[i] = malloc(elements * 4);
        tiles.labels[i] = (uint8_t *)malloc(plane);
        tiles.logits[i] = (float *)malloc(plane * network->classes * sizeof(float));
        for (size_t at = 0; at < elements; at++) {
            put_element(dtype, tiles.inputs[i], at, random_bits() >> 4);
        }
    }
    return tiles;
}

static inline void free_tiles(struct tiles *tiles)
{
    for (uint32_t i = 0; i < tiles->count; i++) {
        free(tiles->inputs[i]);
        free(tiles->labels[i]);
        free(tiles->logits[i]);
    }
}

static inline int run(const struct backend *backend, void *instance, uint32_t dtype,
                      struct tiles *tiles)
{
    const struct backend_batch batch = {.count = tiles->count,
                                        .dtype = dtype,
                                        .height = tiles->height,
                                        .width = tiles->width,
                                        .inputs = (const void *const *)tiles->inputs,
                                        .labels = tiles->labels,
                                        .logits = tiles->logits};
    for (uint32_t i = 0; i < tiles->count; i++) {
        memset(tiles->labels[i], 0xee, (size_t)tiles->height * tiles->width);
    }
    return backend->forward(instance, &batch);
}

/* Largest difference of logits over the largest logit. Labels are compared where the reference's
 * two best are further apart than the logits' error. */
static inline double compare(const struct tiles *got, const struct tiles *want)
{
    size_t plane = (size_t)got->height * got->width;
    size_t classes = network->classes;
    double worst = 0;
    double largest = 1e-6;
    for (uint32_t i = 0; i < got->count; i++) {
        for (size_t at = 0; at < plane * classes; at++) {
            double error = fabs((double)got->logits[i][at] - want->logits[i][at]);
            assert_true(error == error);
            worst = error > worst ? error : worst;
            largest = fmax(largest, fabs((double)want->logits[i][at]));
        }
        for (size_t p = 0; p < plane; p++) {
            size_t best = want->labels[i][p];
            size_t other = got->labels[i][p];
            assert_true(other < (classes == 1 ? 2 : classes));
            double gap = classes == 1 ? (best == other ? 0 : fabs((double)want->logits[i][p]))
                                      : (double)want->logits[i][best * plane + p] -
                                            want->logits[i][other * plane + p];
            assert_true(gap <= 0.05 * largest);
        }
    }
    return worst / largest;
}

static inline int run_labels(const struct backend *backend, void *instance,
                             const struct tiles *tiles)
{
    const struct backend_batch batch = {.count = tiles->count,
                                        .dtype = UNETSERVE_F32,
                                        .height = tiles->height,
                                        .width = tiles->width,
                                        .inputs = (const void *const *)tiles->inputs,
                                        .labels = tiles->labels};
    return backend->forward(instance, &batch);
}

/* What main does first: one argument names the tests to run. */
static inline void begin_program(int argc, char **argv)
{
    setenv("GPUDOUBLE_WAIT", "first", 1); /* the double runs things when this thread waits */
    if (argc == 2) {
        cmocka_set_test_filter(argv[1]);
    }
}

#endif
