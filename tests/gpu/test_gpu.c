/*
 * The cuDNN backend against the reference backend: on a double of a GPU (make test-gpu-double), or
 * on a GPU (make test-gpu). Every golden network, every element type of tiles, odd sizes, batches,
 * first runs and captured ones; and on the double, every call failing in turn.
 */
#include "tests/gpu/double/double.h"
#include "workers/backends/backend.h"
#include "workers/backends/backends.h"
#include "workers/backends/cudnn/gpu_weights.h"
#include "workers/models/unet/half.h"
#include "workers/models/unet/source.h"

#include <cuda.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <glob.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MOST_TILES 20

/* ---- the double ---- */

/* NULL on a real device. */
static void *double_symbol(const char *name)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    return library != NULL ? dlsym(library, name) : NULL;
}

static void fail_at(long n, int code)
{
    double_fail_fn *function;
    *(void **)&function = double_symbol("gpudouble_fail");
    assert_non_null(function);
    function(n, code);
}

static long calls(void)
{
    double_calls_fn *function;
    *(void **)&function = double_symbol("gpudouble_calls");
    assert_non_null(function);
    return function();
}

/* ---- networks and batches ---- */

static struct source source;
static const struct network *network;

static void open_network(const char *path)
{
    char error[4096];
    assert_int_equal(source_open(path, false, &source, error, sizeof error), 0);
    assert_int_equal(source_load(&source, &network, error, sizeof error), 0);
}

static char last_log[512];

static void keep_log(void *opaque, int level, const char *text)
{
    (void)opaque;
    (void)level;
    snprintf(last_log, sizeof last_log, "%s", text);
}

static uint32_t last_loss;

static void keep_loss(void *opaque, uint32_t why)
{
    (void)opaque;
    last_loss = why;
}

static struct backend_options wishes(const char *precision)
{
    return (struct backend_options){
        .precision = precision, .threads = 2, .preprocess = {.scale = 1.0f}, .log = keep_log};
}

static void *start(const struct backend *backend, const struct backend_options *options)
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

static uint32_t random_bits(void)
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

static void put_element(uint32_t dtype, void *data, size_t at, uint32_t bits)
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

static struct tiles make_tiles(uint32_t dtype, uint32_t count, uint32_t height, uint32_t width)
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

static void free_tiles(struct tiles *tiles)
{
    for (uint32_t i = 0; i < tiles->count; i++) {
        free(tiles->inputs[i]);
        free(tiles->labels[i]);
        free(tiles->logits[i]);
    }
}

static int run(const struct backend *backend, void *instance, uint32_t dtype, struct tiles *tiles)
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
static double compare(const struct tiles *got, const struct tiles *want)
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

/* ---- tests ---- */

struct bound {
    const char *precision;
    double error;
};

static const struct bound bounds[] = {{"f32", 2e-5}, {"f16", 0.01}, {"bf16", 0.06}};

static void check(const struct bound *bound, uint32_t dtype, uint32_t count, uint32_t height,
                  uint32_t width, const struct backend_preprocess *preprocess)
{
    struct backend_options options = wishes(bound->precision);
    options.preprocess = *preprocess;
    void *gpu = start(&backend_cudnn, &options);
    assert_string_equal(backend_cudnn.precision(gpu), bound->precision);
    options.precision = "f32";
    void *reference = start(&backend_reference, &options);
    for (int round = 0; round < 4; round++) { /* step by step, captured, launched, launched */
        struct tiles got = make_tiles(dtype, count, height, width);
        struct tiles want = got;
        struct tiles answers = make_tiles(dtype, count, height, width);
        memcpy(want.labels, answers.labels, sizeof want.labels);
        memcpy(want.logits, answers.logits, sizeof want.logits);
        assert_int_equal(run(&backend_cudnn, gpu, dtype, &got), 0);
        assert_int_equal(run(&backend_reference, reference, dtype, &want), 0);
        double error = compare(&got, &want);
        if (error > bound->error) {
            print_error("%s, %u tiles of %u x %u, type %u, round %d: error %g\n", bound->precision,
                        count, height, width, dtype, round, error);
        }
        assert_true(error <= bound->error);
        free_tiles(&got);
        free_tiles(&answers);
    }
    backend_cudnn.destroy(gpu);
    backend_reference.destroy(reference);
}

static const struct backend_preprocess plain = {.scale = 1.0f};

static void every_family(void **state)
{
    (void)state;
    glob_t found;
    assert_int_equal(glob("tests/goldens/[!r]*.safetensors", 0, NULL, &found), 0);
    assert_true(found.gl_pathc > 8);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        if (strstr(found.gl_pathv[i], "ops.") != NULL) {
            continue;
        }
        open_network(found.gl_pathv[i]);
        uint32_t multiple = network->size_multiple;
        uint32_t size = (network->size_min > 32 ? network->size_min : 32) / multiple * multiple;
        uint32_t odd = multiple > 1 ? multiple : 5;
        check(&bounds[i % 3], UNETSERVE_F32, 1 + i % 2, size, size + odd, &plain);
        check(&bounds[0], UNETSERVE_F32, 1, size + odd, size, &plain);
        source_close(&source);
    }
    globfree(&found);
}

