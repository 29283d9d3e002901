/* The supervisor's loop: signals, rescans, the drain, and what the outside is told. */
#include "supervisor/client_program.h"
#include "supervisor/graves.h"
#include "supervisor/reload.h"

#include "lib/config_address.h"
#include "lib/config_oauth.h"
#include "supervisor/server.h"
#include "unetserve/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>

#define RESCAN_BUSY_MS 100
#define RESCAN_IDLE_MS 1000
#define DRAIN_GRACE_MS                                                                             \
    1000 /* gateways end by the drain's time-out themselves; then they are made to */

/* ---- rescans: the standing rules, and processes that hang ---- */

static void watch_process(struct tree_seat *seat, uint64_t now_ns)
{
    const struct server *server = seat->server;
    struct watch *watch = &seat->watch;
    watch_look(watch, now_ns, atomic_load(&server->queue.processes[seat->index].tick));
    if (seat->hung || watch->silence_ns < WATCH_WAKE_NS)
        return;
    seat_wake_seat(seat->number);
    bool stopped = watch->silence_ns > WATCH_SILENCE_NS && watch_is_stopped(seat->pid);
    uint64_t run_timeout_ns = seat->role == QUEUE_WORKER
                                  ? server->config->models[seat->model].run_timeout_ms *
                                        UINT64_C(1000000)
                                  : 0;
    if (!watch_is_hung(watch, seat->role, run_timeout_ns, stopped))
        return;
    seat->hung = true;
    seat->stopped = stopped;
    log_event(LOG_LEVEL_WARNING, "process shows no progress",
              log_text("program", seat_program(seat)), log_number("pid", seat->pid),
              log_text("stopped", stopped ? "yes" : "no"));
    seat_handle(seat, TREE_TIMEOUT);
}

/* Killed, and still there: in uninterruptible sleep. It gets no more work, and another process its
 * seat. */
static void watch_condemn(struct tree_seat *seat, uint64_t now_ns)
{
    struct server *server = seat->server;
    /* It may have been killed since now_ns was read. */
    if (!seat->killed_ns || now_ns < seat->killed_ns + WATCH_GOING_NS)
        return;
    if (graves_count(server) < SERVER_MAX_GRAVES)
        seat_handle(seat, TREE_STUCK);
    else /* no replacement: something is wrong with the machine */
        atomic_store(&server->queue.processes[seat->index].life, QUEUE_CONDEMNED);
}

static bool queue_is_idle(const struct queue *queue)
{
    for (uint32_t i = 0; i < queue->slot_count; i++)
        if (queue_word_state(queue_word(queue, i)) != QUEUE_FREE)
            return false;
    return true;
}

static int on_rescan(sd_event_source *source, uint64_t now, void *opaque)
{
    (void)now;
    struct server *server = opaque;
    bool idle = queue_is_idle(&server->queue);
    uint64_t now_ns = queue_now_ns();
    for (uint32_t i = 0; i < server->seat_count; i++) {
        struct tree_seat *seat = &server->seats[i];
        if (!seat->index)
            continue;
        if (seat->up_ns)
            watch_process(seat, now_ns);
        watch_condemn(seat, now_ns);
    }
    if (!idle && queue_apply_standing_rules(&server->queue) > 0) {
        seat_wake_role(&server->queue, QUEUE_GATEWAY);
        seat_wake_role(&server->queue, QUEUE_BROKER);
    }
    sd_event_source_set_time_relative(source, (idle ? RESCAN_IDLE_MS : RESCAN_BUSY_MS) * 1000);
    return 0;
}

/* Not while a reload restarts the workers, which has its own order. */
static int on_scale(sd_event_source *source, uint64_t now, void *opaque)
{
    (void)now;
    struct server *server = opaque;
    if (server->phase == SERVER_RUNNING && server->announced && !server->reload)
        scaler_look(server);
    return sd_event_source_set_time_relative(source, AUTOSCALE_TICK_MS * 1000);
}

/* ---- the drain ---- */

static bool role_is_down(const struct server *server, bool gateways)
{
    for (uint32_t i = 0; i < server->seat_count; i++) {
        const struct tree_seat *seat = &server->seats[i];
        if ((seat->role == QUEUE_GATEWAY) == gateways && seat->state != TREE_DOWN)
            return false;
    }
    return true;
}

static void role_stop(struct server *server, bool gateways)
{
    for (uint32_t i = 0; i < server->seat_count; i++)
        if ((server->seats[i].role == QUEUE_GATEWAY) == gateways)
            seat_want(&server->seats[i], false);
}

