/*
 * /metrics: the blocks of all seats added up, the tables looked through, and written as text. One
 * family after the other, each with its HELP and TYPE; labels in a fixed order; a series of a
 * status appears with its first answer.
 */
#include "gateway/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum worker_state { STARTING, READY, DRAINING, CONDEMNED, WORKER_STATES };

struct view {
    FILE *out;
    const struct models *models;
    struct counters *total;
    char names[COUNTERS_MAX_MODELS + 1][160]; /* escaped; the last: "" */
    uint32_t model_count;
    uint64_t slots[QUEUE_STATE_COUNT];
    uint64_t waiting[COUNTERS_MAX_MODELS], running[COUNTERS_MAX_MODELS];
    uint64_t workers[COUNTERS_MAX_MODELS][WORKER_STATES];
};

/* ---- looking ---- */

/* As a label's value is written. */
static void escape(const char *text, size_t most, char *out, size_t size)
{
    size_t at = 0;
    for (size_t i = 0; i < most && text[i] && at + 3 <= size; i++) {
        bool escaped = text[i] == '\\' || text[i] == '"' || text[i] == '\n';
        if (escaped)
            out[at++] = '\\';
        out[at++] = text[i] == '\n' ? 'n' : text[i];
    }
    out[at] = '\0';
}

static uint32_t role_of(const struct queue *queue, uint32_t seat)
{
    return atomic_load_explicit(&queue->seats[seat].role, memory_order_relaxed);
}

/* A dead process's connections, requests and own gauges are gone with it, whatever they say. */
static bool seat_taken(const struct queue *queue, uint32_t seat, enum queue_role role)
{
    for (uint32_t i = 0; (i = queue_process_next(queue, i));)
        if (queue_process_is(queue, i, role) &&
            atomic_load_explicit(&queue->processes[i].seat, memory_order_relaxed) == seat)
            return true;
    return false;
}

void metrics_total(const struct queue *queue, struct counters *total)
{
    memset(total, 0, sizeof *total);
    for (uint32_t seat = 0; seat < COUNTERS_MAX_SEATS; seat++) {
        uint32_t role = role_of(queue, seat);
        if (role != QUEUE_GATEWAY && role != QUEUE_WORKER)
            continue; /* what is never written is never read either, so it takes no memory */
        uint64_t connections = counter_read(&total->connections_open);
        uint64_t requests = counter_read(&total->requests_open);
        counters_sum(total, &queue->counters[seat]);
        if (role == QUEUE_GATEWAY && seat_taken(queue, seat, role))
            continue;
        counter_set(&total->connections_open, connections);
        counter_set(&total->requests_open, requests);
    }
}

static void look_at_slots(struct view *view, const struct queue *queue)
{
    for (uint32_t slot = 0; slot < queue->slot_count; slot++) {
        unsigned state = queue_word_state(queue_word(queue, slot));
        if (state >= QUEUE_STATE_COUNT)
            continue;
        view->slots[state]++;
        uint32_t model = atomic_load_explicit(&queue->slots[slot].model, memory_order_relaxed);
        if (model >= view->model_count)
            continue;
        view->waiting[model] += state == QUEUE_READY || state == QUEUE_LEASED;
        view->running[model] += state == QUEUE_RUN || state == QUEUE_STREAM;
    }
}

static enum worker_state worker_state(const struct queue_process *process)
{
    if (atomic_load_explicit(&process->life, memory_order_relaxed) == QUEUE_CONDEMNED)
        return CONDEMNED;
    if (atomic_load_explicit(&process->draining, memory_order_relaxed))
        return DRAINING;
    return atomic_load_explicit(&process->ready, memory_order_relaxed) ? READY : STARTING;
}

static void look_at_workers(struct view *view, const struct queue *queue)
{
    for (uint32_t i = 0; (i = queue_process_next(queue, i));) {
        const struct queue_process *process = &queue->processes[i];
        uint32_t model = atomic_load_explicit(&process->model, memory_order_relaxed);
        if (queue_process_is(queue, i, QUEUE_WORKER) && model < view->model_count)
            view->workers[model][worker_state(process)]++;
    }
}

