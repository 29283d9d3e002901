#include "unetserve/counters.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define MS UINT64_C(1000000)

_Static_assert(sizeof(counter) == 8, "counters are of fixed width");
_Static_assert(sizeof(struct counters_seat) == 64, "layout");
_Static_assert(sizeof(struct counters) % 64 == 0, "blocks do not share cache lines");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "counters are shared between processes");

const uint64_t counters_time_bounds[COUNTERS_BUCKETS] = {
    MS / 10,   MS / 4,    MS / 2,    MS,         MS * 5 / 2, MS * 5,
    MS * 10,   MS * 25,   MS * 50,   MS * 100,   MS * 250,   MS * 500,
    MS * 1000, MS * 2500, MS * 5000, MS * 10000, MS * 30000, UINT64_MAX,
};

const uint64_t counters_batch_bounds[COUNTERS_BUCKETS] = {
    1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 128, 256, 512, UINT64_MAX,
};

/* 0: 200. 1 to 100: 400 to 499. 101 to 113: 500 to 512. 114: others. */
unsigned counters_status(int status)
{
    if (status == 200)
        return 0;
    return status >= 400 && status <= 512 ? (unsigned)status - 399 : COUNTERS_STATUSES - 1;
}

int counters_status_of(unsigned place)
{
    if (place == 0)
        return 200;
    return place < COUNTERS_STATUSES - 1 ? (int)place + 399 : 0;
}

void counters_observe(struct counters_histogram *histogram, const uint64_t bounds[COUNTERS_BUCKETS],
                      uint64_t value)
{
    unsigned bucket = 0;
    while (bucket < COUNTERS_BUCKETS - 1 && value > bounds[bucket])
        bucket++;
    counter_add(&histogram->sum, value);
    counter_add(&histogram->buckets[bucket], 1);
}

static void histogram_sum(struct counters_histogram *total,
                          const struct counters_histogram *histogram)
{
    counter_add(&total->sum, counter_read(&histogram->sum));
    for (unsigned i = 0; i < COUNTERS_BUCKETS; i++)
        counter_add(&total->buckets[i], counter_read(&histogram->buckets[i]));
}

static void model_sum(struct counters_model *total, const struct counters_model *model)
{
    for (unsigned i = 0; i < COUNTERS_STATUSES; i++)
        counter_add(&total->answers[i], counter_read(&model->answers[i]));
    counter_add(&total->abandoned, counter_read(&model->abandoned));
    counter_add(&total->arrived, counter_read(&model->arrived));
    for (unsigned i = 0; i < COUNTERS_TIME_COUNT; i++)
        histogram_sum(&total->times[i], &model->times[i]);
    histogram_sum(&total->batch, &model->batch);
    counter_add(&total->busy_ns, counter_read(&model->busy_ns));
    counter_add(&total->handed_over, counter_read(&model->handed_over));
}

void counters_sum(struct counters *total, const struct counters *block)
{
    counter_add(&total->received_bytes, counter_read(&block->received_bytes));
    counter_add(&total->answered_bytes, counter_read(&block->answered_bytes));
    counter_add(&total->body_bytes, counter_read(&block->body_bytes));
    counter_add(&total->copied_bytes, counter_read(&block->copied_bytes));
    counter_add(&total->connections, counter_read(&block->connections));
    for (unsigned i = 0; i < COUNTERS_REFUSAL_COUNT; i++)
        counter_add(&total->refusals[i], counter_read(&block->refusals[i]));
    counter_add(&total->connections_open, counter_read(&block->connections_open));
    counter_add(&total->requests_open, counter_read(&block->requests_open));
    for (unsigned i = 0; i <= COUNTERS_MAX_MODELS; i++)
        model_sum(&total->models[i], &block->models[i]);
}

static bool own_name_fits(const char *name, enum counters_kind kind)
{
    size_t size = strlen(name);
    if (size == 0 || size >= sizeof((struct counters_own *)0)->name ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != size)
        return false;
    bool total = size > 6 && strcmp(name + size - 6, "_total") == 0;
    return total == (kind == COUNTERS_COUNTER);
}

static struct counters_own *own_find(struct counters *block, uint32_t model, const char *name)
{
    for (unsigned i = 0; i < COUNTERS_OWN_MAX; i++) {
        struct counters_own *own = &block->own[i];
        if (atomic_load_explicit(&own->kind, memory_order_relaxed) == COUNTERS_UNUSED ||
            (own->model == model && strcmp(own->name, name) == 0))
            return own;
    }
    return NULL;
}

static double own_value(const struct counters_own *own)
{
    uint64_t bits = counter_read(&own->bits);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void own_store(struct counters_own *own, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    counter_set(&own->bits, bits);
}

int counters_own_set(struct counters *block, uint32_t model, const char *name,
                     enum counters_kind kind, double value)
{
    bool adds = kind == COUNTERS_COUNTER;
    if (!own_name_fits(name, kind) || !isfinite(value) || (adds && value < 0))
        return -EINVAL;
    struct counters_own *own = own_find(block, model, name);
    if (!own)
        return -ENOSPC;
    bool fresh = atomic_load_explicit(&own->kind, memory_order_relaxed) == COUNTERS_UNUSED;
    own_store(own, adds && !fresh ? own_value(own) + value : value);
    if (fresh) {
        own->model = model;
        memcpy(own->name, name, strlen(name) + 1);
        atomic_store_explicit(&own->kind, kind, memory_order_release);
    }
    return 0;
}

void counters_own_begin(struct counters *block)
{
    for (unsigned i = 0; i < COUNTERS_OWN_MAX; i++)
        if (atomic_load_explicit(&block->own[i].kind, memory_order_relaxed) == COUNTERS_GAUGE)
            own_store(&block->own[i], 0);
}

bool counters_own_read(const struct counters_own *own, struct counters_own_view *out)
{
    uint32_t kind = atomic_load_explicit(&own->kind, memory_order_acquire);
    if (kind != COUNTERS_COUNTER && kind != COUNTERS_GAUGE)
        return false;
    memcpy(out->name, own->name, sizeof out->name);
    out->name[sizeof out->name - 1] = '\0';
    out->kind = (enum counters_kind)kind;
    out->model = own->model;
    out->value = own_value(own);
    return own_name_fits(out->name, out->kind) && isfinite(out->value);
}
