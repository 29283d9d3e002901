#include "supervisor/autoscale.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define SLACK          0.5 /* of the target: the waiting work that needs nobody more */
#define QUEUE_SHARE    0.5 /* of the target, in which what is more than that is to be worked off */
#define RATE_MEMORY_S  1.5
#define MARGIN         0.5 /* workers, where a start takes MARGIN_FULL_S or more */
#define MARGIN_NONE_S  0.3
#define MARGIN_FULL_S  1.0
#define HOLD_STARTS    1.25
#define SERVICE_MEMORY 32.0 /* requests */
#define HELD_SERVICES                                                                              \
    3.0 /* a run that lasts longer than so many of those before is another kind                    \
         */

/* What a count has grown by; the highest value seen is kept in *last. */
static uint64_t growth(uint64_t now, uint64_t *last)
{
    if (now <= *last)
        return 0;
    uint64_t by = now - *last;
    *last = now;
    return by;
}

static void learn(const struct autoscale_metrics *metrics, double now_s,
                  struct autoscale_state *state)
{
    double elapsed = now_s - state->now_s;
    if (elapsed <= 0)
        return;
    double arrived = (double)growth(metrics->arrivals, &state->last.arrivals);
    state->rate += (arrived / elapsed - state->rate) * (1 - exp(-elapsed / RATE_MEMORY_S));
    /* Requests may end in a later call than their time is counted in: both wait for each other. */
    if (metrics->served > state->last.served && metrics->busy_ns > state->last.busy_ns) {
        double served = (double)growth(metrics->served, &state->last.served);
        double seconds = (double)growth(metrics->busy_ns, &state->last.busy_ns) * 1e-9 / served;
        double weight = state->service_s > 0 ? 1 - exp(-served / SERVICE_MEMORY) : 1;
        state->service_s += (seconds - state->service_s) * weight;
    }
    state->now_s = now_s;
}

static uint32_t within(double workers, const struct autoscale_limits *limits)
{
    if (workers <= limits->least)
        return limits->least;
    return workers >= limits->most ? limits->most : (uint32_t)workers;
}

/* The largest of what was asked within the hold-down. */
static uint32_t hold(uint32_t asked, double hold_s, struct autoscale_state *state)
{
    uint32_t most = asked;
    uint64_t part = hold_s > 0 ? (uint64_t)(state->now_s * (AUTOSCALE_HOLD - 1) / hold_s) : 0;
    if (hold_s <= 0 || part - state->part >= AUTOSCALE_HOLD)
        memset(state->held, 0, sizeof state->held);
    else
        for (uint64_t p = state->part + 1; p <= part; p++)
            state->held[p % AUTOSCALE_HOLD] = 0;
    state->part = part;
    if (asked > state->held[part % AUTOSCALE_HOLD])
        state->held[part % AUTOSCALE_HOLD] = asked;
    for (unsigned i = 0; i < AUTOSCALE_HOLD; i++)
        if (state->held[i] > most)
            most = state->held[i];
    return most;
}

/* Present workers that cannot be counted on: nobody knows when their runs will end. */
static uint32_t held_count(const struct autoscale_metrics *metrics, double target_s,
                           double service_s)
{
    uint32_t held = 0;
    for (uint32_t i = 0; i < metrics->run_count; i++)
        held += metrics->runs[i] > fmax(target_s, HELD_SERVICES * service_s);
    return held < metrics->present ? held : metrics->present;
}

static double margin(double start_s)
{
    double part = (start_s - MARGIN_NONE_S) / (MARGIN_FULL_S - MARGIN_NONE_S);
    return MARGIN * fmax(0, fmin(part, 1));
}

uint32_t autoscale_decide(const struct autoscale_metrics *metrics,
                          const struct autoscale_limits *limits, double now_s,
                          struct autoscale_state *state)
{
    learn(metrics, now_s, state);
    /* Before the first request has ended, one is thought to take as long as it may wait. */
    double service_s = state->service_s > 0 ? state->service_s : limits->target_s;
    double need = state->service_s > 0 ? state->rate * service_s : 0;
    uint32_t held = held_count(metrics, limits->target_s, state->service_s);
    uint32_t free = metrics->present ? metrics->present - held : 1;
    double excess = metrics->waiting * service_s - free * limits->target_s * SLACK;
    if (excess > 0)
        need += excess / (limits->target_s * QUEUE_SHARE);
    double workers = ceil(need - 0.5 + margin(limits->start_s));
    bool waits = metrics->waiting && metrics->waited_s > limits->target_s * SLACK;
    if (held && (state->rate * limits->target_s >= 1 || waits))
        workers = fmax(workers, 1);
    state->asked = within(held + workers, limits);
    double hold_s = fmax(limits->hold_s, HOLD_STARTS * limits->start_s);
    uint32_t most = hold(state->asked, hold_s, state);
    /* Holding keeps what is there; it starts nothing. */
    uint32_t kept = most < metrics->present ? most : metrics->present;
    return within(state->asked > kept ? state->asked : kept, limits);
}