static void look(struct view *view)
{
    const struct queue *queue = view->models->queue;
    const struct config *config = view->models->config;
    view->model_count = config->model_count < COUNTERS_MAX_MODELS ? config->model_count
                                                                  : COUNTERS_MAX_MODELS;
    for (uint32_t i = 0; i < view->model_count; i++)
        escape(config->models[i].name, sizeof config->models[i].name, view->names[i],
               sizeof view->names[i]);
    metrics_total(queue, view->total);
    look_at_slots(view, queue);
    look_at_workers(view, queue);
}

/* ---- writing ---- */

static void family(const struct view *view, const char *name, const char *type, const char *help)
{
    fprintf(view->out, "# HELP unetserve_%s %s\n# TYPE unetserve_%s %s\n", name, help, name, type);
}

static void plain(const struct view *view, const char *name, const char *type, const char *help,
                  uint64_t value)
{
    family(view, name, type, help);
    fprintf(view->out, "unetserve_%s %" PRIu64 "\n", name, value);
}

static void by_model(const struct view *view, const char *name, const char *help,
                     const uint64_t *values)
{
    family(view, name, "gauge", help);
    for (uint32_t i = 0; i < view->model_count; i++)
        fprintf(view->out, "unetserve_%s{model=\"%s\"} %" PRIu64 "\n", name, view->names[i],
                values[i]);
}

/* The index of the i-th row of a block that is shown: models, and then what names none. */
static uint32_t row(const struct view *view, uint32_t i)
{
    return i < view->model_count ? i : COUNTERS_NO_MODEL;
}

static void write_answers(const struct view *view)
{
    family(view, "requests_total", "counter",
           "Answers by model and status; model is empty for pages and for what names no model.");
    for (uint32_t i = 0; i <= view->model_count; i++) {
        const struct counters_model *counts = &view->total->models[row(view, i)];
        for (unsigned place = 0; place < COUNTERS_STATUSES; place++) {
            uint64_t count = counter_read(&counts->answers[place]);
            int status = counters_status_of(place);
            if (count == 0 && status != 200)
                continue;
            fprintf(view->out, "unetserve_requests_total{model=\"%s\",code=\"",
                    view->names[row(view, i)]);
            fprintf(view->out, status ? "%d\"} " : "other\"} ", status);
            fprintf(view->out, "%" PRIu64 "\n", count);
        }
    }
}

static void write_abandoned(const struct view *view)
{
    family(view, "requests_abandoned_total", "counter",
           "Requests that ended without an answer because their client left.");
    for (uint32_t i = 0; i <= view->model_count; i++)
        fprintf(view->out, "unetserve_requests_abandoned_total{model=\"%s\"} %" PRIu64 "\n",
                view->names[row(view, i)],
                counter_read(&view->total->models[row(view, i)].abandoned));
}

static void write_arrived(const struct view *view)
{
    family(view, "requests_arrived_total", "counter",
           "Requests accepted, or refused because there was no slot or too long a wait: the load.");
    for (uint32_t i = 0; i < view->model_count; i++)
        fprintf(view->out, "unetserve_requests_arrived_total{model=\"%s\"} %" PRIu64 "\n",
                view->names[i], counter_read(&view->total->models[i].arrived));
}

static void write_refusals(const struct view *view)
{
    static const char *const names[COUNTERS_REFUSAL_COUNT] = {
#define REFUSAL_NAME(name, text) [COUNTERS_REFUSED_##name] = text,
        COUNTERS_REFUSALS(REFUSAL_NAME)
#undef REFUSAL_NAME
    };
    family(view, "refused_total", "counter",
           "Requests refused before they were accepted, by reason.");
    for (unsigned i = 0; i < COUNTERS_REFUSAL_COUNT; i++)
        fprintf(view->out, "unetserve_refused_total{reason=\"%s\"} %" PRIu64 "\n", names[i],
                counter_read(&view->total->refusals[i]));
}

