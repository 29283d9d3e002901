#include "supervisor/reload.h"

#include "lib/config_keys.h"
#include "lib/config_oauth.h"
#include "supervisor/describe.h"
#include "supervisor/devices.h"
#include "unetserve/interface_text.h"
#include "unetserve/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <systemd/sd-daemon.h>

#define LOOK_MS       50
#define ASK_LIMIT_MS  60000
#define KEY_TEXT_MAX  8192
#define LIVE_KEYS_MAX 24
#define GATEWAY_TURNS                                                                              \
    2 /* after so many turns no gateway holds an interface that it has not pinned a slot to */

#define SPARE_TRIES 5 /* loads that fail, after which what others have published is taken back */

enum reload_phase { ASKING, NEXT, TRYING, OUTGOING, SWAPPING, CLOSING, ABORTING, RETURNING };

struct reload {
    struct server *server;
    enum reload_phase phase;
    bool advancing, again;
    bool over;                   /* to be freed when nobody is in it any more */
    struct config fresh, before; /* as asked for; as served until now */
    uint32_t model;              /* that is asked about, or taken over */
    uint64_t offered_ns;         /* processes that were started before have the old model */
    uint32_t served;             /* the generation of the old model */
    uint32_t offered;            /* the generation that those have who were started later */
    bool returning; /* it was published, and is not to be: requests go back to the old one */
    /* asking */
    struct describing describing;
    bool is_describing;
    sd_event_source *output_source, *ended_source, *limit_source;
    struct unetserve_interface interfaces[QUEUE_MAX_MODELS];
    /* outgoing */
    bool changed; /* another interface: another generation */
    uint64_t ticks[QUEUE_MAX_PROCESSES];
    /* swapping */
    uint32_t seat;
    bool restarting;
    sd_event_source *look_timer;
};

/* ---- which keys ---- */