static void every_type_of_tile(void **state)
{
    (void)state;
    static const struct backend_preprocess steps[] = {
        {.scale = 255.0f},
        {.offset = 3.0f, .scale = 128.0f},
        {.offset = -1000.0f, .scale = 10000.0f, .clip = true, .clip_low = 0.0f, .clip_high = 0.5f},
        {.offset = 100.0f, .scale = 10000.0f, .clip = true, .clip_low = -0.1f, .clip_high = 1.0f},
        {.scale = 1.0f},
        {.offset = 0.5f, .scale = 2.0f}};
    open_network("tests/goldens/milesial_transposed.safetensors");
    for (uint32_t dtype = UNETSERVE_U8; dtype <= UNETSERVE_F32; dtype++) {
        check(&bounds[0], dtype, 2, 24, 37, &steps[dtype - 1]);
        check(&bounds[2], dtype, 2, 24, 37, &steps[dtype - 1]);
    }
    source_close(&source);
}

static void every_batch(void **state)
{
    (void)state;
    static const uint32_t counts[] = {1, 2, 5, 8, 20};
    open_network("tests/goldens/milesial_bilinear.safetensors");
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        check(&bounds[0], UNETSERVE_F32, counts[i], 17, 19, &plain);
    }
    source_close(&source);
}

/* More shapes than are kept, of growing and shrinking arenas, and back again. */
static void shapes_come_and_go(void **state)
{
    (void)state;
    open_network("tests/goldens/milesial_transposed.safetensors");
    struct backend_options options = wishes("f32");
    void *gpu = start(&backend_cudnn, &options);
    void *reference = start(&backend_reference, &options);
    for (uint32_t i = 0; i < 44; i++) {
        uint32_t size = 16 + i * 7 % 22;
        struct tiles got = make_tiles(UNETSERVE_F32, 1 + i % 2, size, 16 + i % 3);
        struct tiles want = make_tiles(UNETSERVE_F32, 1 + i % 2, size, 16 + i % 3);
        for (uint32_t t = 0; t < got.count; t++) {
            memcpy(want.inputs[t], got.inputs[t],
                   (size_t)network->in_channels * got.height * got.width * sizeof(float));
        }
        assert_int_equal(run(&backend_cudnn, gpu, UNETSERVE_F32, &got), 0);
        assert_int_equal(run(&backend_reference, reference, UNETSERVE_F32, &want), 0);
        assert_true(compare(&got, &want) < 2e-5);
        free_tiles(&got);
        free_tiles(&want);
    }
    backend_cudnn.destroy(gpu);
    backend_reference.destroy(reference);
    source_close(&source);
}

static void wrong_wishes_are_refused(void **state)
{
    (void)state;
    open_network("tests/goldens/milesial_transposed.safetensors");
    static const char *const precisions[] = {"int8", "f64"};
    char error[512];
    void *instance = NULL;
    for (size_t i = 0; i < 2; i++) {
        struct backend_options options = wishes(precisions[i]);
        error[0] = '\0';
        assert_int_equal(backend_cudnn.create(network, &options, &instance, error, sizeof error),
                         -EINVAL);
        assert_non_null(strstr(error, precisions[i]));
    }
    struct backend_options options = wishes("auto");
    options.device = 700;
    assert_int_equal(backend_cudnn.create(network, &options, &instance, error, sizeof error),
                     -ENODEV);
    assert_non_null(strstr(error, "700"));
    options.device = 0;
    void *gpu = start(&backend_cudnn, &options);
    struct tiles tiles = make_tiles(UNETSERVE_F32, 1, 16, 16);
    assert_int_equal(run(&backend_cudnn, gpu, UNETSERVE_F64, &tiles), -EINVAL);
    tiles.height = 1;
    assert_int_equal(run(&backend_cudnn, gpu, UNETSERVE_F32, &tiles), -EINVAL);
    tiles.height = 16;
    assert_int_equal(run(&backend_cudnn, gpu, UNETSERVE_F32, &tiles), 0);
    free_tiles(&tiles);
    backend_cudnn.destroy(gpu);
    source_close(&source);
}

/* ---- areas of the queue ---- */

#define LOTS      6
#define LOT_BYTES (((size_t)4 << 20) + 8192) /* a piece, and a little of the next */

/* Slots' areas as a worker has them: inputs that it only reads, outputs that it writes. */
struct lots {
    char *filled; /* the inputs, for whoever fills them */
    char *inputs;
    char *outputs;
};

static struct lots lots;