/* scale: of what is observed to what is shown, ns to seconds for example. */
static void write_histogram(const struct view *view, const char *name, const char *model,
                            const struct counters_histogram *histogram,
                            const uint64_t bounds[COUNTERS_BUCKETS], double scale)
{
    uint64_t below = 0;
    for (unsigned i = 0; i < COUNTERS_BUCKETS; i++) {
        below += counter_read(&histogram->buckets[i]);
        fprintf(view->out, "unetserve_%s_bucket{model=\"%s\",le=\"", name, model);
        fprintf(view->out, i + 1 < COUNTERS_BUCKETS ? "%.10g" : "+Inf", (double)bounds[i] * scale);
        fprintf(view->out, "\"} %" PRIu64 "\n", below);
    }
    fprintf(view->out, "unetserve_%s_sum{model=\"%s\"} %.17g\n", name, model,
            (double)counter_read(&histogram->sum) * scale);
    fprintf(view->out, "unetserve_%s_count{model=\"%s\"} %" PRIu64 "\n", name, model, below);
}

static void write_times(const struct view *view)
{
    static const struct {
        const char *name, *help;
    } times[COUNTERS_TIME_COUNT] = {
#define TIME_ROW(name, text, help) [COUNTERS_TIME_##name] = {text "_seconds", help},
        COUNTERS_TIMES(TIME_ROW)
#undef TIME_ROW
    };
    for (unsigned time = 0; time < COUNTERS_TIME_COUNT; time++) {
        family(view, times[time].name, "histogram", times[time].help);
        for (uint32_t i = 0; i < view->model_count; i++)
            write_histogram(view, times[time].name, view->names[i],
                            &view->total->models[i].times[time], counters_time_bounds, 1e-9);
    }
}

static void write_batches(const struct view *view)
{
    family(view, "batch_tiles", "histogram", "Tiles in one run of a model.");
    for (uint32_t i = 0; i < view->model_count; i++)
        write_histogram(view, "batch_tiles", view->names[i], &view->total->models[i].batch,
                        counters_batch_bounds, 1);
    family(view, "worker_busy_seconds_total", "counter",
           "Time that workers spent in their models.");
    for (uint32_t i = 0; i < view->model_count; i++)
        fprintf(view->out, "unetserve_worker_busy_seconds_total{model=\"%s\"} %.9f\n",
                view->names[i], (double)counter_read(&view->total->models[i].busy_ns) * 1e-9);
    family(view, "jobs_handed_over_total", "counter",
           "Lone jobs that an idle worker took without the broker.");
    for (uint32_t i = 0; i < view->model_count; i++)
        fprintf(view->out, "unetserve_jobs_handed_over_total{model=\"%s\"} %" PRIu64 "\n",
                view->names[i], counter_read(&view->total->models[i].handed_over));
}

static void write_slots(const struct view *view)
{
    by_model(view, "queue_depth", "Accepted jobs that no worker has started.", view->waiting);
    by_model(view, "jobs_running", "Jobs that a worker runs.", view->running);
    family(view, "slots", "gauge", "Slots of the queue by state.");
    for (unsigned state = 0; state < QUEUE_STATE_COUNT; state++)
        fprintf(view->out, "unetserve_slots{state=\"%s\"} %" PRIu64 "\n",
                queue_state_name((enum queue_state)state), view->slots[state]);
}

static void write_workers(const struct view *view)
{
    static const char *const names[WORKER_STATES] = {"starting", "ready", "draining", "condemned"};
    uint64_t needed[COUNTERS_MAX_MODELS] = {0}, wanted[COUNTERS_MAX_MODELS] = {0};
    family(view, "workers", "gauge", "Workers by model and state.");
    for (uint32_t i = 0; i < view->model_count; i++) {
        needed[i] = models_workers_needed(&view->models->config->models[i]);
        wanted[i] = atomic_load(&view->models->queue->models[i].workers_wanted);
        for (unsigned state = 0; state < WORKER_STATES; state++)
            fprintf(view->out, "unetserve_workers{model=\"%s\",state=\"%s\"} %" PRIu64 "\n",
                    view->names[i], names[state], view->workers[i][state]);
    }
    by_model(view, "workers_wanted", "Workers that the load calls for now.", wanted);
    by_model(view, "workers_needed", "Ready workers without which /health says not ready.", needed);
}

