#include "gateway/metrics.h"

/* Where nobody looks: until metrics_open, and in tests of other things. */
static struct counters nowhere;
static struct counters *mine = &nowhere;

void metrics_open(const struct seat *seat)
{
    mine = seat_counters(seat);
    counter_set(&mine->connections_open, 0);
    counter_set(&mine->requests_open, 0);
}

static struct counters_model *of_model(uint32_t model)
{
    return &mine->models[model < COUNTERS_MAX_MODELS ? model : COUNTERS_NO_MODEL];
}

void metrics_connections(uint32_t open)
{
    counter_set(&mine->connections_open, open);
}

void metrics_connection_made(void)
{
    counter_add(&mine->connections, 1);
}

void metrics_received(size_t bytes)
{
    counter_add(&mine->received_bytes, bytes);
}

void metrics_body(uint64_t bytes, uint64_t copied)
{
    counter_add(&mine->body_bytes, bytes);
    counter_add(&mine->copied_bytes, copied);
}

void metrics_request_begun(void)
{
    counter_add(&mine->requests_open, 1);
}

void metrics_request_ended(uint32_t model, bool answered)
{
    counter_add(&mine->requests_open, UINT64_MAX); /* one less */
    if (!answered)
        counter_add(&of_model(model)->abandoned, 1);
}

void metrics_answered(uint32_t model, int status, size_t body_bytes)
{
    counter_add(&of_model(model)->answers[counters_status(status)], 1);
    counter_add(&mine->answered_bytes, body_bytes);
}

void metrics_streamed(size_t bytes)
{
    counter_add(&mine->answered_bytes, bytes);
}

void metrics_refused(enum counters_refusal why)
{
    counter_add(&mine->refusals[why], 1);
}

void metrics_turned_away(uint32_t model, enum counters_refusal why)
{
    metrics_refused(why);
    counter_add(&of_model(model)->arrived, 1);
}

void metrics_job_refused(uint32_t model, int status)
{
    if (status == 413)
        metrics_refused(COUNTERS_REFUSED_SIZE);
    else if (status == 503)
        metrics_turned_away(model, COUNTERS_REFUSED_SLOTS);
}

void metrics_accepted(uint32_t model)
{
    counter_add(&of_model(model)->arrived, 1);
}

static void observe(struct counters_model *counts, enum counters_time time, double ms)
{
    /* Negative and not-a-number become 0. */
    uint64_t ns = ms > 0 ? (uint64_t)(ms * 1e6) : 0;
    counters_observe(&counts->times[time], counters_time_bounds, ns);
}

void metrics_job(uint32_t model, uint64_t begun_ns, const struct job_outcome *outcome)
{
    struct counters_model *counts = of_model(model);
    const struct job_times *times = &outcome->times;
    uint64_t took_ns = queue_now_ns() - begun_ns;
    counters_observe(&counts->times[COUNTERS_TIME_REQUEST], counters_time_bounds, took_ns);
    observe(counts, COUNTERS_TIME_RECEIVE, times->receive_ms);
    observe(counts, COUNTERS_TIME_QUEUE, times->queue_ms);
    /* Whatever ran took time. */
    if (!(times->forward_ms > 0))
        return;
    observe(counts, COUNTERS_TIME_FORWARD, times->forward_ms);
    observe(counts, COUNTERS_TIME_ENCODE, times->encode_ms);
}
