#include "workers/worker_loop.h"
#include "unetserve/log.h"
#include "workers/flight.h"
#include "workers/run.h"
#include "workers/watch.h"

#include <errno.h>
#include <signal.h>
#include <systemd/sd-event.h>
#include <unistd.h>

/* A wake-up that a dying broker never sent is made good by its successor's rescan; this one is for
 * what nobody thought of. */
#define RESCAN_IDLE_MS 1000
/* Nobody wakes a worker because a client has left, or a gateway. */
#define RESCAN_BUSY_MS 50
/* So often signals and the like are looked for while there are jobs. */
#define LOOK_NS UINT64_C(1000000)

struct loop {
    struct worker *worker;
    sd_event *event;
    bool retiring;      /* SIGTERM: no new leases, finish those there are */
    uint64_t looked_ns; /* when events were looked for */
    uint64_t orphan_end_ns;
    uint32_t drain_timeout_ms;
};

static int on_wake(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)source, (void)fd, (void)events;
    (void)opaque; /* every turn looks at the slots */
    return 0;
}

static int on_completed(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)source, (void)events, (void)opaque;
    uint64_t count;
    (void)!read(fd, &count, sizeof count);
    return 0;
}

static void retire(struct loop *loop)
{
    const struct seat *seat = loop->worker->seat;
    loop->retiring = true;
    atomic_store(&seat->queue.processes[seat->index].ready, 0);
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *opaque)
{
    (void)source, (void)info;
    retire(opaque);
    return 0;
}

static int on_retire(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)fd, (void)events;
    retire(opaque);
    return sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

static int add_retirement(struct loop *loop)
{
    if (loop->worker->retire_fd >= 0)
        return sd_event_add_io(loop->event, NULL, loop->worker->retire_fd, EPOLLIN, on_retire,
                               loop);
    return sd_event_add_signal(loop->event, NULL, SIGTERM, on_signal, loop);
}

static int on_life(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)fd, (void)events;
    struct loop *loop = opaque;
    loop->worker->orphaned = true;
    loop->orphan_end_ns = queue_now_ns() +
                          seat_drain_timeout_ms(loop->drain_timeout_ms) * UINT64_C(1000000);
    log_event(LOG_LEVEL_WARNING, "the supervisor is gone, finishing what was accepted");
    return sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

static int add_sources(struct loop *loop)
{
    int error = sd_event_add_io(loop->event, NULL, loop->worker->seat->event_fd, EPOLLIN | EPOLLET,
                                on_wake, loop);
    if (error >= 0 && loop->worker->completed_fd >= 0)
        error = sd_event_add_io(loop->event, NULL, loop->worker->completed_fd, EPOLLIN,
                                on_completed, loop);
    if (error >= 0)
        error = watch_begin(loop->worker, loop->event);
    if (error >= 0)
        error = sd_event_add_io(loop->event, NULL, SEAT_FD_LIFE, EPOLLIN, on_life, loop);
    if (error >= 0)
        error = add_retirement(loop);
    return error < 0 ? error : 0;
}

/* Asked when the worker has had nothing to do for a while. */
static bool healthy(const struct worker *worker)
{
    int error = worker->ops->health ? worker->ops->health(worker->instance) : 0;
    if (error)
        log_event(LOG_LEVEL_ERROR, "the model says that it cannot serve, the worker ends",
                  log_text("model", worker_model_name(worker)), log_number("error", error));
    return error == 0;
}

/* An orphan leaves after the gateways, as in a drain: one of them may still accept a job. When they
 * are gone nobody waits for anything. */
static bool may_leave(const struct loop *loop)
{
    if (loop->retiring)
        return true; /* asked only when nothing is leased to this worker */
    return loop->worker->orphaned &&
           (seat_gateways_gone() || queue_now_ns() >= loop->orphan_end_ns);
}

/* There were jobs, so there may be more: straight on to the slots, without the system calls of a
 * turn of the loop? */
static bool goes_on(struct loop *loop)
{
    uint64_t now_ns = queue_now_ns();
    if (now_ns - loop->looked_ns < LOOK_NS)
        return true;
    loop->looked_ns = now_ns;
    return false;
}

/* How long to sleep if nobody calls. */
static uint64_t wait_us(const struct loop *loop, const struct run_result *result, unsigned pending)
{
    uint64_t rescan_ms = loop->worker->orphaned || pending ? RESCAN_BUSY_MS : RESCAN_IDLE_MS;
    uint64_t now_ns = result->look_ns ? queue_now_ns() : 0;
    if (result->look_ns == 0 || result->look_ns > now_ns + rescan_ms * 1000000)
        return rescan_ms * 1000;
    return result->look_ns > now_ns ? (result->look_ns - now_ns) / 1000 + 1 : 0;
}

static int run(struct loop *loop)
{
    for (;;) {
        struct run_result result = run_next(loop->worker);
        if (loop->worker->device_lost)
            return -EIO;
        unsigned pending = worker_pending(loop->worker);
        if (result.jobs == 0 && pending == 0 && may_leave(loop))
            return 0;
        /* Nobody waits for a device in a call, so this loop turns though it may hang. */
        if (result.jobs || flight_count(loop->worker) == 0)
            seat_tick(loop->worker->seat);
        if (result.jobs && pending == 0 && goes_on(loop))
            continue;
        bool again = seat_asleep(loop->worker->seat) || result.jobs;
        int handled = sd_event_run(loop->event, again ? 0 : wait_us(loop, &result, pending));
        seat_awake(loop->worker->seat);
        if (handled < 0 && handled != -EINTR)
            return handled;
        if (handled == 0 && !again && !result.look_ns && pending == 0 && !healthy(loop->worker))
            return -EIO;
    }
}

int worker_loop(struct worker *worker, uint32_t drain_timeout_ms)
{
    struct loop loop = {.worker = worker, .drain_timeout_ms = drain_timeout_ms};
    int error = sd_event_new(&loop.event);
    if (error < 0)
        return error;
    error = add_sources(&loop);
    if (!error) {
        seat_ready(worker->seat);
        error = run(&loop);
    }
    watch_end(worker);
    sd_event_unref(loop.event);
    return error;
}
