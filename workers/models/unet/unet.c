#include "unet.h"
#include "../../backends/clock.h"
#include "batch_choice.h"
#include "flights.h"
#include "source.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Numbers beyond this name no device on any machine. */
#define MOST_DEVICES 1023

struct unet {
    const struct unetserve_host *host; /* NULL in tests */
    const struct backend *backend;
    void *instance;
    struct source *source; /* during create, where weights are loaded as they are needed */
    uint32_t channels;
    uint32_t max_batch;
    uint64_t max_pixels;           /* of a chunk: max_batch tiles of the usual size */
    struct batch_choices *choices; /* NULL: the configuration says how many go together */
    /* The chunk that is being put together: max_batch pointers each. */
    const void **inputs;
    uint8_t **labels;
    struct flights flights;
    bool waits;    /* for each chunk, as backends do that know no better */
    uint64_t mark; /* of the last chunk that nobody waited for; 0: there is none yet */
};

/* ---- setup ---- */

static void list_backends(char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (const struct backend *const *backend = backend_list(); *backend && used < size; backend++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "",
                                 (*backend)->name);
}

/* Which backend those wishes name, and the number of its device: a GPU if a GPU is wished for. */
static int choose_backend(const struct unetserve_setup *setup, const char **name, uint32_t *number,
                          char *error, size_t error_size)
{
    const char *device = setup->device;
    bool on_gpu = strncmp(device, "cuda", 4) == 0 && (device[4] == '\0' || device[4] == ':');
    char *end = NULL;
    unsigned long ordinal = 0;
    if (on_gpu && device[4] == ':')
        ordinal = strtoul(device + 5, &end, 10);
    if ((!on_gpu && strcmp(device, "cpu") != 0 && strcmp(device, "auto") != 0) ||
        (end && (end == device + 5 || *end)) || ordinal > MOST_DEVICES) {
        snprintf(error, error_size, "device %s: neither cpu nor cuda:N", device);
        return -EINVAL;
    }
    *name = on_gpu && strcmp(setup->backend, "auto") == 0 ? "cudnn" : setup->backend;
    *number = (uint32_t)ordinal;
    if (on_gpu && strcmp(*name, "cudnn") != 0) {
        snprintf(error, error_size, "device %s: backend %s runs on the CPU, cudnn on GPUs", device,
                 *name);
        return -EINVAL;
    }
    return 0;
}

/* A backend that is not there, or cannot run here. */
static int check_backend(const struct unetserve_setup *setup, const char *name,
                         const struct backend *backend, char *error, size_t error_size)
{
    char names[128];
    char reason[512] = "";
    bool is_cudnn = strcmp(name, "cudnn") == 0;
    if (!backend) {
        list_backends(names, sizeof names);
        snprintf(error, error_size,
                 "device %s: backend %s is not part of this build, which has: %s", setup->device,
                 name, names);
        return is_cudnn ? -ENODEV : -EINVAL;
    }
    if (backend->probe(reason, sizeof reason)) {
        snprintf(error, error_size, "device %s: backend %s cannot run here: %s", setup->device,
                 backend->name, reason);
        return -ENODEV;
    }
    return 0;
}

int unet_find_backend(const struct unetserve_setup *setup, const struct network *network,
                      const char *precision, const struct backend **out, uint32_t *device,
                      char *error, size_t error_size)
{
    const char *name;
    uint32_t number;
    int failure = choose_backend(setup, &name, &number, error, error_size);
    if (failure)
        return failure;
    const struct backend *backend = backend_choose(name, network, precision);
    failure = check_backend(setup, name, backend, error, error_size);
    if (failure)
        return failure;
    *out = backend;
    *device = number;
    return 0;
}

static int check_precision(const char *precision, char *error, size_t error_size)
{
    static const char *const known[] = {"auto", "f32", "bf16", "f16", "int8"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(precision, known[i]) == 0)
            return 0;
    snprintf(error, error_size, "precision %s: allowed are auto, f32, bf16, f16 and int8",
             precision);
    return -EINVAL;
}

