#include "gateway/admit.h"

#include "gateway/metrics.h"

#define MS_NS           UINT64_C(1000000)
#define RETRY_AFTER_MAX 3600

void admit_init(struct admit *admit, const struct queue *queue, const struct config *config)
{
    *admit = (struct admit){
        .queue = queue,
        .config = config,
    };
    admit_reconfigure(admit);
}

void admit_reconfigure(struct admit *admit)
{
    admit->rate = admission_rate_of(admit->config->rate_limit_milli, admit->config->rate_burst);
}

int admit_rate(const struct admit *admit, const struct client *client, const struct api_key *key,
               struct problem *problem)
{
    bool own = key && key->has_rate;
    uint32_t rate_milli = own ? key->rate_milli : admit->config->rate_limit_milli;
    struct admission_rate rate = own ? admission_rate_of(key->rate_milli, key->burst) : admit->rate;
    if (rate.interval_us == 0)
        return 0;
    struct admission *table = admit->queue->admission;
    struct client block = client_block(client);
    uint64_t hash = admission_hash(table, &block, sizeof block);
    uint64_t wait_us = admission_take(table, &rate, hash, queue_now_ns() / 1000);
    if (wait_us == 0)
        return 0;
    metrics_refused(COUNTERS_REFUSED_RATE);
    uint32_t wait_s = (uint32_t)((wait_us + 999999) / 1000000);
    problem_set(problem, 429, "Too many requests: %g a second are allowed, try again in %u s",
                rate_milli / 1000.0, wait_s);
    problem->retry_after_s = wait_s;
    return -1;
}

/* ---- what the queue has before it ---- */

void admit_look(const struct admit *admit, uint32_t model, int32_t priority, struct admit_load *out)
{
    const struct queue *queue = admit->queue;
    *out = (struct admit_load){0};
    for (uint32_t i = 0; i < queue->slot_count; i++) {
        enum queue_state state = queue_word_state(queue_word(queue, i));
        if (state == QUEUE_RECV)
            out->receiving++;
        if (state != QUEUE_READY && state != QUEUE_LEASED && state != QUEUE_RUN &&
            state != QUEUE_STREAM)
            continue;
        if (atomic_load_explicit(&queue->slots[i].model, memory_order_relaxed) != model)
            continue;
        bool runs = state == QUEUE_RUN || state == QUEUE_STREAM;
        out->running += runs;
        out->waiting += !runs && atomic_load_explicit(&queue->slots[i].priority,
                                                      memory_order_relaxed) >= priority;
    }
}

static struct wait_work work_of(const struct queue *queue, uint32_t model)
{
    struct wait_work work = {0};
    for (uint32_t i = 0; (i = queue_process_next(queue, i));) {
        const struct queue_process *process = &queue->processes[i];
        if (!queue_process_is(queue, i, QUEUE_WORKER) ||
            atomic_load_explicit(&process->model, memory_order_relaxed) != model)
            continue;
        work.jobs += atomic_load_explicit(&process->jobs, memory_order_relaxed);
        work.busy_ns += atomic_load_explicit(&process->busy_ns, memory_order_relaxed);
    }
    return work;
}

int admit_wait(struct admit *admit, uint32_t model, const struct admit_load *load,
               uint64_t timeout_ms, struct problem *problem)
{
    struct wait_estimate *estimate = &admit->waits[model];
    uint64_t now_ns = queue_now_ns();
    if (wait_due(estimate, now_ns)) {
        struct wait_work work = work_of(admit->queue, model);
        wait_observe(estimate, &work, now_ns);
    }
    if (load->waiting + load->running == 0)
        return 0;
    struct wait_queue before = {load->waiting, load->running,
                                queue_ready_workers(admit->queue, model)};
    uint64_t wait_ms = wait_predict(estimate, &before, now_ns) / MS_NS;
    /* The model's time is for the queue alone, the client's own for the run as well. */
    uint64_t worth_ms = admit->config->models[model].timeout_ms;
    uint64_t run_ms = estimate->service_ns / MS_NS;
    if (timeout_ms && timeout_ms < worth_ms + run_ms)
        worth_ms = timeout_ms > run_ms ? timeout_ms - run_ms : 0;
    if (wait_ms <= worth_ms)
        return 0;
    metrics_turned_away(model, COUNTERS_REFUSED_WAIT);
    uint64_t later_s = (wait_ms - worth_ms + 999) / 1000;
    problem_set(problem, 503,
                "The queue is %.1f s long, and this request can wait for %.1f s: try again later",
                (double)wait_ms / 1000, (double)worth_ms / 1000);
    problem->retry_after_s = later_s < RETRY_AFTER_MAX ? (uint32_t)later_s : RETRY_AFTER_MAX;
    return -1;
}

bool admit_body(const struct admit *admit, const struct admit_load *load)
{
    uint64_t most = (uint64_t)admit->queue->slot_count * admit->config->max_receiving_percent / 100;
    bool capped = admit->config->max_receiving_percent < 100;
    return !capped || load->receiving < (most ? most : 1);
}