/* Those that new worker processes are told, and the broker with them. */
static bool key_is_workers(const char *name)
{
    static const char *const names[] = {
        "path",           "python", "precision",        "convolution", "backend",      "threads",
        "max_batch_size", "tile",   "batch_timeout_ms", "batch_wait",  "engine_timing"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* Those that all processes can take over while they run. */
static bool key_is_live(bool of_model, const char *name)
{
    if (strncmp(name, "oauth_", 6) == 0)
        return true;
    static const char *const names[2][LIVE_KEYS_MAX] = {
        {"trusted_proxies",
         "rate_limit",
         "rate_burst",
         "max_connections_per_address",
         "max_receiving_percent",
         "send_timeout_ms",
         "drain_timeout_ms",
         "drain_delay_ms",
         "docs",
         "log_format",
         "log_level",
         "cors_allow_origins",
         "cors_allow_methods",
         "cors_allow_headers",
         "cors_expose_headers",
         "cors_allow_credentials",
         "cors_max_age",
         "gzip_level",
         "zstd_level",
         "compress_min_bytes"},
        {"timeout_ms", "run_timeout_ms", "scale_wait_ms", "scale_down_after_ms", "scope"},
    };
    for (size_t i = 0; i < LIVE_KEYS_MAX && names[of_model][i]; i++)
        if (strcmp(names[of_model][i], name) == 0)
            return true;
    return false;
}

static void live_keys_take(struct config *to, const struct config *from)
{
    memcpy(to->trusted_proxies, from->trusted_proxies, sizeof to->trusted_proxies);
    to->trusted_proxy_count = from->trusted_proxy_count;
    to->rate_limit_milli = from->rate_limit_milli;
    to->rate_burst = from->rate_burst;
    to->max_connections_per_address = from->max_connections_per_address;
    to->max_receiving_percent = from->max_receiving_percent;
    to->send_timeout_ms = from->send_timeout_ms;
    to->drain_timeout_ms = from->drain_timeout_ms;
    to->drain_delay_ms = from->drain_delay_ms;
    memcpy(to->docs, from->docs, sizeof to->docs);
    to->cors = from->cors;
    to->oauth = from->oauth;
    to->gzip_level = from->gzip_level;
    to->zstd_level = from->zstd_level;
    to->compress_min_bytes = from->compress_min_bytes;
    to->log_format = from->log_format;
    to->log_level = from->log_level;
    for (uint32_t i = 0; i < to->model_count; i++) {
        to->models[i].timeout_ms = from->models[i].timeout_ms;
        to->models[i].run_timeout_ms = from->models[i].run_timeout_ms;
        to->models[i].scale_wait_ms = from->models[i].scale_wait_ms;
        to->models[i].scale_down_after_ms = from->models[i].scale_down_after_ms;
        memcpy(to->models[i].scope, from->models[i].scope, sizeof to->models[i].scope);
    }
}

static bool key_differs(const struct config_key *key, const void *a, const void *b)
{
    static char texts[2][KEY_TEXT_MAX];
    config_key_write(key, a, texts[0], sizeof texts[0]);
    config_key_write(key, b, texts[1], sizeof texts[1]);
    return strcmp(texts[0], texts[1]) != 0;
}

static unsigned keys_list(bool of_model, const char *section, const void *asked, const void *fresh,
                          char *text, size_t size)
{
    unsigned count = 0;
    const struct config_key *key;
    for (size_t i = 0; (key = config_key_at(of_model, i)); i++) {
        size_t used = strlen(text);
        if ((of_model && key_is_workers(key->name)) || key_is_live(of_model, key->name) ||
            !key_differs(key, asked, fresh))
            continue;
        snprintf(text + used, size - used, "%s%s%s%s", used ? " " : "", section,
                 section[0] ? "." : "", key->name);
        count++;
    }
    return count;
}

/* "KEY ..." of those that differ and count from the next start only; how many there are. */
static unsigned keys_waiting(const struct config *asked, const struct config *fresh, char *text,
                             size_t size)
{
    text[0] = '\0';
    unsigned count = keys_list(false, "", asked, fresh, text, size);
    for (uint32_t i = 0; i < asked->model_count && i < fresh->model_count; i++)
        count += keys_list(true, asked->models[i].name, &asked->models[i], &fresh->models[i], text,
                           size);
    return count;
}

/* ---- the end ---- */

static void describing_stop(struct reload *reload)
{
    struct unetserve_interface interface;
    reload->output_source = sd_event_source_disable_unref(reload->output_source);
    reload->ended_source = sd_event_source_disable_unref(reload->ended_source);
    reload->limit_source = sd_event_source_disable_unref(reload->limit_source);
    if (reload->is_describing)
        describe_finish(&reload->fresh.models[reload->model], &reload->describing, &interface);
    reload->is_describing = false;
}

void reload_forget(struct server *server)
{
    struct reload *reload = server->reload;
    if (!reload)
        return;
    describing_stop(reload);
    reload->over = true;
    if (reload->advancing)
        return;
    sd_event_source_disable_unref(reload->look_timer);
    server->reload = NULL;
    free(reload);
}

static void refuse(struct reload *reload, const char *why, const char *model)
{
    counter_add(&reload->server->queue.counted->reloads_refused, 1);
    log_event(LOG_LEVEL_ERROR, "not reloaded", log_text("why", why), log_text("model", model));
    sd_notify(0, "READY=1\nSTATUS=serving; the last reload was refused");
    reload_forget(reload->server);
}

static bool log_differs(const struct config *a, const struct config *b)
{
    return a->log_level != b->log_level || a->log_format != b->log_format;
}

/* The broker keeps nothing that it would lose. */
static void broker_restart(struct server *server)
{
    for (uint32_t i = 0; i < server->seat_count; i++)
        if (server->seats[i].role == QUEUE_BROKER && server->seats[i].state == TREE_UP) {
            seat_want(&server->seats[i], false);
            seat_want(&server->seats[i], true);
        }
}

/* Its walls fit one configuration: another one takes another process. Without any change it reads
 * its secret again and keeps the provider's keys. */
static void auth_take(struct server *server, const struct config *before)
{
    bool wanted = config_has_oauth(server->config);
    if (!wanted || config_oauth_mark(server->config) != config_oauth_mark(before) ||
        log_differs(server->config, before))
        seat_want(server->auth, false);
    server->auth->ever_up = true; /* whatever becomes of it, the server goes on */
    if (wanted)
        seat_want(server->auth, true);
    seats_tell(server, QUEUE_AUTH);
}

static void finish(struct reload *reload)
{
    static char waiting[KEY_TEXT_MAX];
    struct server *server = reload->server;
    seats_tell(server, QUEUE_GATEWAY);
    auth_take(server, &reload->before);
    if (log_differs(server->config, &reload->before)) {
        log_init("supervisor", -1, server->config->log_format, server->config->log_level);
        broker_restart(server);
    }
    if (keys_waiting(server->asked, &reload->fresh, waiting, sizeof waiting))
        log_event(LOG_LEVEL_WARNING, "changed keys of the configuration count from the next start",
                  log_text("keys", waiting));
    counter_add(&server->queue.counted->reloads, 1);
    log_event(LOG_LEVEL_INFO, "reloaded");
    sd_notify(0, "READY=1\nSTATUS=serving, reloaded");
    reload_forget(server);
}

/* ---- trying ---- */

static bool interfaces_same(const struct unetserve_interface *a,
                            const struct unetserve_interface *b)
{
    char *texts[2] = {interface_to_json(a), interface_to_json(b)};
    bool same = texts[0] && texts[1] && strcmp(texts[0], texts[1]) == 0;
    free(texts[0]);
    free(texts[1]);
    return same;
}

static const struct tree_seat *seat_first(const struct server *server, uint32_t model)
{
    for (uint32_t i = 0; i < server->seat_count; i++)
        if (server->seats[i].role == QUEUE_WORKER && server->seats[i].model == model &&
            &server->seats[i] != server->spare)
            return &server->seats[i];
    return NULL;
}

static void worker_keys_take(struct config_model *model, const struct config_model *from)
{
    char text[KEY_TEXT_MAX];
    const struct config_key *key;
    for (size_t i = 0; (key = config_key_at(true, i)); i++)
        if (key_is_workers(key->name) && config_key_write(key, from, text, sizeof text))
            config_key_read(key, model, text, false);
    model->batch_timeout_us = from->batch_timeout_us; /* may be left to the model */
}

/* The one after the present one; in its place, beyond those that were taken back. */
static uint32_t next_generation(const struct server *server, uint32_t model)
{
    uint32_t next = server->generations[model] + 1;
    while (next <= server->taken_back[model])
        next += 2;
    return next;
}

/* Workers that start from now on load the new model; the spare does so first. */
static void offer(struct reload *reload)
{
    struct server *server = reload->server;
    uint32_t model = reload->model;
    worker_keys_take(&server->config->models[model], &reload->fresh.models[model]);
    server_publish_config(server);
    reload->served = server->generations[model];
    if (reload->changed)
        server->generations[model] = next_generation(server, model);
    reload->offered = server->generations[model];
    reload->offered_ns = queue_now_ns();
    reload->phase = TRYING;
    seat_want(server->spare, true);
}

/* The next model: the spare loads it as a worker of its first seat would. */
static void try_model(struct reload *reload)
{
    struct server *server = reload->server;
    struct tree_seat *spare = server->spare;
    uint32_t model = reload->model;
    const struct tree_seat *first = seat_first(server, model);
    reload->changed = !interfaces_same(&reload->interfaces[model], &server->interfaces[model]);
    spare->model = model;
    spare->worker = first ? first->worker : 0;
    spare->device = first ? first->device : 0;
    spare->ever_up = true; /* whatever becomes of it, the server goes on */
    spare->failures = 0;
    offer(reload);
}

static bool is_worker_of(const struct reload *reload, const struct tree_seat *seat)
{
    return seat->role == QUEUE_WORKER && seat->model == reload->model &&
           seat != reload->server->spare && seat->want_up;
}

/* One that only starts holds nothing, and would not listen until it has loaded. */
static void restart(struct tree_seat *seat)
{
    if (seat->state == TREE_STARTING) {
        seat_handle(seat, TREE_TIMEOUT);
    } else if (seat->state == TREE_UP) {
        seat_want(seat, false);
        seat_want(seat, true);
    }
}

static bool is_published(const struct reload *reload)
{
    const struct server *server = reload->server;
    return reload->changed && atomic_load(&server->queue.models[reload->model].generation) ==
                                  server->generations[reload->model];
}

/* It did not load. Workers that were replaced meanwhile may be about to load it all the same: they
 * start again, with the old one. But if one of them has published it, they stay for the requests
 * that are pinned to it. */
static void abort_model(struct reload *reload)
{
    struct server *server = reload->server;
    uint32_t model = reload->model;
    reload->returning = is_published(reload);
    server->generations[model] = reload->served;
    server->config->models[model] = reload->before.models[model];
    live_keys_take(server->config, &reload->before);
    server_publish_config(server);
    reload->phase = ABORTING;
    seat_want(server->spare, false);
    for (uint32_t i = 0; !reload->returning && i < server->seat_count; i++)
        if (is_worker_of(reload, &server->seats[i]) &&
            server->seats[i].begun_ns >= reload->offered_ns)
            restart(&server->seats[i]);
}

static void note_ticks(struct reload *reload)
{
    struct queue *queue = &reload->server->queue;
    for (uint32_t i = 0; i < QUEUE_MAX_PROCESSES; i++)
        reload->ticks[i] = atomic_load(&queue->processes[i].tick);
    seat_wake_role(queue, QUEUE_GATEWAY);
}

/* Returns whether the reload has got further. */
static bool step_trying(struct reload *reload)
{
    struct server *server = reload->server;
    enum tree_state state = server->spare->state;
    if (state == TREE_BACKOFF &&
        (!is_published(reload) || server->spare->failures >= SPARE_TRIES)) {
        abort_model(reload);
        return true;
    }
    if (state != TREE_UP)
        return false;
    server->interfaces[reload->model] = reload->interfaces[reload->model];
    server_tell_batching(server, reload->model);
    if (reload->changed)
        note_ticks(reload);
    reload->phase = reload->changed ? OUTGOING : SWAPPING;
    reload->seat = 0;
    reload->restarting = false;
    return true;
}

/* ---- outgoing ---- */

/* Does any gateway still know the old interface only? Each is given turns until it does not. */
static bool gateways_behind(const struct reload *reload)
{
    struct queue *queue = &reload->server->queue;
    bool behind = false;
    for (uint32_t i = 0; (i = queue_process_next(queue, i));)
        if (queue_process_is(queue, i, QUEUE_GATEWAY) &&
            atomic_load(&queue->processes[i].life) == QUEUE_LIVE &&
            atomic_load(&queue->processes[i].tick) - reload->ticks[i] < GATEWAY_TURNS) {
            seat_wake(queue, i);
            behind = true;
        }
    return behind;
}

static bool slots_outgoing(const struct reload *reload)
{
    const struct server *server = reload->server;
    const struct queue *queue = &server->queue;
    for (uint32_t i = 0; i < queue->slot_count; i++) {
        uint64_t word = queue_word(queue, i);
        enum queue_state state = queue_word_state(word);
        bool waits = state == QUEUE_RECV || state == QUEUE_READY || state == QUEUE_LEASED ||
                     state == QUEUE_RUN;
        if (waits && atomic_load(&queue->slots[i].model) == reload->model &&
            atomic_load(&queue->slots[i].model_generation) != server->generations[reload->model])
            return true;
    }
    return false;
}

/* First the gateways, then the slots: no slot is pinned to the old generation afterwards. The slots
 * twice: a job in RECV may pass one look by moving to a slot of a smaller number (job_submit does
 * that), but not a second one. */
static bool step_outgoing(struct reload *reload)
{
    if (gateways_behind(reload) || slots_outgoing(reload) || slots_outgoing(reload))
        return false;
    reload->phase = reload->returning ? RETURNING : SWAPPING;
    return true;
}

/* ---- swapping ---- */

static bool step_swapping(struct reload *reload)
{
    struct server *server = reload->server;
    if (reload->restarting) {
        if (server->seats[reload->seat].want_up && server->seats[reload->seat].state != TREE_UP)
            return false;
        reload->restarting = false;
        reload->seat++;
        return true;
    }
    while (reload->seat < server->seat_count) {
        if (is_worker_of(reload, &server->seats[reload->seat]))
            break;
        reload->seat++;
    }
    if (reload->seat == server->seat_count) {
        reload->phase = CLOSING;
        seat_want(server->spare, false);
        return true;
    }
    struct tree_seat *seat = &server->seats[reload->seat];
    reload->restarting = true;
    /* Also one that is only starting, if it was started for the old model. */
    if (seat_has_process(seat) && seat->begun_ns < reload->offered_ns)
        restart(seat);
    return true;
}

static bool step_closing(struct reload *reload)
{
    if (reload->server->spare->state != TREE_DOWN)
        return false;
    if (++reload->model < reload->fresh.model_count) {
        reload->phase = NEXT;
        return true;
    }
    finish(reload);
    return false;
}

/* Is there a process that was started for that generation, and may still publish it? One that is
 * ready has. */
static bool generation_started(const struct reload *reload, uint32_t generation, bool but_ready)
{
    const struct queue *queue = &reload->server->queue;
    for (uint32_t i = 0; (i = queue_process_next(queue, i));)
        if (queue_process_is(queue, i, QUEUE_WORKER) &&
            atomic_load(&queue->processes[i].life) == QUEUE_LIVE &&
            atomic_load(&queue->processes[i].model) == reload->model &&
            atomic_load(&queue->processes[i].model_generation) == generation &&
            !(but_ready && atomic_load(&queue->processes[i].ready)))
            return true;
    return false;
}

static void take_back(struct reload *reload)
{
    struct server *server = reload->server;
    log_event(LOG_LEVEL_WARNING,
              "a model that another worker has loaded is taken back: the spare one cannot load it",
              log_text("model", server->config->models[reload->model].name),
              log_number("tries", server->spare->failures));
    queue_model_take_back(&server->queue, reload->model, reload->offered);
    server->taken_back[reload->model] = reload->offered;
    note_ticks(reload);
    reload->phase = OUTGOING;
}

/* First nobody must be left who could publish it; then nobody must have done so. */
static bool step_aborting(struct reload *reload)
{
    struct server *server = reload->server;
    uint32_t model = reload->model;
    if (server->spare->state != TREE_DOWN ||
        (reload->changed && generation_started(reload, reload->offered, reload->returning)))
        return false;
    if (reload->returning) {
        take_back(reload);
        return true;
    }
    if (reload->changed &&
        atomic_load(&server->queue.models[model].generation) == reload->offered) {
        live_keys_take(server->config, &reload->fresh);
        offer(reload); /* another worker was faster, and requests have seen it */
        return true;
    }
    refuse(reload, "the model does not load; the old one is served on",
           server->config->models[model].name);
    return false;
}

/* No request is pinned to it any more: those that serve it end, and the old model takes their
 * seats. Whether that still loads is nothing to wait for. */
static bool step_returning(struct reload *reload)
{
    struct server *server = reload->server;
    const struct queue_process *processes = server->queue.processes;
    for (uint32_t i = 0; i < server->seat_count; i++) {
        struct tree_seat *seat = &server->seats[i];
        if (is_worker_of(reload, seat) && seat->index &&
            atomic_load(&processes[seat->index].model_generation) == reload->offered)
            restart(seat);
    }
    if (generation_started(reload, reload->offered, false))
        return false;
    refuse(reload, "the model does not load again; the old one is served on",
           server->config->models[reload->model].name);
    return false;
}

static bool step(struct reload *reload)
{
    switch (reload->phase) {
    case ASKING: return false;
    case NEXT: try_model(reload); return true;
    case TRYING: return step_trying(reload);
    case OUTGOING: return step_outgoing(reload);
    case SWAPPING: return step_swapping(reload);
    case CLOSING: return step_closing(reload);
    case ABORTING: return step_aborting(reload);
    case RETURNING: return step_returning(reload);
    }
    return false;
}

/* Steps change seats, and changed seats lead here again: only the outermost call goes on. */
void reload_advance(struct server *server)
{
    struct reload *reload = server->reload;
    if (!reload)
        return;
    reload->again = true;
    if (reload->advancing)
        return;
    reload->advancing = true;
    while (!reload->over && reload->again) {
        reload->again = false;
        while (!reload->over && step(reload))
            ;
    }
    reload->advancing = false;
    if (reload->over)
        reload_forget(server);
}

/* ---- asking ---- */

/* The slots were made for the models of the start. */
static bool slots_hold(const struct reload *reload, uint32_t model)
{
    const struct unetserve_interface *interface = &reload->interfaces[model];
    uint64_t tile = reload->fresh.models[model].tile ? reload->fresh.models[model].tile
                                                     : interface->tile;
    return interface->input_kind != UNETSERVE_TENSOR ||
           interface->channels * tile * tile * sizeof(float) <=
               queue_largest_input(&reload->server->queue);
}

static void ask(struct reload *reload);

static int on_described(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)source;
    (void)fd;
    (void)events;
    struct reload *reload = opaque;
    uint32_t model = reload->model;
    const struct config_model *fresh = &reload->fresh.models[model];
    reload->is_describing = false;
    int status = describe_finish(fresh, &reload->describing, &reload->interfaces[model]);
    describing_stop(reload);
    if (status) {
        refuse(reload, "the model is bad; its worker has said why", fresh->name);
    } else if (!slots_hold(reload, model)) {
        refuse(reload, "its tiles need larger slots than there are, and so a restart", fresh->name);
    } else if (++reload->model < reload->fresh.model_count) {
        ask(reload);
    } else {
        reload->model = 0;
        reload->phase = NEXT;
        live_keys_take(reload->server->config, &reload->fresh);
        reload_advance(reload->server);
    }
    return 0;
}

static int on_output(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)fd;
    (void)events;
    struct reload *reload = opaque;
    if (!describe_listen(&reload->describing))
        sd_event_source_set_enabled(source, SD_EVENT_OFF);
    return 0;
}

