#include "unetserve/counters.h"

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
    for (unsigned i = 0; i < COUNTERS_TIME_COUNT; i++)
        histogram_sum(&total->times[i], &model->times[i]);
    histogram_sum(&total->batch, &model->batch);
    counter_add(&total->busy_ns, counter_read(&model->busy_ns));
}

void counters_sum(struct counters *total, const struct counters *block)
{
    counter_add(&total->received_bytes, counter_read(&block->received_bytes));
    counter_add(&total->answered_bytes, counter_read(&block->answered_bytes));
    counter_add(&total->connections, counter_read(&block->connections));
    for (unsigned i = 0; i < COUNTERS_REFUSAL_COUNT; i++)
        counter_add(&total->refusals[i], counter_read(&block->refusals[i]));
    counter_add(&total->connections_open, counter_read(&block->connections_open));
    counter_add(&total->requests_open, counter_read(&block->requests_open));
    for (unsigned i = 0; i <= COUNTERS_MAX_MODELS; i++)
        model_sum(&total->models[i], &block->models[i]);
}
