#include "gateway/gateway.h"

#include "gateway/metrics.h"

#include "unetserve/log.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>

#define RESCAN_US     60000
#define STEPS_A_TURN  16
#define LAST_WORDS_US 500000 /* for the refusals to go out; less than the supervisor waits */
#define ACCURACY_US   5000

static int on_woken(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)source;
    (void)fd;
    (void)events;
    (void)opaque; /* every turn looks whether somebody has called */
    return 0;
}

static int on_rescan(sd_event_source *source, uint64_t now_us, void *opaque)
{
    (void)source;
    (void)now_us;
    struct gateway *gateway = opaque;
    gateway->rescan_armed = false;
    jobs_check(&gateway->jobs);
    if (gateway->front.rescan)
        gateway->front.rescan(gateway->front.opaque);
    return 0;
}

/* After each turn: the rescan goes on while there is something to look for, and only then. */
static void turn_over(struct gateway *gateway)
{
    gateway->front.turn_over(gateway->front.opaque);
    seat_tick(&gateway->seat);
    if (gateway->jobs.waiting_count && !gateway->rescan_armed) {
        sd_event_source_set_time_relative(gateway->rescan, RESCAN_US);
        sd_event_source_set_enabled(gateway->rescan, SD_EVENT_ONESHOT);
        gateway->rescan_armed = true;
    }
    bool done = gateway->given_up ||
                (!gateway->jobs.waiting_count && !gateway->jobs.receiving_count);
    if (gateway->draining && done && gateway->front.drained(gateway->front.opaque))
        sd_event_exit(gateway->event, 0);
}

/* First comes the end of the drain, then that of the last words. */
static int on_drain_over(sd_event_source *source, uint64_t now_us, void *opaque)
{
    (void)now_us;
    struct gateway *gateway = opaque;
    if (gateway->given_up)
        return sd_event_exit(gateway->event, 0);
    log_event(LOG_LEVEL_WARNING, "drain time is over, what is left is refused",
              log_number("waiting", gateway->jobs.waiting_count),
              log_number("receiving", gateway->jobs.receiving_count));
    gateway->given_up = true;
    jobs_give_up(&gateway->jobs);
    if (gateway->front.give_up)
        gateway->front.give_up(gateway->front.opaque);
    sd_event_source_set_time_relative(source, LAST_WORDS_US);
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static void drain_begin(struct gateway *gateway, const char *why)
{
    if (gateway->draining)
        return;
    gateway->ending = gateway->draining = true;
    log_event(LOG_LEVEL_INFO, "draining", log_text("why", why),
              log_number("waiting", gateway->jobs.waiting_count));
    gateway->front.drain(gateway->front.opaque);
    sd_event_add_time_relative(gateway->event, &gateway->drain_timer, CLOCK_MONOTONIC,
                               gateway->config.drain_timeout_ms * UINT64_C(1000), ACCURACY_US,
                               on_drain_over, gateway);
}

static int on_delay_over(sd_event_source *source, uint64_t now_us, void *opaque)
{
    (void)source;
    (void)now_us;
    drain_begin(opaque, "SIGTERM, and drain_delay_ms is over");
    return 0;
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *opaque)
{
    (void)source;
    (void)info;
    struct gateway *gateway = opaque;
    uint64_t delay_us = gateway->config.drain_delay_ms * UINT64_C(1000);
    if (gateway->ending)
        return 0;
    gateway->ending = true;
    if (delay_us == 0 ||
        sd_event_add_time_relative(gateway->event, &gateway->delay_timer, CLOCK_MONOTONIC, delay_us,
                                   ACCURACY_US, on_delay_over, gateway) < 0)
        drain_begin(gateway, "SIGTERM");
    return 0;
}

static int on_life_over(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)fd;
    (void)events;
    sd_event_source_set_enabled(source, SD_EVENT_OFF);
    drain_begin(opaque, "the supervisor is gone");
    return 0;
}

/* What differs then is what can be changed while requests are served. */
static int on_reload(sd_event_source *source, const struct signalfd_siginfo *info, void *opaque)
{
    (void)source;
    (void)info;
    static struct config fresh;
    struct gateway *gateway = opaque;
    if (seat_config(&fresh))
        return 0;
    gateway->config = fresh;
    log_init("gateway", (int)gateway->seat.seat, fresh.log_format, fresh.log_level);
    admit_reconfigure(&gateway->admit);
    if (gateway->front.reconfigure)
        gateway->front.reconfigure(gateway->front.opaque);
    log_event(LOG_LEVEL_DEBUG, "configuration read again");
    return 0;
}