/* What does not go even when it is killed is left to the kernel. */
static void left_alone(struct server *server)
{
    log_event(LOG_LEVEL_ERROR, "processes are left that cannot be killed");
    server->exit_status = EX_OSERR;
}

/* Gateways first: what they accepted still needs the broker and the workers. */
static void drain_advance(struct server *server)
{
    if (server->phase == SERVER_DRAINING && role_is_down(server, true)) {
        server->phase = SERVER_ENDING;
        role_stop(server, false);
    }
    if (server->phase == SERVER_ENDING && role_is_down(server, true) &&
        role_is_down(server, false)) {
        if (graves_count(server))
            left_alone(server);
        sd_event_exit(server->event, server->exit_status);
    }
}

static int on_drain_over(sd_event_source *source, uint64_t now, void *opaque)
{
    (void)now;
    struct server *server = opaque;
    if (server->killing) {
        left_alone(server);
        return sd_event_exit(server->event, server->exit_status);
    }
    log_event(LOG_LEVEL_WARNING, "killing what is left");
    server->phase = SERVER_ENDING;
    role_stop(server, true);
    role_stop(server, false);
    for (uint32_t i = 0; i < server->seat_count; i++)
        seat_handle(&server->seats[i], TREE_TIMEOUT);
    server->killing = true;
    sd_event_source_set_time_relative(source, WATCH_GOING_NS / 1000);
    sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return 0;
}

static void drain_begin(struct server *server)
{
    const struct config *config = server->config;
    uint64_t limit_ms = (uint64_t)config->drain_delay_ms + config->drain_timeout_ms +
                        DRAIN_GRACE_MS;
    server->phase = SERVER_DRAINING;
    reload_forget(server);
    sd_notify(0, "STOPPING=1\nSTATUS=finishing what was accepted");
    log_event(LOG_LEVEL_INFO, "draining", log_number("drain_timeout_ms", config->drain_timeout_ms));
    if (sd_event_add_time_relative(server->event, &server->drain_timer, CLOCK_MONOTONIC,
                                   limit_ms * 1000, 1000, on_drain_over, server) < 0)
        log_event(LOG_LEVEL_ERROR, "cannot set the drain's timer");
    role_stop(server, true);
    drain_advance(server);
}

void loop_give_up(struct server *server, int status)
{
    if (server->exit_status == 0)
        server->exit_status = status;
    if (server->phase == SERVER_RUNNING)
        drain_begin(server);
}

static int on_end_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *opaque)
{
    (void)source;
    (void)info;
    struct server *server = opaque;
    if (server->phase == SERVER_RUNNING) {
        drain_begin(server);
    } else if (server->drain_timer && !server->killing) {
        log_event(LOG_LEVEL_WARNING, "a second signal: no more waiting");
        sd_event_source_set_time_relative(server->drain_timer, 0);
    }
    return 0;
}

/* ---- ready ---- */

static void ready_print(const struct config *config)
{
    printf("unetserve: ready on ");
    for (uint32_t i = 0; i < config->listen_count; i++) {
        bool whole = config_address_is_tls(config->listen[i]) ||
                     strncmp(config->listen[i], "unix:", 5) == 0;
        printf("%s%s%s", i ? ", " : "", whole ? "" : "http://", config->listen[i]);
    }
    printf("\n");
    fflush(stdout);
}

/* For convenience: that it cannot be written keeps nobody from being served. */
static void client_file_offer(const struct server *server)
{
    const char *path = server->options ? server->options->client_file : NULL;
    int rc = path ? client_program_write(path, server->config, server->interfaces) : 0;
    if (rc == -EEXIST)
        log_event(LOG_LEVEL_INFO, "the client file is there already, and left as it is",
                  log_text("path", path));
    else if (rc < 0)
        log_event(LOG_LEVEL_WARNING, "cannot write the client file", log_text("path", path),
                  log_text("error", rc == -EADDRNOTAVAIL ? "there is no TCP address for it to ask"
                                                         : strerror(-rc)));
    else if (path)
        log_event(LOG_LEVEL_INFO, "client file written", log_text("path", path));
}

static void ready_announce(struct server *server)
{
    server->announced = true;
    client_file_offer(server);
    ready_print(server->config);
    sd_notifyf(0, "READY=1\nSTATUS=serving, with %u workers for %u models", server->workers,
               server->config->model_count);
}

static bool all_up(const struct server *server)
{
    for (uint32_t i = 0; i < server->seat_count; i++)
        if (server->seats[i].want_up && !server->seats[i].extra &&
            server->seats[i].state != TREE_UP)
            return false;
    return true;
}