/* Is the worker new enough to know that member of what it gave us? */
#define KNOWS(given, type, member)                                                                 \
    ((given)->size >= offsetof(struct type, member) + sizeof(given)->member)

/* What the configuration says; "auto" leaves it to model.json, and that to the backend. */
static const char *choose(const char *configured, const char *of_model)
{
    if (strcmp(configured, "auto") != 0)
        return configured;
    return of_model[0] ? of_model : "auto";
}

static const char *choose_precision(const struct model_dir *dir,
                                    const struct unetserve_setup *setup)
{
    return choose(setup->precision, dir->precision);
}

static const char *choose_convolution(const struct model_dir *dir,
                                      const struct unetserve_setup *setup)
{
    bool told = KNOWS(setup, unetserve_setup, convolution) && setup->convolution;
    return choose(told ? setup->convolution : "auto", dir->convolution);
}

/* The ranges that precision int8 needs, for where it is wanted. */
static int find_ranges(struct source *source, const struct unetserve_setup *setup,
                       struct quantise_ranges *out, char *error, size_t error_size)
{
    if (strcmp(choose_precision(&source->dir, setup), "int8") != 0)
        return 0;
    return source_load_ranges(source, out, error, error_size);
}

static void tick(void *opaque)
{
    const struct unet *unet = opaque;
    if (unet->host)
        unet->host->tick(unet->host);
}

static int load(void *opaque, const struct network **out, char *error, size_t error_size)
{
    const struct unet *unet = opaque;
    return source_load(unet->source, out, error, error_size);
}

static void pass_log(void *opaque, int level, const char *text)
{
    const struct unet *unet = opaque;
    if (unet->host)
        unet->host->log(unet->host, level, "%s", text);
}

static bool host_has_areas(const struct unetserve_host *host)
{
    return host && KNOWS(host, unetserve_host, area) && host->area;
}

static int area(void *opaque, const void *address, struct unetserve_area *out)
{
    const struct unet *unet = opaque;
    return unet->host->area(unet->host, address, out);
}

static void pass_loss(void *opaque, uint32_t why)
{
    const struct unet *unet = opaque;
    if (unet->host && KNOWS(unet->host, unetserve_host, lost))
        unet->host->lost(unet->host, why);
}

static void log_choice(const struct unet *unet, const struct network *network)
{
    if (unet->host)
        unet->host->log(
            unet->host, 6, "%s network, %llu parameters, on %s in %s, up to %u tiles at once",
            network->family, (unsigned long long)network->parameters, unet->backend->name,
            unet->backend->precision(unet->instance), unet->max_batch);
}

static int allocate(struct unet *unet, const struct unetserve_interface *interface, bool choose)
{
    unet->channels = interface->channels;
    unet->max_batch = interface->max_batch;
    unet->max_pixels = (uint64_t)interface->max_batch * interface->tile * interface->tile;
    unet->inputs = calloc(unet->max_batch, sizeof *unet->inputs);
    unet->labels = calloc(unet->max_batch, sizeof *unet->labels);
    unet->choices = choose ? calloc(1, sizeof *unet->choices) : NULL;
    return unet->inputs && unet->labels && (unet->choices || !choose) ? 0 : -ENOMEM;
}

static uint32_t flags_of(const struct backend *backend)
{
    return backend->submit ? UNETSERVE_ON_DEVICE : 0;
}