static void map_lots(void)
{
    int fd = memfd_create("inputs", 0);
    assert_true(fd >= 0 && ftruncate(fd, LOTS * LOT_BYTES) == 0);
    lots.filled = (char *)mmap(NULL, LOTS * LOT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    lots.inputs = (char *)mmap(NULL, LOTS * LOT_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    lots.outputs = (char *)mmap(NULL, LOTS * LOT_BYTES, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(lots.filled != MAP_FAILED && lots.inputs != MAP_FAILED &&
                lots.outputs != MAP_FAILED);
    close(fd);
}

static void unmap_lots(void)
{
    munmap(lots.filled, LOTS * LOT_BYTES);
    munmap(lots.inputs, LOTS * LOT_BYTES);
    munmap(lots.outputs, LOTS * LOT_BYTES);
}

static int find_lot(void *opaque, const void *address, struct unetserve_area *out)
{
    const char *at = (const char *)address;
    (void)opaque;
    for (int i = 0; i < 2; i++) {
        const char *first = i == 0 ? lots.inputs : lots.outputs;
        if (at >= first && at < first + LOTS * LOT_BYTES) {
            size_t before = (size_t)(at - first) / LOT_BYTES * LOT_BYTES;
            *out = (struct unetserve_area){first + before, LOT_BYTES, i == 1};
            return 0;
        }
    }
    return -ENOENT;
}

/* Where in its lot a tile lies: at the front, or across two pieces. */
static size_t place_in_lot(uint32_t tile)
{
    return tile % LOTS * LOT_BYTES + (tile % 2 == 0 ? 0 : ((size_t)4 << 20) - 100);
}

/* The same tiles in lots, the last one elsewhere; labels only. */
static void move_to_lots(struct tiles *tiles)
{
    size_t bytes = (size_t)network->in_channels * tiles->height * tiles->width * sizeof(float);
    for (uint32_t i = 0; i + 1 < tiles->count; i++) {
        memcpy(lots.filled + place_in_lot(i), tiles->inputs[i], bytes);
        free(tiles->inputs[i]);
        free(tiles->labels[i]);
        tiles->inputs[i] = lots.inputs + place_in_lot(i);
        tiles->labels[i] = (uint8_t *)lots.outputs + place_in_lot(i);
    }
}

static int run_labels(const struct backend *backend, void *instance, const struct tiles *tiles)
{
    const struct backend_batch batch = {.count = tiles->count,
                                        .dtype = UNETSERVE_F32,
                                        .height = tiles->height,
                                        .width = tiles->width,
                                        .inputs = (const void *const *)tiles->inputs,
                                        .labels = tiles->labels};
    return backend->forward(instance, &batch);
}

static long count(const char *call)
{
    double_count_fn *function;
    *(void **)&function = double_symbol("gpudouble_count");
    return function != NULL ? function(call) : 0;
}

static size_t locked_now(void)
{
    double_locked_fn *function;
    *(void **)&function = double_symbol("gpudouble_locked");
    return function != NULL ? function() : 0;
}

static bool on_double(void)
{
    return double_symbol("gpudouble_fail") != NULL;
}

/* Run tiles in lots `rounds` times; the labels must be those of the reference backend. */
static void check_lots(void *gpu, uint32_t tile_count, int rounds, bool one_elsewhere)
{
    struct backend_options options = wishes("f32");
    void *reference = start(&backend_reference, &options);
    struct tiles tiles = make_tiles(UNETSERVE_F32, tile_count + 1, 20, 24);
    uint8_t *want[MOST_TILES];
    size_t plane = (size_t)tiles.height * tiles.width;
    tiles.count = tile_count + (one_elsewhere ? 1 : 0);
    assert_int_equal(run_labels(&backend_reference, reference, &tiles), 0);
    for (uint32_t i = 0; i < tiles.count; i++) {
        want[i] = (uint8_t *)malloc(plane);
        memcpy(want[i], tiles.labels[i], plane);
    }
    tiles.count = tile_count + 1;
    move_to_lots(&tiles);
    tiles.count = tile_count + (one_elsewhere ? 1 : 0);
    for (int round = 0; round < rounds; round++) {
        for (uint32_t i = 0; i < tiles.count; i++) {
            memset(tiles.labels[i], 0xee, plane);
        }
        assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles), 0);
        for (uint32_t i = 0; i < tiles.count; i++) {
            assert_memory_equal(tiles.labels[i], want[i], plane);
        }
    }
    for (uint32_t i = 0; i < tiles.count; i++) {
        free(want[i]);
    }
    for (uint32_t i = 0; i < tile_count; i++) {
        free(tiles.logits[i]);
    }
    free(tiles.inputs[tile_count]);
    free(tiles.labels[tile_count]);
    free(tiles.logits[tile_count]);
    backend_reference.destroy(reference);
}

/* Tiles go from their slots to the device and labels come back into theirs, with nothing in
 * between; what is locked is locked once, and unlocked at the end. */
static void slots_are_locked_once(void **state)
{
    (void)state;
    open_network("tests/goldens/milesial_transposed.safetensors");
    map_lots();
    struct backend_options options = wishes("f32");
    options.area = find_lot;
    last_log[0] = '\0';
    long between = count("cuMemAllocHost");
    long locks = count("cuMemHostRegister");
    void *gpu = start(&backend_cudnn, &options);
    check_lots(gpu, 4, 3, false);
    if (on_double()) {
        assert_int_equal(count("cuMemAllocHost"), between);
        /* Lots 0 and 2 have one piece in use, 1 and 3 have two; inputs and outputs. */
        assert_int_equal(count("cuMemHostRegister"), locks + 2 * (1 + 2 + 1 + 2));
    }
    check_lots(gpu, LOTS - 1, 2, true); /* and one tile that lies in no slot */
    if (on_double()) {
        assert_true(count("cuMemAllocHost") > between);
        assert_true(locked_now() > 0);
    }
    assert_string_equal(last_log, "");
    backend_cudnn.destroy(gpu);
    assert_int_equal(locked_now(), 0);
    unmap_lots();
    source_close(&source);
}

static void inputs_that_cannot_be_locked_are_copied(void **state)
{
    (void)state;
    if (!on_double()) {
        skip();
    }
    open_network("tests/goldens/milesial_transposed.safetensors");
    map_lots();
    struct backend_options options = wishes("f32");
    options.area = find_lot;
    setenv("GPUDOUBLE_READ_ONLY", "no", 1);
    last_log[0] = '\0';
    long locks = count("cuMemHostRegister");
    void *gpu = start(&backend_cudnn, &options);
    check_lots(gpu, 4, 2, false);
    assert_non_null(strstr(last_log, "slots' inputs are not page-locked"));
    assert_int_equal(count("cuMemHostRegister"), locks + 1 + 2 + 1 + 2); /* outputs */
    unsetenv("GPUDOUBLE_READ_ONLY");
    backend_cudnn.destroy(gpu);
    unmap_lots();
    source_close(&source);
}

/* Of a batch that goes in two parts, one's copies are made while the other is computed. */
static void copies_hide_behind_work(void **state)
{
    (void)state;
    const char *order = getenv("GPUDOUBLE_ORDER");
    if (!on_double() || (order != NULL && strcmp(order, "late") == 0)) {
        skip();
    }
    open_network("tests/goldens/milesial_transposed.safetensors");
    struct backend_options options = wishes("f32");
    void *gpu = start(&backend_cudnn, &options);
    struct tiles tiles = make_tiles(UNETSERVE_F32, 16, 16, 16);
    long before = count(DOUBLE_OVERLAP);
    tiles.count = 8;
    assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles), 0);
    assert_int_equal(count(DOUBLE_OVERLAP), before);
    tiles.count = 16;
    assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles), 0);
    assert_true(count(DOUBLE_OVERLAP) >= before + 8);
    free_tiles(&tiles);
    backend_cudnn.destroy(gpu);
    source_close(&source);
}