static void by_role(const struct view *view, const char *name, const char *help,
                    const uint64_t values[QUEUE_ROLE_COUNT])
{
    static const char *const roles[QUEUE_ROLE_COUNT] = {[QUEUE_GATEWAY] = "gateway",
                                                        [QUEUE_BROKER] = "broker",
                                                        [QUEUE_WORKER] = "worker",
                                                        [QUEUE_AUTH] = "auth",
                                                        [QUEUE_GPU] = "gpu"};
    family(view, name, "counter", help);
    for (unsigned role = 0; role < QUEUE_ROLE_COUNT; role++)
        if (roles[role])
            fprintf(view->out, "unetserve_%s{role=\"%s\"} %" PRIu64 "\n", name, roles[role],
                    values[role]);
}

static void write_processes(const struct view *view)
{
    const struct queue *queue = view->models->queue;
    uint64_t starts[QUEUE_ROLE_COUNT] = {0}, deaths[QUEUE_ROLE_COUNT] = {0};
    for (uint32_t seat = 0; seat < COUNTERS_MAX_SEATS; seat++) {
        uint32_t role = role_of(queue, seat);
        if (role >= QUEUE_ROLE_COUNT)
            continue;
        starts[role] += counter_read(&queue->seats[seat].starts);
        deaths[role] += counter_read(&queue->seats[seat].deaths);
    }
    by_role(view, "process_starts_total", "Processes started, the first ones included.", starts);
    by_role(view, "process_restarts_total",
            "Processes that ended although nobody asked them to, and are started again.", deaths);
}

static void write_traffic(const struct view *view)
{
    const struct counters *total = view->total;
    plain(view, "requests_in_flight", "gauge", "Requests begun and not yet ended.",
          counter_read(&total->requests_open));
    plain(view, "connections_open", "gauge", "HTTP connections.",
          counter_read(&total->connections_open));
    plain(view, "connections_total", "counter", "HTTP connections accepted.",
          counter_read(&total->connections));
    family(view, "gateway_connections_total", "counter",
           "HTTP connections accepted, by gateway: how the kernel spreads them.");
    const struct queue *queue = view->models->queue;
    /* Their seats are the first ones; behind them sits the ZeroMQ front. */
    for (uint32_t seat = 0; seat < view->models->config->gateways && seat < COUNTERS_MAX_SEATS;
         seat++)
        if (role_of(queue, seat) == QUEUE_GATEWAY)
            fprintf(view->out,
                    "unetserve_gateway_connections_total{gateway=\"%" PRIu32 "\"} %" PRIu64 "\n",
                    seat, counter_read(&queue->counters[seat].connections));
    plain(view, "received_bytes_total", "counter",
          "Bytes of requests: heads and bodies over HTTP, messages over ZeroMQ.",
          counter_read(&total->received_bytes));
    plain(view, "answered_bytes_total", "counter", "Bytes of the bodies of answers.",
          counter_read(&total->answered_bytes));
    plain(view, "body_bytes_total", "counter", "Bytes of the bodies of accepted requests.",
          counter_read(&total->body_bytes));
    plain(view, "copied_bytes_total", "counter",
          "Bytes written for them into slots, and from slot to slot: a binary tensor's once.",
          counter_read(&total->copied_bytes));
}

static void write_server(const struct view *view)
{
    uint64_t created_ms = queue_created_unix_ms(view->models->queue);
    family(view, "build_info", "gauge", "Always 1; what runs is in the labels.");
    fprintf(view->out, "unetserve_build_info{version=\"%s\"} 1\n", UNETSERVE_VERSION);
    family(view, "start_time_seconds", "gauge", "When this server started, in Unix time.");
    fprintf(view->out, "unetserve_start_time_seconds %" PRIu64 ".%03" PRIu64 "\n",
            created_ms / 1000, created_ms % 1000);
    const struct counters_server *counted = view->models->queue->counted;
    family(view, "reloads_total", "counter", "Reloads (SIGHUP), by what became of them.");
    fprintf(view->out, "unetserve_reloads_total{outcome=\"done\"} %" PRIu64 "\n",
            counter_read(&counted->reloads));
    fprintf(view->out, "unetserve_reloads_total{outcome=\"refused\"} %" PRIu64 "\n",
            counter_read(&counted->reloads_refused));
}