/* source: where the weights are, if the network comes without; else NULL. */
static int create(const struct model_dir *dir, const struct network *network, struct source *source,
                  const struct unetserve_setup *setup, struct unet **out,
                  struct unetserve_interface *interface, char *error, size_t error_size)
{
    struct unet *unet = calloc(1, sizeof *unet);
    if (!unet)
        return -ENOMEM;
    unet->host = setup->host;
    unet->source = source;
    uint32_t device = 0;
    struct quantise_ranges ranges = {0};
    int failure = unet_interface(dir, network, setup, interface, error, error_size);
    if (!failure)
        failure = check_precision(setup->precision, error, error_size);
    if (!failure)
        failure = unet_find_backend(setup, network, choose_precision(dir, setup), &unet->backend,
                                    &device, error, error_size);
    if (!failure)
        failure = allocate(unet, interface, setup->max_batch == 0 && !unet->backend->submit);
    if (!failure && source)
        failure = find_ranges(source, setup, &ranges, error, error_size);
    if (failure)
        goto fail;
    struct backend_options options = {
        .precision = choose_precision(dir, setup),
        .convolution = choose_convolution(dir, setup),
        .threads = setup->threads ? setup->threads : 1,
        .device = device,
        .preprocess = {dir->offset, dir->scale, dir->clip, dir->clip_low, dir->clip_high},
        .tile = interface->tile,
        .max_batch = interface->max_batch,
        .tick = tick,
        .opaque = unet,
        .cache_dir = source ? source->cache_dir : NULL,
        .no_timing = KNOWS(setup, unetserve_setup, no_timing) && setup->no_timing,
        .weights_id = source ? source->id : (struct packed_hash){0, 0},
        .load = source ? load : NULL,
        .ranges = ranges.layers ? &ranges : NULL,
        .area = host_has_areas(setup->host) ? area : NULL,
        .lost = pass_loss,
        .log = pass_log,
    };
    failure = unet->backend->create(network, &options, &unet->instance, error, error_size);
    quantise_ranges_free(&ranges);
    if (failure) {
        unet->instance = NULL;
        goto fail;
    }
    unet->source = NULL;
    failure = flights_open(setup->host, unet->backend, unet->instance, unet->max_batch,
                           &unet->flights);
    if (failure)
        goto fail;
    interface->flags |= flags_of(unet->backend);
    log_choice(unet, network);
    *out = unet;
    return 0;
fail:
    unet_teardown(unet);
    return failure;
}

int unet_create(const struct model_dir *dir, const struct network *network,
                const struct unetserve_setup *setup, struct unet **out,
                struct unetserve_interface *interface, char *error, size_t error_size)
{
    return create(dir, network, NULL, setup, out, interface, error, error_size);
}

/* Will a worker here have the precision that is wanted, as far as that can be told at once? */
static int check_choice(const struct source *source, const struct unetserve_setup *setup,
                        char *error, size_t error_size)
{
    const struct backend *backend;
    uint32_t device;
    const char *precision = choose_precision(&source->dir, setup);
    int failure = unet_find_backend(setup, &source->plan, precision, &backend, &device, error,
                                    error_size);
    if (failure || !backend->check_precision)
        return failure;
    return backend->check_precision(precision, error, error_size);
}

int unet_describe(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                  char *error, size_t error_size)
{
    struct source source;
    const struct backend *backend;
    uint32_t device;
    int failure = unet_find_backend(setup, NULL, NULL, &backend, &device, error, error_size);
    if (!failure)
        failure = check_precision(setup->precision, error, error_size);
    if (!failure)
        failure = source_open_checked(setup->path, &source, error, error_size);
    if (failure)
        return failure;
    struct quantise_ranges ranges = {0};
    failure = unet_interface(&source.dir, &source.plan, setup, interface, error, error_size);
    if (!failure)
        failure = find_ranges(&source, setup, &ranges, error, error_size);
    if (!failure)
        failure = check_choice(&source, setup, error, error_size);
    interface->flags |= flags_of(backend);
    quantise_ranges_free(&ranges);
    source_close(&source);
    return failure;
}

int unet_setup(const struct unetserve_setup *setup, struct unet **out,
               struct unetserve_interface *interface, char *error, size_t error_size)
{
    struct source source;
    const char *cache_dir = KNOWS(setup, unetserve_setup, cache_dir) ? setup->cache_dir : NULL;
    int failure = source_open(setup->path, cache_dir != NULL, &source, error, error_size);
    if (failure)
        return failure;
    source.cache_dir = cache_dir;
    failure = create(&source.dir, &source.plan, &source, setup, out, interface, error, error_size);
    source_close(&source);
    return failure;
}