/* Batches that nobody waits for come out as those do that somebody does, in their order; the copies
 * of one hide behind the other's work. */
static void batches_overlap(void **state)
{
    (void)state;
    enum { BATCHES = 4, COUNT = 3, PIXELS = 16 * 20 };
    static uint8_t want[BATCHES][COUNT][PIXELS];
    uint64_t marks[BATCHES];
    uint64_t come = 0;
    struct tiles tiles[BATCHES];
    const char *order = getenv("GPUDOUBLE_ORDER");
    bool mixed = on_double() && (order == NULL || strcmp(order, "late") != 0);
    open_network("tests/goldens/milesial_transposed.safetensors");
    struct backend_options options = wishes("bf16");
    void *gpu = start(&backend_cudnn, &options);
    for (int i = 0; i < BATCHES; i++) {
        tiles[i] = make_tiles(UNETSERVE_F32, COUNT, 16, 20);
        assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles[i]), 0);
        for (int k = 0; k < COUNT; k++) {
            memcpy(want[i][k], tiles[i].labels[k], PIXELS);
            memset(tiles[i].labels[k], 0xee, PIXELS);
        }
    }
    long before = count(DOUBLE_OVERLAP);
    for (int i = 0; i < BATCHES; i++) {
        const void *inputs[COUNT];
        uint8_t *labels[COUNT];
        memcpy(inputs, tiles[i].inputs, sizeof inputs);
        memcpy(labels, tiles[i].labels, sizeof labels);
        struct backend_batch batch = {COUNT, UNETSERVE_F32, 16, 20, inputs, labels, NULL};
        assert_int_equal(backend_cudnn.submit(gpu, &batch, &marks[i]), 0);
        memset(inputs, 0, sizeof inputs); /* the arrays are ours again */
        memset(labels, 0, sizeof labels);
        assert_true(i == 0 || marks[i] > marks[i - 1]);
    }
    for (int i = 0; i < BATCHES; i++) {
        assert_int_equal(backend_cudnn.collect(gpu, marks[i], &come), 0);
        assert_true(come >= marks[i]);
        for (int j = 0; j < BATCHES && marks[j] <= come; j++) { /* and whatever else has come */
            for (int k = 0; k < COUNT; k++) {
                assert_memory_equal(tiles[j].labels[k], want[j][k], PIXELS);
            }
        }
    }
    assert_true(!mixed || count(DOUBLE_OVERLAP) > before);
    backend_cudnn.destroy(gpu);
    for (int i = 0; i < BATCHES; i++) {
        free_tiles(&tiles[i]);
    }
    source_close(&source);
}

