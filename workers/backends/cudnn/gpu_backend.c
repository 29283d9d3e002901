/*
 * The cuDNN backend: a network on one NVIDIA GPU. Weights are converted and uploaded once; batches
 * go through two lanes, in parts that fit the device's memory; the next may be begun before the
 * last has ended.
 */
#include "../backends.h"
#include "gpu_lane.h"
#include "gpu_tuning.h"
#include "gpu_waiter.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LANES 2
/* Of the device's memory, for activations. */
#define ARENA_SHARE 4
/* The tile that everything is made ready for at create, where nobody says which is usual. */
#define USUAL_TILE 256u

struct instance {
    struct gpu_device device;
    struct network network; /* without weights */
    struct gpu_weights weights;
    struct gpu_tuning tuning;
    struct gpu_choices choices; /* in tuning */
    struct gpu_shapes shapes;
    struct gpu_lane lanes[LANES]; /* part n goes through lane n % LANES */
    uint64_t begun;               /* parts of batches, in all */
    uint64_t ended;
    struct gpu_way way;
    struct gpu_waiter waiter;
    struct backend_options options;
    uint32_t usual;       /* height and width of a usual tile */
    uint32_t tile_height; /* of tile_bytes */
    uint32_t tile_width;
    size_t tile_bytes; /* of arena that one tile takes */
};

static void say(const struct instance *instance, int level, const char *text)
{
    if (instance->options.log != NULL) {
        instance->options.log(instance->options.opaque, level, text);
    }
}

static void tick(const struct instance *instance)
{
    if (instance->options.tick != NULL) {
        instance->options.tick(instance->options.opaque);
    }
}

static void lose(const struct instance *instance, uint32_t why)
{
    if (instance->options.lost != NULL) {
        instance->options.lost(instance->options.opaque, why);
    }
}

/* ---- an instance ---- */

static void destroy(void *opaque)
{
    struct instance *instance = (struct instance *)opaque;
    if (instance == NULL) {
        return;
    }
    struct gpu_device *device = &instance->device;
    if (device->driver != NULL) {
        (void)gpu_device_enter(device);
        gpu_waiter_close(&instance->waiter); /* before the events that it waits for */
        for (size_t i = 0; i < LANES; i++) {
            gpu_lane_close(device, &instance->lanes[i]);
        }
        if (instance->shapes.device != NULL) {
            gpu_shapes_clear(&instance->shapes);
        }
        gpu_streams_close(device, &instance->way.streams);
        gpu_areas_close(&instance->way.areas);
        gpu_weights_free(device, &instance->weights);
        gpu_device_close(device);
    }
    gpu_tuning_close(&instance->tuning);
    free(instance->network.layers);
    free(instance);
}

static uint32_t usual_size(const struct network *network, uint32_t tile)
{
    uint32_t multiple = network->size_multiple > 0 ? network->size_multiple : 1;
    uint32_t usual = tile > 0 ? tile : USUAL_TILE;
    uint32_t size = usual > network->size_min ? usual : network->size_min;
    return (size + multiple - 1) / multiple * multiple;
}

/* What create works with. */
struct making {
    struct instance *instance;
    const struct network *network;
    char *error;
    size_t error_size;
};

static int open_device(const struct making *making)
{
    struct instance *made = making->instance;
    struct gpu_device *device = &made->device;
    int code = gpu_device_open(made->options.device, device, making->error, making->error_size);
    if (code == 0) {
        code = gpu_type_choose(made->options.precision, device->capability, &made->shapes.type,
                               making->error, making->error_size);
    }
    made->way = (struct gpu_way){
        .device = device, .shapes = &made->shapes, .preprocess = &made->options.preprocess};
    if (code == 0) {
        code = gpu_streams_open(device, &made->way.streams);
    }
    if (code == 0) {
        code = gpu_areas_open(device, &made->options, &made->way.areas);
    }
    for (size_t i = 0; i < LANES && code == 0; i++) {
        code = gpu_lane_open(device, &made->lanes[i]);
    }
    return code == 0 ? gpu_waiter_open(device, &made->waiter) : code;
}

