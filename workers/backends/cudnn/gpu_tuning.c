#include "gpu_tuning.h"

#include "workers/backends/clock.h"
#include "workers/backends/packed_cache.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Raise it when the same device would be measured otherwise. */
#define TUNING_VERSION 1u
#define MOST_CONVS     512
#define OTHERS_WAIT_MS 60000u
#define NOTE_BYTES     600

struct gpu_tuned {
    struct gpu_conv_shape shape;
    struct gpu_engine engine; /* if known */
    bool known;
    bool first; /* of those measured now: it is also the heuristics' choice */
};

/* What open works with. */
struct tuner {
    struct gpu_device *device;
    const struct backend_options *options;
    struct gpu_tuning tuning;
    struct packed_hash key;
};

static void say(const struct tuner *t, int level, const char *text)
{
    if (t->options->log != NULL && text[0] != '\0') {
        t->options->log(t->options->opaque, level, text);
    }
}

/* ---- which convolutions ---- */

static bool is_listed(const struct gpu_tuning *tuning, const struct gpu_conv_shape *shape)
{
    for (size_t i = 0; i < tuning->count; i++) {
        if (memcmp(&tuning->convs[i].shape, shape, sizeof *shape) == 0) {
            return true;
        }
    }
    return false;
}

static int list_convs(const struct network *network, enum gpu_type type, uint32_t count,
                      uint32_t size, struct gpu_tuning *tuning)
{
    struct gpu_layout layout;
    int code = gpu_layout_create(network, type, count, size, size, &layout);
    if (code != 0) {
        return code;
    }
    for (size_t i = 0; i < layout.step_count; i++) {
        const struct gpu_step *step = &layout.steps[i];
        if (step->kind != GPU_STEP_CONV || tuning->count == MOST_CONVS) {
            continue;
        }
        struct gpu_conv_shape shape = gpu_plan_shape(network, &layout, step);
        if (!is_listed(tuning, &shape)) {
            tuning->convs[tuning->count++].shape = shape;
        }
    }
    gpu_layout_free(&layout);
    return 0;
}

/* ---- what is kept ---- */

/* All of it is set, so that padding plays no part. */
struct key_numbers {
    struct packed_hash convs;
    char device[128];
    char program[16];
    uint64_t cudnn;
    int32_t driver;
    int32_t capability;
    int32_t processors;
    uint32_t format;
};

static struct packed_hash hash_shape(const struct gpu_conv_shape *shape)
{
    return packed_hash_of(shape, sizeof *shape);
}

static struct packed_hash make_key(const struct gpu_device *device, const struct gpu_tuning *tuning)
{
    struct packed_hash hashes[MOST_CONVS];
    struct key_numbers key;
    for (size_t i = 0; i < tuning->count; i++) {
        hashes[i] = hash_shape(&tuning->convs[i].shape);
    }
    memset(&key, 0, sizeof key);
    key.convs = packed_hash_of(hashes, tuning->count * sizeof hashes[0]);
    snprintf(key.device, sizeof key.device, "%s", device->name);
    snprintf(key.program, sizeof key.program, "%s", UNETSERVE_VERSION);
    key.cudnn = device->place.cudnn->version;
    key.driver = device->driver->version;
    key.capability = device->capability;
    key.processors = device->processors;
    key.format = TUNING_VERSION;
    return packed_hash_of(&key, sizeof key);
}

static bool take_engine(const struct packed_view *view, struct gpu_tuned *conv, size_t *bad)
{
    struct packed_hash form = hash_shape(&conv->shape);
    const struct packed_section *found = packed_file_find(view, 0, PACKED_ENGINE, &form);
    if (found == NULL) {
        return false;
    }
    conv->known = gpu_engine_read(view->data + found->offset, (size_t)found->bytes,
                                  &conv->engine) == 0;
    *bad += !conv->known;
    return conv->known;
}

/* Take over what is kept; true: of every convolution. text gets what is wrong with the file. */
static bool take_kept(struct tuner *t, char *text, size_t size)
{
    struct packed_map map;
    size_t known = 0;
    size_t bad = 0;
    if (packed_cache_map(t->options->cache_dir, &t->key, &map, text, size) != 0) {
        return false;
    }
    for (size_t i = 0; i < t->tuning.count; i++) {
        known += take_engine(&map.view, &t->tuning.convs[i], &bad);
    }
    packed_cache_unmap(&map);
    if (bad > 0) {
        snprintf(text, size, "of the engines kept in %s %zu are none", t->options->cache_dir, bad);
    } else if (known == t->tuning.count) {
        char done[NOTE_BYTES];
        snprintf(done, sizeof done, "engines for %zu convolutions read from %s", known,
                 t->options->cache_dir);
        say(t, 6, done);
    }
    return known == t->tuning.count;
}

static void keep(const struct tuner *t, struct packed_draft *draft)
{
    const struct gpu_tuning *tuning = &t->tuning;
    struct packed_section sections[MOST_CONVS];
    const void *pieces[MOST_CONVS];
    uint8_t(*records)[GPU_ENGINE_MOST_BYTES] = calloc(MOST_CONVS, sizeof *records);
    char text[NOTE_BYTES] = "out of memory";
    size_t count = 0;
    for (size_t i = 0; records != NULL && i < tuning->count; i++) {
        const struct gpu_tuned *conv = &tuning->convs[i];
        if (conv->known) {
            sections[count] = (struct packed_section){
                .part = PACKED_ENGINE,
                .form = hash_shape(&conv->shape),
                .bytes = gpu_engine_write(&conv->engine, records[count])};
            pieces[count] = records[count];
            count++;
        }
    }
    if (count == 0) {
        packed_cache_abandon(draft);
    } else if (packed_cache_commit(draft, sections, pieces, count, text, sizeof text) != 0) {
        say(t, 4, text);
    }
    free(records);
}