/* A batch whose second part finds no memory: its first part has ended when that is told, and the
 * next batch does not suffer. */
static void what_fails_leaves_nothing_under_way(void **state)
{
    (void)state;
    enum { COUNT = 16, PART = 8, PIXELS = 16 * 16 };
    static uint8_t want[COUNT][PIXELS];
    if (!on_double()) {
        skip();
    }
    open_network("tests/goldens/milesial_transposed.safetensors");
    struct backend_options options = wishes("bf16");
    struct tiles tiles = make_tiles(UNETSERVE_F32, COUNT, 16, 16);
    void *gpu = start(&backend_cudnn, &options);
    assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles), 0);
    for (int k = 0; k < COUNT; k++) {
        memcpy(want[k], tiles.labels[k], PIXELS);
        memset(tiles.labels[k], 0xee, PIXELS);
    }
    backend_cudnn.destroy(gpu);
    gpu = start(&backend_cudnn, &options);
    tiles.count = PART; /* one lane gets room for 8, the other for 1 */
    assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles), 0);
    tiles.count = 1;
    assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles), 0);
    for (int k = 0; k < COUNT; k++) {
        memset(tiles.labels[k], 0xee, PIXELS);
    }
    tiles.count = COUNT;
    setenv("GPUDOUBLE_MEMORY", "1", 1);
    assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles), -ENOMEM);
    unsetenv("GPUDOUBLE_MEMORY");
    for (int k = 0; k < PART; k++) {
        assert_memory_equal(tiles.labels[k], want[k], PIXELS);
    }
    assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles), 0);
    for (int k = 0; k < COUNT; k++) {
        assert_memory_equal(tiles.labels[k], want[k], PIXELS);
    }
    backend_cudnn.destroy(gpu);
    free_tiles(&tiles);
    source_close(&source);
}

/* ---- engines by time ---- */

#define RUNS_A_PLAN 6 /* with the first, that does not count */

/* A directory for what is kept, empty. */
static char kept[32];

static void make_kept(void)
{
    snprintf(kept, sizeof kept, "/tmp/test-gpu-XXXXXX");
    assert_non_null(mkdtemp(kept));
}

static void empty_kept(void)
{
    DIR *directory = opendir(kept);
    for (const struct dirent *at = readdir(directory); at != NULL; at = readdir(directory)) {
        (void)unlinkat(dirfd(directory), at->d_name, 0);
    }
    closedir(directory);
}

static char logged[4096];

static void keep_all(void *opaque, int level, const char *text)
{
    (void)opaque;
    (void)level;
    size_t used = strlen(logged);
    snprintf(logged + used, sizeof logged - used, "%s\n", text);
}

static struct backend_options tuned_wishes(void)
{
    struct backend_options options = wishes("bf16");
    options.cache_dir = kept;
    options.timing_s = 3600; /* whatever else runs */
    options.tile = 16;
    options.max_batch = 4;
    options.log = keep_all;
    logged[0] = '\0';
    return options;
}

/* Start on what is kept, run, and compare; returns how many times were taken. */
static long start_tuned(void)
{
    struct backend_options options = tuned_wishes();
    struct backend_options plain_options = wishes("bf16");
    long before = count("cuEventElapsedTime");
    void *gpu = start(&backend_cudnn, &options);
    long times = count("cuEventElapsedTime") - before;
    plain_options.precision = "f32";
    void *reference = start(&backend_reference, &plain_options);
    for (uint32_t tiles_count = 1; tiles_count <= 4; tiles_count += 3) {
        struct tiles got = make_tiles(UNETSERVE_F32, tiles_count, 16, 16);
        struct tiles want = make_tiles(UNETSERVE_F32, tiles_count, 16, 16);
        size_t bytes = (size_t)network->in_channels * 16 * 16 * sizeof(float);
        for (uint32_t i = 0; i < tiles_count; i++) {
            memcpy(want.inputs[i], got.inputs[i], bytes);
        }
        assert_int_equal(run(&backend_cudnn, gpu, UNETSERVE_F32, &got), 0);
        assert_int_equal(run(&backend_reference, reference, UNETSERVE_F32, &want), 0);
        assert_true(compare(&got, &want) < 0.06);
        free_tiles(&got);
        free_tiles(&want);
    }
    backend_cudnn.destroy(gpu);
    backend_reference.destroy(reference);
    return times;
}

