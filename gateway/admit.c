#include "gateway/admit.h"

#include "gateway/metrics.h"

void admit_init(struct admit *admit, const struct queue *queue, const struct config *config)
{
    *admit = (struct admit){
        .queue = queue,
        .config = config,
        .rate = admission_rate_of(config->rate_limit_milli, config->rate_burst),
    };
}

int admit_rate(const struct admit *admit, const struct client *client, struct problem *problem)
{
    if (admit->rate.interval_us == 0)
        return 0;
    struct admission *table = admit->queue->admission;
    struct client block = client_block(client);
    uint64_t hash = admission_hash(table, &block, sizeof block);
    uint64_t wait_us = admission_take(table, &admit->rate, hash, queue_now_ns() / 1000);
    if (wait_us == 0)
        return 0;
    metrics_refused(COUNTERS_REFUSED_RATE);
    uint32_t wait_s = (uint32_t)((wait_us + 999999) / 1000000);
    problem_set(problem, 429, "Too many requests: %g a second are allowed, try again in %u s",
                admit->config->rate_limit_milli / 1000.0, wait_s);
    problem->retry_after_s = wait_s;
    return -1;
}