static int take_weights(const struct making *making)
{
    struct instance *made = making->instance;
    const struct network *full = NULL;
    int code = backend_load(making->network, &made->options, &full, making->error,
                            making->error_size);
    if (code == 0) {
        code = backend_copy_network(full, &made->network); /* weights are on the device */
    }
    if (code == 0) {
        tick(made);
        code = gpu_weights_create(&made->device, full, made->shapes.type, &made->weights);
    }
    return code;
}

/* Which engines are fast here; it is known before the first plan is made. */
static int tune(const struct making *making, uint32_t size)
{
    struct instance *made = making->instance;
    const struct backend_options *options = &made->options;
    uint32_t most = options->max_batch;
    made->choices = (struct gpu_choices){.find = gpu_tuning_find, .opaque = &made->tuning};
    return gpu_tuning_open(&made->device, &made->network, made->shapes.type, options, size,
                           most < GPU_LANE_TILES ? most : GPU_LANE_TILES, &made->tuning);
}

static int prepare_usual(const struct making *making)
{
    struct instance *made = making->instance;
    struct gpu_shape *shape;
    uint32_t size = usual_size(&made->network, made->options.tile);
    made->usual = size;
    int code = tune(making, size);
    if (code != 0) {
        return code;
    }
    made->shapes.device = &made->device;
    made->shapes.network = &made->network;
    made->shapes.weights = &made->weights;
    made->shapes.choices = &made->choices;
    made->shapes.tick = made->options.tick;
    made->shapes.opaque = made->options.opaque;
    return gpu_shapes_get(&made->shapes, 1, size, size, &shape, making->error, making->error_size);
}

static int fill(const struct making *making)
{
    int code = open_device(making);
    if (code == 0) {
        code = take_weights(making);
    }
    if (code == 0) {
        code = prepare_usual(making);
    }
    if (code != 0 && making->error[0] == '\0') {
        const char *failure = making->instance->device.failure;
        snprintf(making->error, making->error_size, "%s",
                 failure[0] != '\0' ? failure : strerror(-code));
    }
    return code == -EIO || code == -ENOTSUP ? -ENODEV : code;
}

static int create(const struct network *network, const struct backend_options *options,
                  void **instance, char *error, size_t error_size)
{
    if (network->layer_count == 0 || options->preprocess.scale == 0.0f) {
        snprintf(error, error_size, "a network without layers, or a scale of 0");
        return -EINVAL;
    }
    struct instance *made = (struct instance *)calloc(1, sizeof *made);
    if (made == NULL) {
        snprintf(error, error_size, "out of memory");
        return -ENOMEM;
    }
    made->options = *options;
    error[0] = '\0';
    const struct making making = {
        .instance = made, .network = network, .error = error, .error_size = error_size};
    int code = fill(&making);
    made->options.precision = NULL; /* the caller's strings need not live on */
    made->options.cache_dir = NULL;
    if (code != 0) {
        destroy(made);
        return code;
    }
    *instance = made;
    return 0;
}

/* ---- running ---- */

/* Memory of the arena that one tile of that size takes. */
static int measure_tile(struct instance *instance, uint32_t height, uint32_t width)
{
    struct gpu_layout layout;
    if (instance->tile_height == height && instance->tile_width == width) {
        return 0;
    }
    int code = gpu_layout_create(&instance->network, instance->shapes.type, 1, height, width,
                                 &layout);
    if (code == 0) {
        instance->tile_height = height;
        instance->tile_width = width;
        instance->tile_bytes = layout.arena_bytes;
        gpu_layout_free(&layout);
    }
    return code;
}

/* How many tiles of a batch run together. */
static uint32_t part_size(const struct instance *instance)
{
    size_t fit = instance->device.memory_bytes / ARENA_SHARE / instance->tile_bytes;
    return fit < 1 ? 1 : fit < GPU_LANE_TILES ? (uint32_t)fit : GPU_LANE_TILES;
}

/* Parts up to that one come to their end, in the order in which they were begun. */
static int finish_to(struct instance *instance, uint64_t mark)
{
    int code = 0;
    while (instance->ended < mark && code == 0) {
        struct gpu_lane *lane = &instance->lanes[instance->ended % LANES];
        tick(instance);
        code = gpu_lane_finish(&instance->device, instance->network.classes, lane);
        instance->ended++;
    }
    return code;
}