/* The only file there; path has room for it. */
static void kept_file(char *path, size_t size)
{
    DIR *directory = opendir(kept);
    int files = 0;
    for (const struct dirent *at = readdir(directory); at != NULL; at = readdir(directory)) {
        if (at->d_name[0] != '.') {
            snprintf(path, size, "%s/%s", kept, at->d_name);
            files++;
        }
    }
    closedir(directory);
    assert_int_equal(files, 1);
}

static void overwrite(const char *path, long at, const void *data, size_t bytes, long end)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_true(fseek(file, at, SEEK_SET) == 0 && fwrite(data, 1, bytes, file) == bytes);
    fclose(file);
    assert_true(end < 0 || truncate(path, end) == 0);
}

/* Engines that a file names and no cuDNN has, under checksums that fit. */
static void forge(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    size_t bytes = fread(data, 1, sizeof data, file);
    assert_true(bytes > PACKED_PAGE_BYTES && bytes < sizeof data);
    memset(data + PACKED_PAGE_BYTES, 0x7e, 8);
    packed_file_seal(data, bytes);
    rewind(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    fclose(file);
}

static void engines_are_timed_once_and_kept(void **state)
{
    (void)state;
    char path[600];
    open_network("tests/goldens/milesial_transposed.safetensors");
    make_kept();
    long times = start_tuned();
    assert_non_null(strstr(logged, " plans for "));
    if (on_double()) { /* two batch sizes, some 20 convolutions, several plans */
        assert_true(times > 2 * 15 * RUNS_A_PLAN * 2 && times <= 2 * 30 * RUNS_A_PLAN * 8);
        assert_null(strstr(logged, ": 0 run on another engine"));
    }
    kept_file(path, sizeof path);
    assert_int_equal(start_tuned(), 0);
    assert_non_null(strstr(logged, "convolutions read from"));

    overwrite(path, 3000, "?", 1, -1); /* damaged */
    assert_int_equal(start_tuned(), times);
    assert_non_null(strstr(logged, "a damaged head"));
    overwrite(path, 0, "UNSP", 4, 5000); /* cut off */
    assert_int_equal(start_tuned(), times);
    assert_non_null(strstr(logged, "cut off, or grown"));
    forge(path); /* one engine is none: that convolution alone is timed again */
    long again = start_tuned();
    assert_true(on_double() ? again > 0 && again <= RUNS_A_PLAN * 8 : again == 0);
    assert_non_null(strstr(logged, "of the engines kept in"));
    assert_int_equal(start_tuned(), 0);
    kept_file(path, sizeof path);
    empty_kept();
    rmdir(kept);
    source_close(&source);
}

/* Measure in another process, where `name` is `value`: the double reads its device once. */
static void tune_elsewhere(const char *name, const char *value)
{
    pid_t child = fork();
    if (child == 0) {
        setenv(name, value, 1);
        _exit(execl("/proc/self/exe", "test_gpu", "--tune", kept, (char *)NULL));
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* The same device under the name of its successor, described in a file beside `kept`. */
static void describe_successor(const char *device, char *path, size_t size)
{
    char text[8192] = "";
    FILE *file = fopen(device, "r");
    assert_non_null(file);
    assert_true(fread(text, 1, sizeof text - 1, file) > 0);
    fclose(file);
    char *name = strstr(text, "H100");
    assert_non_null(name);
    name[1] = '2';
    snprintf(path, size, "%s.h200", kept);
    file = fopen(path, "w");
    assert_true(file != NULL && fputs(text, file) >= 0);
    fclose(file);
}

/* What was measured on another device, with another driver or cuDNN has another name; even under
 * this device's it is not believed. */
static void engines_of_others_are_not_taken(void **state)
{
    (void)state;
    char successor[64];
    const char *const others[][2] = {{"GPUDOUBLE_DEVICE", "tests/gpu/devices/a100.json"},
                                     {"GPUDOUBLE_DEVICE", successor},
                                     {"GPUDOUBLE_DRIVER", "13990"},
                                     {"GPUDOUBLE_CUDNN_VERSION", "91999"}};
    char path[600];
    char mine[600];
    char foreign[600];
    const char *device = getenv("GPUDOUBLE_DEVICE");
    if (!on_double() || device == NULL || strstr(device, "h100") == NULL) {
        skip();
    }
    open_network("tests/goldens/milesial_transposed.safetensors");
    make_kept();
    long times = start_tuned();
    kept_file(path, sizeof path);
    snprintf(mine, sizeof mine, "%s.mine", kept);
    describe_successor(device, successor, sizeof successor);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        tune_elsewhere(others[i][0], others[i][1]); /* beside this one's file */
        assert_int_equal(rename(path, mine), 0);
        kept_file(foreign, sizeof foreign);
        assert_string_not_equal(foreign, path);
        if (i == 0) {
            assert_int_equal(rename(foreign, path), 0);
            assert_int_equal(start_tuned(), times);
            assert_non_null(strstr(logged, "other weights"));
        }
        empty_kept();
        assert_int_equal(rename(mine, path), 0);
    }
    assert_int_equal(start_tuned(), 0);
    unlink(successor);
    empty_kept();
    rmdir(kept);
    source_close(&source);
}

/* A plan that fails when it is run is no candidate, and nothing else happens. */
static void plans_that_fail_are_passed_over(void **state)
{
    (void)state;
    if (!on_double()) {
        skip();
    }
    open_network("tests/goldens/milesial_transposed.safetensors");
    make_kept();
    setenv("GPUDOUBLE_BAD_PLANS", "yes", 1);
    assert_true(start_tuned() > 0);
    assert_null(strstr(logged, " 0 failed"));
    unsetenv("GPUDOUBLE_BAD_PLANS");
    empty_kept();
    rmdir(kept);
    source_close(&source);
}

/* ---- failures ---- */

/* In a child: everything that a worker asks of a device, with the n-th call failing. 0: nothing
 * failed; 1: told as it should; else: not. */
static int work_with_failure(long n, int code)
{
    char error[1024] = "";
    void *gpu = NULL;
    struct backend_options options = wishes("auto");
    struct tiles tiles = make_tiles(UNETSERVE_F32, 10, 16, 20);
    fail_at(n, code);
    int result = backend_cudnn.create(network, &options, &gpu, error, sizeof error);
    if (result != 0) {
        bool known = result == -ENODEV || result == -ENOMEM;
        return known && error[0] != '\0' ? 1 : 2;
    }
    for (int round = 0; round < 3 && result == 0; round++) {
        result = run(&backend_cudnn, gpu, UNETSERVE_F32, &tiles);
    }
    if (result != 0) {
        /* cuDNN without memory for a plan says no more than that it has none. */
        bool known = result == -EIO || result == -ENOMEM ||
                     (code == CUDA_ERROR_OUT_OF_MEMORY && result == -EINVAL);
        return known && last_log[0] != '\0' ? 1 : 3;
    }
    backend_cudnn.destroy(gpu);
    return 0;
}

static int in_child(long n, int code)
{
    int status = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        if (freopen("/dev/null", "w", stderr) == NULL) {
            _exit(9);
        }
        _exit(work_with_failure(n, code));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status)) {
        print_error("call %ld, failing with %d: signal %d\n", n, code, WTERMSIG(status));
        return -1;
    }
    return WEXITSTATUS(status);
}