/* ---- what models count ---- */

typedef bool own_visit(const struct counters_own_view *own, void *opaque);

/* Each that is in use, of all seats, until visit returns true. */
static bool for_each_own(const struct view *view, own_visit *visit, void *opaque)
{
    const struct queue *queue = view->models->queue;
    for (uint32_t seat = 0; seat < COUNTERS_MAX_SEATS; seat++) {
        if (role_of(queue, seat) != QUEUE_WORKER)
            continue;
        for (unsigned i = 0; i < COUNTERS_OWN_MAX; i++) {
            struct counters_own_view own;
            if (!counters_own_read(&queue->counters[seat].own[i], &own) ||
                own.model >= view->model_count ||
                (own.kind == COUNTERS_GAUGE && !seat_taken(queue, seat, QUEUE_WORKER)))
                continue;
            if (visit(&own, opaque))
                return true;
        }
    }
    return false;
}

struct own_names {
    char names[COUNTERS_OWN_MAX * COUNTERS_MAX_MODELS][sizeof((struct counters_own *)0)->name];
    bool counts[COUNTERS_OWN_MAX * COUNTERS_MAX_MODELS];
    uint32_t count;
};

static bool own_collect(const struct counters_own_view *own, void *opaque)
{
    struct own_names *names = opaque;
    for (uint32_t i = 0; i < names->count; i++)
        if (strcmp(names->names[i], own->name) == 0)
            return false;
    if (names->count == sizeof names->counts)
        return true;
    memcpy(names->names[names->count], own->name, sizeof own->name);
    names->counts[names->count++] = own->kind == COUNTERS_COUNTER;
    return false;
}

struct own_sum {
    const char *name;
    double sums[COUNTERS_MAX_MODELS];
    bool there[COUNTERS_MAX_MODELS];
};

static bool own_add(const struct counters_own_view *own, void *opaque)
{
    struct own_sum *sum = opaque;
    if (strcmp(sum->name, own->name) == 0) {
        sum->sums[own->model] += own->value;
        sum->there[own->model] = true;
    }
    return false;
}

static void write_own(const struct view *view)
{
    struct own_names names = {.count = 0};
    for_each_own(view, own_collect, &names);
    for (uint32_t i = 0; i < names.count; i++) {
        struct own_sum sum = {.name = names.names[i]};
        char name[64];
        for_each_own(view, own_add, &sum);
        snprintf(name, sizeof name, "model_%s", sum.name);
        family(view, name, names.counts[i] ? "counter" : "gauge", "A number of the model's own.");
        for (uint32_t model = 0; model < view->model_count; model++)
            if (sum.there[model])
                fprintf(view->out, "unetserve_%s{model=\"%s\"} %.17g\n", name, view->names[model],
                        sum.sums[model]);
    }
}

static void write_all(const struct view *view)
{
    metrics_write_gpus(view->models->queue, view->out);
    write_server(view);
    write_answers(view);
    write_abandoned(view);
    write_arrived(view);
    write_refusals(view);
    write_traffic(view);
    write_slots(view);
    write_workers(view);
    write_processes(view);
    write_times(view);
    write_batches(view);
    write_own(view);
}

char *metrics_page(const struct models *models, size_t *size)
{
    struct view view = {.models = models};
    char *text = NULL;
    bool whole = false;
    view.total = aligned_alloc(_Alignof(struct counters), sizeof *view.total);
    view.out = view.total ? open_memstream(&text, size) : NULL;
    if (view.out) {
        look(&view);
        write_all(&view);
        whole = !ferror(view.out);
        whole = fclose(view.out) == 0 && whole;
    }
    free(view.total);
    if (whole)
        return text;
    free(text);
    return NULL;
}