static int add_reload(struct gateway *gateway)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGHUP, SIG_DFL); /* what is ignored is not even queued */
    return sd_event_add_signal(gateway->event, NULL, SIGHUP, on_reload, gateway);
}

static int add_sources(struct gateway *gateway)
{
    sd_event *event = gateway->event;
    int error = sd_event_add_io(event, NULL, gateway->seat.event_fd, EPOLLIN | EPOLLET, on_woken,
                                gateway);
    if (error >= 0)
        error = sd_event_add_io(event, &gateway->life, SEAT_FD_LIFE, EPOLLIN, on_life_over,
                                gateway);
    /* Before any accepting: who connects from then on waits for the next life's gateways. */
    if (error >= 0)
        error = sd_event_source_set_priority(gateway->life, SD_EVENT_PRIORITY_IMPORTANT);
    if (error >= 0)
        error = sd_event_add_signal(event, NULL, SIGTERM, on_signal, gateway);
    if (error >= 0)
        error = add_reload(gateway);
    if (error >= 0)
        error = sd_event_add_time(event, &gateway->rescan, CLOCK_MONOTONIC, 0, ACCURACY_US,
                                  on_rescan, gateway);
    if (error >= 0)
        error = sd_event_source_set_enabled(gateway->rescan, SD_EVENT_OFF);
    return error < 0 ? error : 0;
}

int gateway_open(struct gateway *gateway)
{
    metrics_open(&gateway->seat);
    int error = baton_open(&gateway->batons, &gateway->seat.queue, gateway->config.run_dir);
    if (error) {
        log_event(LOG_LEVEL_ERROR, "cannot connect to the broker",
                  log_text("run_dir", gateway->config.run_dir),
                  log_text("error", strerror(-error)));
        return error;
    }
    models_init(&gateway->models, &gateway->seat.queue, &gateway->config);
    admit_init(&gateway->admit, &gateway->seat.queue, &gateway->config);
    jobs_init(&gateway->jobs, &gateway->seat, &gateway->config, baton_pass, &gateway->batons);
    error = sd_event_new(&gateway->event);
    if (error >= 0)
        error = add_sources(gateway);
    if (error < 0)
        log_event(LOG_LEVEL_ERROR, "cannot set up the event loop",
                  log_text("error", strerror(-error)));
    return error < 0 ? error : 0;
}

static bool go_on(struct gateway *gateway)
{
    const struct front *front = &gateway->front;
    return front->go_on && front->go_on(front->opaque);
}

/* What follows an event, until nothing comes of it any more. Whoever calls this process before it
 * sleeps has no system call to make. Between two steps of the front, workers and the broker hear of
 * what the one has accepted, once for all of it, and what has come back meanwhile goes out with the
 * other. */
static void steps(struct gateway *gateway, bool called)
{
    bool more = true;
    for (int i = 0; i < STEPS_A_TURN && more; i++) {
        jobs_pass_on(&gateway->jobs);
        called = seat_awake(&gateway->seat) || called;
        if (called)
            jobs_collect(&gateway->jobs);
        more = go_on(gateway) || called;
        called = false;
    }
    if (seat_asleep(&gateway->seat)) {
        jobs_collect(&gateway->jobs);
        for (int i = 0; i < STEPS_A_TURN && go_on(gateway);)
            i++;
    }
    jobs_pass_on(&gateway->jobs);
}

/* One event. What follows it is called here and is no post source: each of those would cost a round
 * of the loop, with its system calls. */
static int turn(struct gateway *gateway)
{
    int ready = sd_event_prepare(gateway->event);
    if (ready == 0)
        ready = sd_event_wait(gateway->event, UINT64_MAX);
    bool called = seat_awake(&gateway->seat);
    if (ready > 0)
        ready = sd_event_dispatch(gateway->event);
    if (ready < 0)
        return ready;
    steps(gateway, called);
    turn_over(gateway);
    return 0;
}

int gateway_run(struct gateway *gateway)
{
    int error = 0;
    while (!error && sd_event_get_state(gateway->event) != SD_EVENT_FINISHED)
        error = turn(gateway);
    return error;
}

void gateway_close(struct gateway *gateway)
{
    jobs_close(&gateway->jobs);
    models_close(&gateway->models);
    sd_event_source_disable_unref(gateway->life);
    sd_event_source_disable_unref(gateway->rescan);
    sd_event_source_disable_unref(gateway->delay_timer);
    sd_event_source_disable_unref(gateway->drain_timer);
    sd_event_unref(gateway->event);
    baton_close(&gateway->batons);
    queue_close(&gateway->seat.queue);
}