void unet_teardown(struct unet *unet)
{
    if (!unet)
        return;
    flights_close(&unet->flights);
    if (unet->instance)
        unet->backend->destroy(unet->instance);
    free(unet->inputs);
    free(unet->labels);
    free(unet->choices);
    free(unet);
}

/* ---- predict ---- */

/* An item's tiles and where they lie. */
struct tiles {
    uint64_t count;
    size_t input_stride; /* bytes from one tile to the next */
    size_t output_stride;
};

/* Measure an item and declare its output. -EINVAL: no image; -ENOSPC: the answer does not fit. */
static int lay_out(const struct unet *unet, struct unetserve_item *item, struct tiles *out)
{
    const struct unetserve_shape *shape = &item->input_shape;
    uint64_t bytes;
    if ((shape->rank != 3 && shape->rank != 4) || unetserve_shape_bytes(shape, &bytes) ||
        bytes > item->input_bytes)
        return -EINVAL;
    bool batched = shape->rank == 4;
    const uint64_t *image = shape->dims + (batched ? 1 : 0);
    if (image[0] != unet->channels || image[1] == 0 || image[2] == 0)
        return -EINVAL;
    struct tiles tiles = {.count = batched ? shape->dims[0] : 1};
    if (tiles.count == 0)
        return -EINVAL;
    tiles.input_stride = (size_t)(bytes / tiles.count);
    tiles.output_stride = (size_t)(image[1] * image[2]);
    if (tiles.output_stride > item->output_capacity / tiles.count)
        return -ENOSPC;
    item->output_bytes = tiles.output_stride * (size_t)tiles.count;
    item->output_shape = (struct unetserve_shape){.dtype = UNETSERVE_U8, .rank = shape->rank - 1};
    if (batched)
        item->output_shape.dims[0] = tiles.count;
    item->output_shape.dims[batched ? 1 : 0] = image[1];
    item->output_shape.dims[batched ? 2 : 1] = image[2];
    *out = tiles;
    return 0;
}

static bool cancelled(const struct unet *unet, const struct unetserve_item *item)
{
    return unet->host && unet->host->cancelled(unet->host, item);
}

static void log_batches(const struct unet *unet, const struct backend_batch *batch,
                        const struct batch_choice *choice)
{
    char times[160];
    batch_choice_tell(choice, times, sizeof times);
    if (unet->host)
        unet->host->log(
            unet->host, 6,
            "%u tiles of %u x %u run together from now on; milliseconds a tile by number: %s",
            batch_choice_made(choice), batch->height, batch->width, times);
}

/* How many tiles of this size make a full chunk at most. A network's memory grows with the pixels
 * that it works on, so of large images fewer go together, down to one. */
static uint32_t chunk_most(const struct unet *unet, uint64_t height, uint64_t width)
{
    uint64_t pixels = height * width;
    uint64_t fit = pixels ? unet->max_pixels / pixels : 1;
    return fit < 1 ? 1 : fit < unet->max_batch ? (uint32_t)fit : unet->max_batch;
}

static struct batch_choice *find_choice(struct unet *unet, uint64_t height, uint64_t width)
{
    return batch_choices_find(unet->choices, (uint32_t)height, (uint32_t)width,
                              chunk_most(unet, height, width));
}

static uint64_t height_of(const struct unetserve_shape *shape)
{
    return shape->dims[shape->rank - 2];
}

static uint64_t width_of(const struct unetserve_shape *shape)
{
    return shape->dims[shape->rank - 1];
}

/* Run the chunk as far as it is filled, and begin a new one. */
static int run_chunk(struct unet *unet, const struct unetserve_shape *shape, uint32_t *filled)
{
    if (*filled == 0)
        return 0;
    struct backend_batch batch = {
        .count = *filled,
        .dtype = shape->dtype,
        .height = (uint32_t)height_of(shape),
        .width = (uint32_t)width_of(shape),
        .inputs = unet->inputs,
        .labels = unet->labels,
    };
    *filled = 0;
    if (!unet->waits)
        return unet->backend->submit(unet->instance, &batch, &unet->mark);
    uint64_t begin_ns = clock_now_ns();
    int failure = unet->backend->forward(unet->instance, &batch);
    if (failure || !unet->choices)
        return failure;
    struct batch_choice *choice = find_choice(unet, batch.height, batch.width);
    bool was_made = batch_choice_made(choice) != 0;
    batch_choice_note(choice, batch.count, clock_now_ns() - begin_ns);
    if (!was_made && batch_choice_made(choice))
        log_batches(unet, &batch, choice);
    return 0;
}