static int on_ask_limit(sd_event_source *source, uint64_t now, void *opaque)
{
    (void)now;
    return on_described(source, -1, 0, opaque);
}

static void ask(struct reload *reload)
{
    struct describing *describing = &reload->describing;
    const struct config_model *fresh = &reload->fresh.models[reload->model];
    sd_event *event = reload->server->event;
    if (describe_begin(fresh, describing)) {
        refuse(reload, "the model cannot be read", fresh->name);
        return;
    }
    reload->is_describing = true;
    int error = sd_event_add_io(event, &reload->output_source, describing->output, EPOLLIN,
                                on_output, reload);
    if (error >= 0)
        error = sd_event_add_io(event, &reload->ended_source, describing->pidfd, EPOLLIN,
                                on_described, reload);
    if (error >= 0)
        error = sd_event_add_time_relative(event, &reload->limit_source, CLOCK_MONOTONIC,
                                           UINT64_C(1000) * ASK_LIMIT_MS, 0, on_ask_limit, reload);
    if (error < 0)
        refuse(reload, strerror(-error), fresh->name);
}

/* ---- begin ---- */

static int on_look(sd_event_source *source, uint64_t now, void *opaque)
{
    (void)now;
    struct server *server = opaque;
    sd_event_source_set_time_relative(source, LOOK_MS * UINT64_C(1000));
    reload_advance(server);
    return 0;
}