/* ---- measuring ---- */

static void say_measured(const struct tuner *t, const struct gpu_timing *timing, size_t measured,
                         size_t others, uint64_t took_ms)
{
    char text[NOTE_BYTES];
    size_t left = 0;
    for (size_t i = 0; i < t->tuning.count; i++) {
        left += !t->tuning.convs[i].known;
    }
    snprintf(text, sizeof text,
             "%u plans for %zu convolutions timed in %.1f s, %u failed: %zu run on another engine "
             "than cuDNN's first, %zu are left to cuDNN",
             timing->plans, measured, (double)took_ms * 1e-3, timing->dropped, others, left);
    say(t, 6, text);
}

static int measure_convs(struct tuner *t, struct gpu_timing *timing)
{
    uint64_t begun_ns = clock_now_ns();
    uint64_t most_ns = UINT64_C(1000000000) * (uint64_t)(t->options->timing_s > 0
                                                             ? t->options->timing_s
                                                             : GPU_TUNING_SECONDS);
    size_t measured = 0;
    size_t others = 0;
    for (size_t i = 0; i < t->tuning.count; i++) {
        struct gpu_tuned *conv = &t->tuning.convs[i];
        if (conv->known || clock_now_ns() - begun_ns > most_ns) {
            continue;
        }
        int code = gpu_timing_best(timing, &conv->shape, &conv->engine, &conv->first);
        if (code == -EIO) {
            return code;
        }
        conv->known = code == 0;
        measured += conv->known;
        others += conv->known && !conv->first;
        if (t->options->tick != NULL) {
            t->options->tick(t->options->opaque);
        }
    }
    say_measured(t, timing, measured, others, (clock_now_ns() - begun_ns) / 1000000);
    return 0;
}

static int measure(struct tuner *t)
{
    struct gpu_timing timing;
    int code = gpu_timing_open(t->device, &timing);
    if (code == 0) {
        code = measure_convs(t, &timing);
        gpu_timing_close(&timing);
    }
    return code;
}

/* One worker measures; the others wait for its lock, and for what it writes. */
static int tune(struct tuner *t)
{
    char text[NOTE_BYTES] = "";
    char reason[NOTE_BYTES] = "";
    struct packed_draft draft;
    if (take_kept(t, text, sizeof text)) {
        return 0;
    }
    if (t->options->no_timing) {
        say(t, 6, "engines are cuDNN's choice: none are kept here, and none are to be timed");
        return 0;
    }
    int code = packed_cache_begin(t->options->cache_dir, &t->key, OTHERS_WAIT_MS, t->options->tick,
                                  t->options->opaque, &draft, reason, sizeof reason);
    if (code == -EEXIST) {
        (void)take_kept(t, reason, sizeof reason);
        return 0;
    }
    if (code != 0) {
        say(t, 4, reason);
        return 0;
    }
    if (take_kept(t, text, sizeof text)) {
        packed_cache_abandon(&draft);
        return 0;
    }
    say(t, 4, text);
    code = measure(t);
    if (code == 0) {
        keep(t, &draft);
    } else {
        packed_cache_abandon(&draft);
    }
    return code;
}

int gpu_tuning_open(struct gpu_device *device, const struct network *network, enum gpu_type type,
                    const struct backend_options *options, uint32_t size, uint32_t most_tiles,
                    struct gpu_tuning *out)
{
    struct tuner t = {.device = device, .options = options};
    if (options->cache_dir == NULL) {
        *out = t.tuning;
        return 0;
    }
    t.tuning.convs = (struct gpu_tuned *)calloc(MOST_CONVS, sizeof *t.tuning.convs);
    int code = t.tuning.convs != NULL ? 0 : -ENOMEM;
    if (code == 0) {
        code = list_convs(network, type, 1, size, &t.tuning);
    }
    if (code == 0 && most_tiles > 1) {
        code = list_convs(network, type, most_tiles, size, &t.tuning);
    }
    if (code == 0 && t.tuning.count > 0) {
        t.key = make_key(device, &t.tuning);
        code = tune(&t);
    }
    if (code != 0) {
        gpu_tuning_close(&t.tuning);
        return code;
    }
    *out = t.tuning;
    return 0;
}

void gpu_tuning_close(struct gpu_tuning *tuning)
{
    free(tuning->convs);
    *tuning = (struct gpu_tuning){.convs = NULL};
}

static int64_t distance(const struct gpu_tuned *conv, const struct gpu_conv_shape *shape)
{
    struct gpu_conv_shape other = *shape;
    int64_t more = conv->shape.count - shape->count;
    other.count = conv->shape.count;
    bool same = conv->known && memcmp(&conv->shape, &other, sizeof other) == 0;
    return !same ? INT64_MAX : more < 0 ? -more : more;
}

bool gpu_tuning_find(void *opaque, const struct gpu_conv_shape *shape, struct gpu_engine *out)
{
    const struct gpu_tuning *tuning = (const struct gpu_tuning *)opaque;
    const struct gpu_tuned *nearest = NULL;
    int64_t best = INT64_MAX;
    for (size_t i = 0; i < tuning->count; i++) {
        int64_t away = distance(&tuning->convs[i], shape);
        if (away < best) {
            nearest = &tuning->convs[i];
            best = away;
        }
    }
    if (nearest != NULL) {
        *out = nearest->engine;
    }
    return nearest != NULL;
}