/* ---- the start ---- */

/* Is everything that a request needs behind its gateway there? */
static bool backs_up(const struct server *server)
{
    for (uint32_t i = 0; i < server->seat_count; i++) {
        const struct tree_seat *seat = &server->seats[i];
        if (seat->role != QUEUE_GATEWAY && seat->want_up && !seat->extra && seat->state != TREE_UP)
            return false;
    }
    return true;
}

/* Whoever is to be up from the start. Where clients wait in the backlogs of sockets that were there
 * before, gateways come last, so that nobody is answered "not ready". */
static void seats_start(struct server *server)
{
    bool last = server->listeners.taken_back || server->listeners.passed;
    server->gateways_wait = last;
    for (uint32_t i = 0; i < server->seat_count && server->phase == SERVER_RUNNING; i++)
        if (&server->seats[i] != server->spare && !server->seats[i].extra &&
            (&server->seats[i] != server->auth || config_has_oauth(server->config)) &&
            (!last || server->seats[i].role != QUEUE_GATEWAY))
            seat_want(&server->seats[i], true);
}

/* Who watches GPUs starts with the others, and nobody waits for it. */
static void gpu_watch_start(struct server *server)
{
    if (server->gpus->count > 0)
        seat_want(server->gpu, true);
}

static void gateways_start(struct server *server)
{
    server->gateways_wait = false;
    for (uint32_t i = 0; i < server->seat_count && server->phase == SERVER_RUNNING; i++)
        if (server->seats[i].role == QUEUE_GATEWAY)
            seat_want(&server->seats[i], true);
}

static int on_reload_signal(sd_event_source *source, const struct signalfd_siginfo *info,
                            void *opaque)
{
    (void)source;
    (void)info;
    struct server *server = opaque;
    if (server->phase != SERVER_RUNNING || !server->announced || server->reload)
        log_event(LOG_LEVEL_WARNING, "not reloaded: starting, reloading or ending already");
    else
        reload_begin(server);
    return 0;
}

/* ---- the loop ---- */

void loop_seat_changed(struct tree_seat *seat)
{
    struct server *server = seat->server;
    if (server->phase != SERVER_RUNNING)
        drain_advance(server);
    else if (server->gateways_wait && seat->state == TREE_UP && backs_up(server))
        gateways_start(server);
    else if (!server->announced && !server->gateways_wait && all_up(server))
        ready_announce(server);
    else if (server->reload)
        reload_advance(server);
}

static int loop_prepare(struct server *server)
{
    int error = sd_event_new(&server->event);
    if (error >= 0)
        error = sd_event_set_watchdog(server->event, true);
    if (error >= 0)
        error = sd_event_add_signal(server->event, NULL, SIGTERM, on_end_signal, server);
    if (error >= 0)
        error = sd_event_add_signal(server->event, NULL, SIGINT, on_end_signal, server);
    if (error >= 0)
        error = sd_event_add_signal(server->event, NULL, SIGHUP, on_reload_signal, server);
    if (error >= 0)
        error = sd_event_add_time_relative(server->event, &server->rescan_timer, CLOCK_MONOTONIC,
                                           RESCAN_IDLE_MS * 1000, 1000, on_rescan, server);
    if (error >= 0)
        error = sd_event_source_set_enabled(server->rescan_timer, SD_EVENT_ON);
    if (error >= 0 && scaler_needed(server)) {
        error = sd_event_add_time_relative(server->event, &server->scale_timer, CLOCK_MONOTONIC,
                                           AUTOSCALE_TICK_MS * 1000, 1000, on_scale, server);
        if (error >= 0)
            error = sd_event_source_set_enabled(server->scale_timer, SD_EVENT_ON);
    }
    return error < 0 ? error : 0;
}

int loop_run(struct server *server)
{
    int status = EX_OSERR;
    int error = loop_prepare(server);
    if (error) {
        log_event(LOG_LEVEL_ERROR, "cannot make the event loop",
                  log_text("error", strerror(-error)));
    } else {
        seats_start(server);
        gpu_watch_start(server);
        status = sd_event_loop(server->event);
        status = status < 0 ? EX_OSERR : status;
    }
    server->drain_timer = sd_event_source_disable_unref(server->drain_timer);
    server->rescan_timer = sd_event_source_disable_unref(server->rescan_timer);
    server->scale_timer = sd_event_source_disable_unref(server->scale_timer);
    server->event = sd_event_unref(server->event);
    return status;
}