static bool models_same(const struct config *a, const struct config *b)
{
    bool same = a->model_count == b->model_count;
    for (uint32_t i = 0; same && i < a->model_count; i++)
        same = strcmp(a->models[i].name, b->models[i].name) == 0;
    return same;
}

static int timer_begin(struct reload *reload)
{
    struct server *server = reload->server;
    int error = sd_event_add_time_relative(server->event, &reload->look_timer, CLOCK_MONOTONIC,
                                           LOOK_MS * UINT64_C(1000), 1000, on_look, server);
    if (error >= 0)
        error = sd_event_source_set_enabled(reload->look_timer, SD_EVENT_ON);
    return error;
}

void reload_begin(struct server *server)
{
    struct config_error error;
    char no_device[sizeof error.text];
    struct reload *reload = calloc(1, sizeof *reload);
    if (!reload) {
        log_event(LOG_LEVEL_ERROR, "not reloaded: out of memory");
        return;
    }
    server->reload = reload;
    reload->server = server;
    reload->before = *server->config;
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(queue_now_ns() / 1000));
    if (options_apply(server->options, &reload->fresh, &error)) {
        refuse(reload, error.text, "");
    } else if (devices_resolve(&reload->fresh, server->gpus, no_device, sizeof no_device)) {
        refuse(reload, no_device, "");
    } else if (!models_same(server->asked, &reload->fresh)) {
        refuse(reload, "models were added, removed or moved, which needs a restart", "");
    } else if (timer_begin(reload) < 0) {
        refuse(reload, "cannot set a timer", "");
    } else {
        log_event(LOG_LEVEL_INFO, "reloading");
        ask(reload);
    }
}