/* How many tiles of this shape to run next, of so many. */
static uint32_t chunk_size(struct unet *unet, const struct unetserve_shape *shape, uint64_t waiting)
{
    uint32_t most = chunk_most(unet, height_of(shape), width_of(shape));
    uint32_t some = waiting < most ? (uint32_t)waiting : most;
    return unet->choices
               ? batch_choice_next(find_choice(unet, height_of(shape), width_of(shape)), some)
               : most;
}

uint32_t unet_together(struct unet *unet, const struct unetserve_shape *shape, uint32_t waiting,
                       bool *settled)
{
    if (shape->rank != 3 && shape->rank != 4)
        return 1;
    *settled = unet->choices &&
               batch_choice_made(find_choice(unet, height_of(shape), width_of(shape)));
    return unet->choices ? chunk_size(unet, shape, waiting) : unet->max_batch;
}

/* Items on their way through the network. */
struct run {
    uint64_t left;   /* tiles that are still to come */
    uint32_t wanted; /* of them, in this chunk */
    uint32_t filled;
};

/* Add an item's tiles to the chunk; whenever it is full, run it. */
static int run_item(struct unet *unet, struct unetserve_item *item, struct run *run)
{
    struct tiles tiles = {0};
    int failure = lay_out(unet, item, &tiles);
    for (uint64_t i = 0; i < tiles.count && !failure; i++) {
        if (cancelled(unet, item))
            return 0; /* the worker drops its answer, whatever of it is there */
        if (run->filled == 0)
            run->wanted = chunk_size(unet, &item->input_shape, run->left);
        unet->inputs[run->filled] = (const char *)item->input + i * tiles.input_stride;
        unet->labels[run->filled] = (uint8_t *)item->output + i * tiles.output_stride;
        run->filled++;
        run->left -= run->left > 0;
        if (run->filled >= run->wanted)
            failure = run_chunk(unet, &item->input_shape, &run->filled);
    }
    return failure;
}

static int run_items(struct unet *unet, struct unetserve_item *const *items, size_t count)
{
    struct run run = {.left = 0};
    for (size_t i = 0; i < count; i++) {
        const struct unetserve_shape *shape = &items[i]->input_shape;
        uint64_t tiles = shape->rank == 4 ? shape->dims[0] : 1;
        run.left = tiles > UINT64_MAX - run.left ? UINT64_MAX : run.left + tiles;
    }
    for (size_t i = 0; i < count; i++) {
        int failure = run_item(unet, items[i], &run);
        if (failure)
            return failure;
    }
    return count ? run_chunk(unet, &items[0]->input_shape, &run.filled) : 0;
}

/* Nobody waits but for room. What fails leaves nothing behind that still writes to the items. */
static int begin_items(struct unet *unet, struct unetserve_item *const *items, size_t count)
{
    int failure = flights_make_room(&unet->flights);
    if (failure)
        return failure;
    unet->mark = 0;
    failure = run_items(unet, items, count);
    if (unet->mark && !failure) {
        flights_add(&unet->flights, items, count, unet->mark);
        return UNETSERVE_PENDING;
    }
    int ended = unet->mark ? flights_wait(&unet->flights, unet->mark) : 0;
    return ended ? ended : failure;
}

int unet_predict(struct unet *unet, struct unetserve_item *const *items, size_t count)
{
    unet->waits = !flights_take(&unet->flights, count);
    if (!unet->waits)
        return begin_items(unet, items, count);
    int failure = run_items(unet, items, count);
    int landed = flights_wait(&unet->flights, 0); /* those before it have ended, too */
    return failure ? failure : landed;
}
