#include "supervisor/scaler.h"

#include "supervisor/describe.h"
#include "supervisor/limits.h"
#include "supervisor/server.h"
#include "unetserve/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

uint32_t scaler_most(const struct config_model *model, uint32_t cores)
{
    uint32_t least = server_workers(model);
    uint32_t most = model->workers_max > least ? model->workers_max : least;
    if (most > cores && strcmp(describe_device(model), "cpu") == 0)
        most = cores > least ? cores : least;
    return most;
}

/* ---- what is seen ---- */

static void requests_see(const struct queue *queue, uint32_t model,
                         struct autoscale_metrics *metrics)
{
    for (uint32_t seat = 0; seat < SEAT_MAX; seat++) {
        uint32_t role = atomic_load_explicit(&queue->seats[seat].role, memory_order_relaxed);
        const struct counters_model *counts = &queue->counters[seat].models[model];
        if (role == QUEUE_WORKER)
            metrics->busy_ns += counter_read(&counts->busy_ns);
        if (role != QUEUE_GATEWAY)
            continue;
        metrics->arrivals += counter_read(&counts->arrived);
        for (unsigned i = 0; i < COUNTERS_BUCKETS; i++)
            metrics->served += counter_read(&counts->times[COUNTERS_TIME_FORWARD].buckets[i]);
    }
}

static double seconds_since(uint64_t then_ns, uint64_t now_ns)
{
    return then_ns && then_ns < now_ns ? (double)(now_ns - then_ns) * 1e-9 : 0;
}

/* What a process runs. */
struct run {
    uint64_t latest_ns; /* when the latest of its jobs was started */
    unsigned jobs;
};

/* One that has just begun has no time in it yet. */
static void run_add(struct run *run, const struct queue_slot *slot, uint64_t now_ns)
{
    uint64_t started_ns = atomic_load(&slot->started_ns);
    run->jobs++;
    if (!started_ns || started_ns > run->latest_ns)
        run->latest_ns = started_ns ? started_ns : now_ns;
}

/* Jobs of the model that wait, and what each process runs, by its index. */
static void slots_see(const struct queue *queue, uint32_t model, uint64_t now_ns,
                      struct run runs[QUEUE_MAX_PROCESSES], struct autoscale_metrics *metrics)
{
    for (uint32_t i = 0; i < queue->slot_count; i++) {
        const struct queue_slot *slot = &queue->slots[i];
        uint64_t word = queue_word(queue, i);
        enum queue_state state = queue_word_state(word);
        uint16_t owner = queue_word_owner(word);
        if ((state == QUEUE_RUN || state == QUEUE_STREAM) && owner < QUEUE_MAX_PROCESSES)
            run_add(&runs[owner], slot, now_ns);
        if ((state != QUEUE_READY && state != QUEUE_LEASED) ||
            atomic_load_explicit(&slot->model, memory_order_relaxed) != model)
            continue;
        double waited_s = seconds_since(atomic_load(&slot->accepted_ns), now_ns);
        metrics->waiting++;
        if (waited_s > metrics->waited_s)
            metrics->waited_s = waited_s;
    }
}

/* How many jobs a worker has, begun or not. */
static unsigned jobs_held(const struct tree_seat *seat)
{
    const struct queue *queue = &seat->server->queue;
    unsigned held = 0;
    for (uint32_t slot = 0; seat->index && slot < queue->slot_count; slot++) {
        uint64_t word = queue_word(queue, slot);
        enum queue_state state = queue_word_state(word);
        held += (state == QUEUE_LEASED || state == QUEUE_RUN || state == QUEUE_STREAM) &&
                queue_word_owner(word) == seat->index;
    }
    return held;
}

static bool serves(const struct tree_seat *seat, uint32_t model)
{
    return seat->role == QUEUE_WORKER && seat->model == model && seat != seat->server->spare;
}

/* What there is to run them, and how long their latest runs have lasted, for each of the jobs in
 * them; lasted_s has room for all seats. */
static void workers_see(const struct server *server, uint32_t model, uint64_t now_ns,
                        const struct run runs[QUEUE_MAX_PROCESSES], double *lasted_s,
                        struct autoscale_metrics *metrics)
{
    metrics->runs = lasted_s;
    for (uint32_t i = 0; i < server->seat_count; i++) {
        const struct tree_seat *seat = &server->seats[i];
        if (!serves(seat, model) || !seat->want_up)
            continue;
        metrics->present++;
        const struct run *run = &runs[seat->index];
        double s = seat->index && run->jobs ? seconds_since(run->latest_ns, now_ns) / run->jobs : 0;
        if (s > 0)
            lasted_s[metrics->run_count++] = s;
    }
}

/* ---- memory ---- */

/* A line of /proc/PID/status, in bytes; 0 if it is not there. */
static uint64_t status_bytes(const char *text, const char *key)
{
    const char *line = strstr(text, key);
    uint64_t kib = 0;
    return line && sscanf(line + strlen(key), " %" SCNu64, &kib) == 1 ? kib << 10 : 0;
}

static struct scaler_footprint footprint_of(pid_t pid)
{
    char path[64];
    char text[4096];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return (struct scaler_footprint){0, 0, false};
    size_t got = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[got] = '\0';
    return (struct scaler_footprint){.own = status_bytes(text, "\nRssAnon:"),
                                     .shared = status_bytes(text, "\nRssShmem:")};
}

