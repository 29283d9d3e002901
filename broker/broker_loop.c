#include "broker/broker_loop.h"
#include "broker/survey.h"
#include "unetserve/log.h"

#include <errno.h>
#include <signal.h>
#include <systemd/sd-event.h>

#define RESCAN_BUSY_MS 100  /* while some slot is in use: a lost message costs this much at most */
#define RESCAN_IDLE_MS 1000 /* while none is */

struct broker {
    struct seat *seat;
    struct inbox *inbox;
    struct survey *survey;
    sd_event *event;
    sd_event_source *timer; /* when jobs that are held back are due */
    bool look;              /* something happened */
    bool stopping;          /* told to stop, or the supervisor is gone */
    bool orphaned;          /* the supervisor is gone */
    uint64_t stop_at_ns;
    uint32_t drain_timeout_ms;
};

static int on_baton(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)source, (void)fd, (void)events, (void)opaque;
    return 0; /* every turn drains the inbox */
}

static int on_wake(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)source, (void)fd, (void)events;
    struct broker *broker = opaque;
    broker->look = true;
    return 0;
}

static int on_timer(sd_event_source *source, uint64_t now_us, void *opaque)
{
    (void)source, (void)now_us;
    struct broker *broker = opaque;
    broker->look = true;
    return 0;
}

/* A timer of its own, since the loop's wait may be rounded up to a millisecond. */
static int set_timer(const struct broker *broker, uint64_t look_ns)
{
    if (look_ns == 0)
        return sd_event_source_set_enabled(broker->timer, SD_EVENT_OFF);
    int error = sd_event_source_set_time(broker->timer, look_ns / 1000 + 1);
    return error < 0 ? error : sd_event_source_set_enabled(broker->timer, SD_EVENT_ONESHOT);
}

static void begin_stop(struct broker *broker, const char *reason)
{
    if (broker->stopping)
        return;
    broker->stopping = true;
    broker->stop_at_ns = queue_now_ns() +
                         seat_drain_timeout_ms(broker->drain_timeout_ms) * UINT64_C(1000000);
    log_event(LOG_LEVEL_INFO, "stopping", log_text("reason", reason));
}

static int on_life(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)fd, (void)events;
    struct broker *broker = opaque;
    broker->orphaned = true;
    broker->look = true;
    begin_stop(broker, "the supervisor is gone");
    return sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *opaque)
{
    (void)source, (void)info;
    begin_stop(opaque, "SIGTERM");
    return 0;
}

static int add_sources(struct broker *broker)
{
    int error = sd_event_add_io(broker->event, NULL, broker->inbox->fd, EPOLLIN, on_baton, broker);
    if (error >= 0)
        error = sd_event_add_io(broker->event, NULL, broker->seat->event_fd, EPOLLIN | EPOLLET,
                                on_wake, broker);
    if (error >= 0)
        error = sd_event_add_io(broker->event, NULL, SEAT_FD_LIFE, EPOLLIN, on_life, broker);
    if (error >= 0)
        error = sd_event_add_time(broker->event, &broker->timer, CLOCK_MONOTONIC, 0, 1, on_timer,
                                  broker);
    if (error >= 0)
        error = set_timer(broker, 0);
    if (error >= 0)
        error = sd_event_add_signal(broker->event, NULL, SIGTERM, on_signal, broker);
    return error < 0 ? error : 0;
}

/* Is there nothing left to stay for? An orphan leaves after the gateways, as in a drain: they may
 * still accept jobs. When they are gone nobody waits for anything. */
static bool may_leave(const struct broker *broker, bool busy)
{
    if (!broker->stopping)
        return false;
    bool done = broker->orphaned ? seat_gateways_gone() : !busy;
    return done || queue_now_ns() >= broker->stop_at_ns;
}

static int run(struct broker *broker)
{
    bool busy = true;
    uint64_t next_rescan_ns = 0;
    for (;;) {
        bool arrived = false;
        bool empty = inbox_drain(broker->inbox, &arrived);
        uint64_t now_ns = queue_now_ns();
        bool rescan = now_ns >= next_rescan_ns;
        if (arrived || broker->look || rescan) {
            broker->look = false;
            struct survey_result result = survey_look(broker->survey, &broker->seat->queue, rescan);
            busy = result.busy;
            int timer = set_timer(broker, result.look_ns);
            if (timer < 0)
                return timer;
            bool often = busy || broker->orphaned;
            if (rescan)
                next_rescan_ns = now_ns + (often ? RESCAN_BUSY_MS : RESCAN_IDLE_MS) * 1000000u;
            else if (often && next_rescan_ns > now_ns + RESCAN_BUSY_MS * 1000000u)
                next_rescan_ns = now_ns + RESCAN_BUSY_MS * 1000000u;
        }
        seat_tick(broker->seat);
        if (may_leave(broker, busy))
            return 0;
        broker->look = seat_asleep(broker->seat);
        now_ns = queue_now_ns();
        uint64_t wait_us = empty && !broker->look && next_rescan_ns > now_ns
                               ? (next_rescan_ns - now_ns) / 1000 + 1
                               : 0;
        int error = sd_event_run(broker->event, wait_us);
        seat_awake(broker->seat);
        if (error < 0 && error != -EINTR)
            return error;
    }
}

int broker_loop(struct seat *seat, struct inbox *inbox, uint32_t drain_timeout_ms)
{
    struct broker broker = {.seat = seat, .inbox = inbox, .drain_timeout_ms = drain_timeout_ms};
    int error = sd_event_new(&broker.event);
    if (error < 0)
        return error;
    broker.survey = survey_create(&seat->queue);
    error = broker.survey ? add_sources(&broker) : -ENOMEM;
    if (!error) {
        seat_ready(seat);
        error = run(&broker);
    }
    survey_free(broker.survey);
    sd_event_source_unref(broker.timer);
    sd_event_unref(broker.event);
    return error;
}