static int begin(struct instance *instance, const struct backend_batch *part)
{
    char error[400] = "";
    struct gpu_shape *shape;
    struct gpu_shapes *shapes = &instance->shapes;
    struct gpu_lane *lane = &instance->lanes[instance->begun % LANES];
    int code = instance->begun < LANES ? 0 : finish_to(instance, instance->begun - LANES + 1);
    if (code == 0 && !gpu_shapes_ready(shapes, part->count, part->height, part->width)) {
        code = finish_to(instance, instance->begun);
    }
    if (code == 0) {
        code = gpu_shapes_get(shapes, part->count, part->height, part->width, &shape, error,
                              sizeof error);
        if (code != 0) {
            say(instance, 4, error);
        }
    }
    if (code == 0) {
        code = gpu_lane_begin(lane, &instance->way, shape, part);
    }
    if (code == 0) {
        instance->begun++;
        code = gpu_waiter_expect(&instance->waiter, lane->done, instance->begun);
    }
    return code;
}

/* Puts all of it on the streams, or waits for what it has put there and fails. */
static int begin_parts(struct instance *instance, const struct backend_batch *batch)
{
    uint32_t most = part_size(instance);
    int code = 0;
    for (uint32_t done = 0; done < batch->count && code == 0; done += most) {
        uint32_t left = batch->count - done;
        struct backend_batch part = backend_part(batch, done, left < most ? left : most);
        code = begin(instance, &part);
    }
    if (code != 0) {
        (void)finish_to(instance, instance->begun);
    }
    return code;
}

/* Without memory for one usual tile, which there was at the start, the device serves nobody. For a
 * larger one there may never be enough: that is the request's trouble. */
static int judge(const struct instance *instance, const struct backend_batch *batch, int code)
{
    uint64_t pixels = (uint64_t)batch->height * batch->width;
    if (code == -ENOMEM && batch->count == 1 &&
        pixels <= (uint64_t)instance->usual * instance->usual) {
        say(instance, 3, "the device has no memory left for one usual tile");
        lose(instance, UNETSERVE_LOSS_MEMORY);
        return -EIO;
    }
    return code == -ENOTSUP ? -EINVAL : code;
}

/* The driver's reason is told where a call fails, by whatever way that comes out. */
static int tell(const struct instance *instance, int code)
{
    if (code != 0 && instance->device.failure[0] != '\0') {
        say(instance, 3, instance->device.failure);
    }
    if (code == -EIO) {
        lose(instance,
             instance->device.loss < 0 ? UNETSERVE_LOSS_OTHER : (uint32_t)instance->device.loss);
    }
    return code;
}

static int submit(void *opaque, const struct backend_batch *batch, uint64_t *mark)
{
    struct instance *instance = (struct instance *)opaque;
    if (!backend_batch_fits(&instance->network, batch)) {
        return -EINVAL;
    }
    int code = gpu_device_enter(&instance->device);
    if (code == 0) {
        code = measure_tile(instance, batch->height, batch->width);
    }
    if (code == 0) {
        code = begin_parts(instance, batch);
    }
    *mark = instance->begun;
    return judge(instance, batch, tell(instance, code));
}

static int collect(void *opaque, uint64_t least, uint64_t *mark)
{
    struct instance *instance = (struct instance *)opaque;
    uint64_t reached = gpu_waiter_reached(&instance->waiter);
    int code = finish_to(instance, reached > least ? reached : least);
    *mark = instance->ended;
    return tell(instance, code);
}

static int descriptor(const void *opaque)
{
    const struct instance *instance = (const struct instance *)opaque;
    return instance->waiter.told;
}

static int forward(void *opaque, const struct backend_batch *batch)
{
    uint64_t mark;
    int code = submit(opaque, batch, &mark);
    return code == 0 ? collect(opaque, mark, &mark) : code;
}

static int probe(char *error, size_t error_size)
{
    return gpu_device_probe(error, error_size);
}

static const char *precision(const void *opaque)
{
    const struct instance *instance = (const struct instance *)opaque;
    return gpu_type_name(instance->shapes.type);
}

const struct backend backend_cudnn = {
    .abi = BACKEND_ABI,
    .name = "cudnn",
    .probe = probe,
    .create = create,
    .forward = forward,
    .precision = precision,
    .destroy = destroy,
    .submit = submit,
    .collect = collect,
    .descriptor = descriptor,
};