static void each_call_fails_in_turn(void **state)
{
    (void)state;
    const char *order = getenv("GPUDOUBLE_ORDER");
    if (double_symbol("gpudouble_fail") == NULL || (order != NULL && strcmp(order, "late") == 0)) {
        skip(); /* a real device; or once is enough */
    }
    open_network("tests/goldens/milesial_transposed.safetensors");
    long before = calls();
    assert_int_equal(work_with_failure(0, 0), 0);
    long all = calls() - before;
    print_message("%ld calls\n", all);
    assert_true(all > 500);
    /* Every call of opening; of running one in 5; of the thousands that make plans, one in 197. */
    for (long n = 1; n <= all; n += n < 60 ? 1 : n > all - 200 ? 5 : 197) {
        int result = in_child(n, CUDA_ERROR_ILLEGAL_ADDRESS);
        if (result != 1 && result != 0) {
            print_error("call %ld of %ld: result %d\n", n, all, result);
        }
        assert_in_range(result, 0, 1);
        if (n % 5 == 0) {
            assert_in_range(in_child(n, CUDA_ERROR_OUT_OF_MEMORY), 0, 1);
        }
    }
    source_close(&source);
}

/* Where there is no memory for a usual tile the device is given up; a larger one fails alone. */
static void without_memory_the_device_is_given_up(void **state)
{
    (void)state;
    if (!on_double()) {
        skip();
    }
    open_network("tests/goldens/milesial_transposed.safetensors");
    struct backend_options options = wishes("auto");
    options.tile = 16;
    options.lost = keep_loss;
    void *gpu = start(&backend_cudnn, &options);
    struct tiles usual = make_tiles(UNETSERVE_F32, 2, 16, 16);
    struct tiles large = make_tiles(UNETSERVE_F32, 1, 32, 32);
    fail_at(3, CUDA_ERROR_OUT_OF_MEMORY);
    int result = run_labels(&backend_cudnn, gpu, &large);
    assert_true(result < 0 && result != -EIO);
    usual.count = 1;
    fail_at(0, 0);
    assert_int_equal(run_labels(&backend_cudnn, gpu, &usual), 0);
    backend_cudnn.destroy(gpu);
    gpu = start(&backend_cudnn, &options);
    fail_at(2, CUDA_ERROR_OUT_OF_MEMORY); /* behind cuCtxSetCurrent: memory for the tile */
    assert_int_equal(run_labels(&backend_cudnn, gpu, &usual), -EIO);
    assert_non_null(strstr(last_log, "no memory left for one usual tile"));
    assert_int_equal(last_loss, UNETSERVE_LOSS_MEMORY);
    fail_at(0, 0);
    backend_cudnn.destroy(gpu);
    usual.count = 2;
    free_tiles(&usual);
    free_tiles(&large);
    source_close(&source);
}