bool scaler_memory_fits(const struct scaler_footprint *processes, size_t count, uint64_t allowed)
{
    uint64_t used = 0, shared = 0, one_more = 0;
    for (size_t i = 0; i < count; i++) {
        used += processes[i].own;
        if (processes[i].shared > shared)
            shared = processes[i].shared;
        if (processes[i].is_alike && processes[i].own > one_more)
            one_more = processes[i].own;
    }
    return used + shared + one_more <= allowed;
}

static bool memory_fits(const struct server *server, uint32_t model)
{
    struct scaler_footprint processes[SEAT_MAX];
    size_t count = 0;
    for (uint32_t i = 0; i < server->seat_count; i++) {
        const struct tree_seat *seat = &server->seats[i];
        if (!seat_has_process(seat))
            continue;
        processes[count] = footprint_of(seat->pid);
        processes[count++].is_alike = serves(seat, model);
    }
    return scaler_memory_fits(processes, count, limits_memory());
}

/* ---- what is done ---- */

/* An idle one before one that works, the last ones first. */
static struct tree_seat *seat_to_end(struct server *server, uint32_t model)
{
    struct tree_seat *found = NULL;
    unsigned least = 0;
    for (uint32_t i = server->seat_count; i-- > 0;) {
        struct tree_seat *seat = &server->seats[i];
        if (!serves(seat, model) || !seat->extra || !seat->want_up)
            continue;
        unsigned held = jobs_held(seat);
        if (!found || held < least) {
            found = seat;
            least = held;
        }
    }
    return found;
}

static struct tree_seat *seat_to_start(struct server *server, uint32_t model)
{
    for (uint32_t i = 0; i < server->seat_count; i++)
        if (serves(&server->seats[i], model) && !server->seats[i].want_up)
            return &server->seats[i];
    return NULL;
}

static void tell(const struct server *server, uint32_t model, const char *what,
                 const struct autoscale_metrics *metrics, uint32_t wanted)
{
    const struct autoscale_state *state = &server->scalers[model].state;
    log_event(LOG_LEVEL_INFO, what, log_text("model", server->config->models[model].name),
              log_number("from", metrics->present), log_number("to", wanted),
              log_number("waiting", metrics->waiting),
              log_number("requests_per_1000_s", (int64_t)(state->rate * 1000)),
              log_number("service_us", (int64_t)(state->service_s * 1e6)),
              log_number("start_us", (int64_t)(server->scalers[model].start_s * 1e6)),
              log_number("needed_now", state->asked));
}

static void change(struct server *server, uint32_t model, const struct autoscale_metrics *metrics,
                   uint32_t wanted)
{
    struct scaler *scaler = &server->scalers[model];
    uint32_t count = metrics->present;
    for (; count > wanted; count--) {
        struct tree_seat *seat = seat_to_end(server, model);
        if (!seat)
            break;
        seat_want(seat, false); /* it drains: no more work, and it ends when it holds nothing */
    }
    for (; count < wanted; count++) {
        struct tree_seat *seat = seat_to_start(server, model);
        bool fits = memory_fits(server, model);
        if (!fits && !scaler->short_of_memory)
            log_event(LOG_LEVEL_WARNING, "no more workers: one more would not fit into the memory",
                      log_text("model", server->config->models[model].name),
                      log_number("workers", count), log_number("wanted", wanted));
        scaler->short_of_memory = !fits;
        if (!seat || !fits)
            break;
        seat_want(seat, true);
    }
    if (count != metrics->present)
        tell(server, model, count > metrics->present ? "more workers" : "fewer workers", metrics,
             count);
    atomic_store(&server->queue.models[model].workers_wanted, count);
}

static void model_look(struct server *server, uint32_t model)
{
    const struct config_model *config = &server->config->models[model];
    struct autoscale_limits limits = {
        .least = server_workers(config),
        .most = scaler_most(config, server->cores.count),
        .target_s = config->scale_wait_ms * 1e-3,
        .hold_s = config->scale_down_after_ms * 1e-3,
        .start_s = server->scalers[model].start_s,
    };
    struct autoscale_metrics metrics = {.arrivals = 0};
    struct run runs[QUEUE_MAX_PROCESSES] = {{0}};
    double lasted_s[SEAT_MAX];
    uint64_t now_ns = queue_now_ns();
    if (limits.least == limits.most)
        return;
    requests_see(&server->queue, model, &metrics);
    slots_see(&server->queue, model, now_ns, runs, &metrics);
    workers_see(server, model, now_ns, runs, lasted_s, &metrics);
    uint32_t wanted = autoscale_decide(&metrics, &limits, (double)now_ns * 1e-9,
                                       &server->scalers[model].state);
    if (wanted != metrics.present)
        change(server, model, &metrics, wanted);
}

void scaler_look(struct server *server)
{
    for (uint32_t i = 0; i < server->config->model_count; i++)
        model_look(server, i);
}

bool scaler_needed(const struct server *server)
{
    for (uint32_t i = 0; i < server->config->model_count; i++)
        if (scaler_most(&server->config->models[i], server->cores.count) >
            server_workers(&server->config->models[i]))
            return true;
    return false;
}
