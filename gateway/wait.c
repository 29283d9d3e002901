#include "gateway/wait.h"

#define SERVICE_MAX_NS (UINT64_C(24) * 3600 * 1000000000) /* so that nothing below overflows */

bool wait_due(const struct wait_estimate *estimate, uint64_t now_ns)
{
    return !estimate->begun || now_ns - estimate->looked_ns >= WAIT_SAMPLE_NS;
}

static void begin(struct wait_estimate *estimate, const struct wait_work *work, uint64_t now_ns)
{
    estimate->begun = true;
    estimate->seen = *work;
    estimate->seen_ns = now_ns;
}

void wait_observe(struct wait_estimate *estimate, const struct wait_work *work, uint64_t now_ns)
{
    estimate->looked_ns = now_ns;
    if (!estimate->begun || work->jobs < estimate->seen.jobs ||
        work->busy_ns < estimate->seen.busy_ns) {
        begin(estimate, work, now_ns);
        return;
    }
    uint64_t jobs = work->jobs - estimate->seen.jobs;
    if (jobs == 0)
        return; /* what they are busy with now is measured with the job that it belongs to */
    uint64_t each_ns = (work->busy_ns - estimate->seen.busy_ns) / jobs;
    if (each_ns > SERVICE_MAX_NS)
        each_ns = SERVICE_MAX_NS;
    uint64_t passed_ms = (now_ns - estimate->seen_ns) / 1000000;
    double share = (double)passed_ms / (double)(passed_ms + WAIT_HALF_NS / 1000000);
    double before = (double)estimate->service_ns;
    estimate->service_ns = estimate->service_ns
                               ? (uint64_t)(before + ((double)each_ns - before) * share)
                               : each_ns;
    estimate->measured_ns = now_ns;
    begin(estimate, work, now_ns);
}

static bool is_known(const struct wait_estimate *estimate, uint64_t now_ns)
{
    uint64_t keep_ns = estimate->service_ns * 4;
    if (keep_ns < WAIT_KEEP_NS)
        keep_ns = WAIT_KEEP_NS;
    return estimate->service_ns > 0 && now_ns - estimate->measured_ns <= keep_ns;
}

uint64_t wait_predict(const struct wait_estimate *estimate, const struct wait_queue *queue,
                      uint64_t now_ns)
{
    if (!is_known(estimate, now_ns) || queue->workers == 0 ||
        (uint64_t)queue->waiting + queue->running < queue->workers)
        return 0;
    /* Those that run are half done, taken together. */
    double ahead = queue->waiting + queue->running / 2.0;
    return (uint64_t)(ahead * (double)estimate->service_ns / queue->workers);
}