/* What the driver's code says is passed on; memory that ran out before does not hide it. */
static void why_a_device_is_lost_is_told(void **state)
{
    (void)state;
    static const struct {
        int code;
        uint32_t why;
    } all[] = {{CUDA_ERROR_ECC_UNCORRECTABLE, UNETSERVE_LOSS_ECC},
               {CUDA_ERROR_DEVICE_UNAVAILABLE, UNETSERVE_LOSS_GONE},
               {CUDA_ERROR_LAUNCH_FAILED, UNETSERVE_LOSS_FAULT},
               {CUDA_ERROR_UNKNOWN, UNETSERVE_LOSS_OTHER}};
    if (!on_double()) {
        skip();
    }
    open_network("tests/goldens/milesial_transposed.safetensors");
    struct backend_options options = wishes("auto");
    options.tile = 16;
    options.lost = keep_loss;
    struct tiles usual = make_tiles(UNETSERVE_F32, 1, 16, 16);
    struct tiles large = make_tiles(UNETSERVE_F32, 1, 32, 32);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        void *gpu = start(&backend_cudnn, &options);
        fail_at(3, CUDA_ERROR_OUT_OF_MEMORY);
        int result = run_labels(&backend_cudnn, gpu, &large);
        assert_true(result < 0 && result != -EIO);
        last_loss = UINT32_MAX;
        fail_at(2, all[i].code);
        assert_int_equal(run_labels(&backend_cudnn, gpu, &usual), -EIO);
        assert_int_equal(last_loss, all[i].why);
        assert_null(strstr(last_log, "memory"));
        fail_at(0, 0);
        backend_cudnn.destroy(gpu);
    }
    free_tiles(&usual);
    free_tiles(&large);
    source_close(&source);
}

/* ---- numbers ---- */

static void weights_are_rounded_to_nearest(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) { /* every half is itself */
        float value = half_to_f32((uint16_t)bits);
        if (value == value) {
            assert_int_equal(gpu_weights_narrow(GPU_F16, value), bits);
        }
        value = bfloat16_to_f32((uint16_t)bits);
        if (value == value) {
            assert_int_equal(gpu_weights_narrow(GPU_BF16, value), bits);
        }
    }
    assert_int_equal(gpu_weights_narrow(GPU_F16, 65519.0f), 0x7bff);
    assert_int_equal(gpu_weights_narrow(GPU_F16, 65520.0f), 0x7c00);
    assert_int_equal(gpu_weights_narrow(GPU_F16, 1.00048828125f), 0x3c00); /* half way: to even */
    assert_int_equal(gpu_weights_narrow(GPU_F16, 0x1.8p-24f), 0x0002);
    assert_int_equal(gpu_weights_narrow(GPU_F16, -0x1p-25f), 0x8000);
    assert_int_equal(gpu_weights_narrow(GPU_BF16, 1.00390625f), 0x3f80);
    assert_true(gpu_weights_narrow(GPU_F16, NAN) == 0x7e00);
}

/* --tune DIRECTORY: measure there, as another process on another device. */
static int tune_there(const char *directory)
{
    open_network("tests/goldens/milesial_transposed.safetensors");
    snprintf(kept, sizeof kept, "%s", directory);
    return start_tuned() > 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    setenv("GPUDOUBLE_WAIT", "first", 1); /* the double runs things when this thread waits */
    if (argc == 3 && strcmp(argv[1], "--tune") == 0) {
        return tune_there(argv[2]);
    }
    if (argc == 2) {
        cmocka_set_test_filter(argv[1]); /* some of them */
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_rounded_to_nearest),
        cmocka_unit_test(wrong_wishes_are_refused),
        cmocka_unit_test(every_family),
        cmocka_unit_test(every_type_of_tile),
        cmocka_unit_test(every_batch),
        cmocka_unit_test(shapes_come_and_go),
        cmocka_unit_test(slots_are_locked_once),
        cmocka_unit_test(inputs_that_cannot_be_locked_are_copied),
        cmocka_unit_test(copies_hide_behind_work),
        cmocka_unit_test(batches_overlap),
        cmocka_unit_test(what_fails_leaves_nothing_under_way),
        cmocka_unit_test(engines_are_timed_once_and_kept),
        cmocka_unit_test(engines_of_others_are_not_taken),
        cmocka_unit_test(plans_that_fail_are_passed_over),
        cmocka_unit_test(without_memory_the_device_is_given_up),
        cmocka_unit_test(why_a_device_is_lost_is_told),
        cmocka_unit_test(each_call_fails_in_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
