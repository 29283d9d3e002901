/* One seat: what the actions of tree.h do to its process. */
#include "supervisor/device_rest.h"
#include "supervisor/graves.h"
#include "supervisor/seat_command.h"
#include "supervisor/server.h"
#include "unetserve/log.h"
#include "unetserve/loss.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

bool seat_has_process(const struct tree_seat *seat)
{
    return seat->pidfd >= 0;
}

const char *seat_program(const struct tree_seat *seat)
{
    switch (seat->role) {
    case QUEUE_GATEWAY: return seat->gateway == LISTENERS_MAX_GATEWAYS ? "zmq-front" : "gateway";
    case QUEUE_BROKER: return "broker";
    case QUEUE_AUTH: return "auth";
    case QUEUE_GPU: return "gpu";
    default: return "worker";
    }
}

/* ---- clocks ---- */

static int on_timer(sd_event_source *source, uint64_t now, void *opaque)
{
    (void)source;
    (void)now;
    seat_handle(opaque, TREE_TIMEOUT);
    return 0;
}

static void clock_stop(struct tree_seat *seat)
{
    seat->timer = sd_event_source_disable_unref(seat->timer);
}

/* TIMEOUT in so many milliseconds; 0 means at the next turn of the loop. */
static void clock_set(struct tree_seat *seat, uint64_t after_ms)
{
    clock_stop(seat);
    if (sd_event_add_time_relative(seat->server->event, &seat->timer, CLOCK_MONOTONIC,
                                   after_ms * 1000, 1000, on_timer, seat) < 0)
        log_event(LOG_LEVEL_ERROR, "cannot set a timer", log_number("seat_number", seat->number));
}

/* ---- start ---- */

static int on_gone(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)source;
    (void)fd;
    (void)events;
    seat_handle(opaque, TREE_GONE);
    return 0;
}

/* A newline means ready; the end of the pipe without one says nothing that the pidfd will not say.
 */
static int on_ready(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)source;
    (void)events;
    struct tree_seat *seat = opaque;
    char byte = 0;
    ssize_t got = read(fd, &byte, 1);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    seat->ready_source = sd_event_source_disable_unref(seat->ready_source);
    close(seat->ready_fd);
    seat->ready_fd = -1;
    if (got == 1 && byte == '\n')
        seat_handle(seat, TREE_READY);
    return 0;
}

static int process_start(struct tree_seat *seat, int ready_write_fd)
{
    struct seat_command command;
    int error = seat_command_make(seat, ready_write_fd, &command);
    if (!error)
        error = spawn_process(&command.spawn, &seat->pid, &seat->pidfd);
    seat_command_free(&command);
    return error;
}

static void index_leave(struct tree_seat *seat, bool by_fault)
{
    struct queue *queue = &seat->server->queue;
    if (seat->index)
        queue_process_leave(queue, seat->index, by_fault);
    seat->index = 0;
}

static int index_enter(struct tree_seat *seat)
{
    struct queue *queue = &seat->server->queue;
    int error = queue_process_enter(queue, seat->role, seat->number, &seat->index);
    if (error)
        return error;
    if (seat->role == QUEUE_WORKER) {
        atomic_store(&queue->processes[seat->index].model, seat->model);
        atomic_store(&queue->processes[seat->index].model_generation,
                     seat->server->generations[seat->model]);
    }
    return 0;
}

static int process_watch(struct tree_seat *seat, int ready_fd)
{
    sd_event *event = seat->server->event;
    seat->ready_fd = ready_fd;
    int error = sd_event_add_io(event, &seat->gone_source, seat->pidfd, EPOLLIN, on_gone, seat);
    if (error >= 0)
        error = sd_event_add_io(event, &seat->ready_source, ready_fd, EPOLLIN, on_ready, seat);
    return error < 0 ? error : 0;
}

static int start(struct tree_seat *seat)
{
    int ready[2];
    int error = index_enter(seat);
    if (error)
        return error;
    seat->hung = seat->stopped = false;
    seat->killed_ns = seat->up_ns = 0;
    seat->begun_ns = queue_now_ns();
    if (pipe2(ready, O_CLOEXEC)) {
        error = -errno;
        index_leave(seat, false);
        return error;
    }
    fcntl(ready[0], F_SETFL, O_NONBLOCK);
    error = process_start(seat, ready[1]);
    close(ready[1]);
    if (error) {
        close(ready[0]);
        index_leave(seat, false);
        return error;
    }
    atomic_store(&seat->server->queue.processes[seat->index].pid, seat->pid);
    counter_add(&seat->server->queue.seats[seat->number].starts, 1);
    error = process_watch(seat, ready[0]);
    if (error) /* unwatched it would never be missed: better none */
        kill(seat->pid, SIGKILL);
    return 0;
}

static void action_spawn(struct tree_seat *seat)
{
    if (device_rest_left_ms(seat) > 0) {
        seat_handle(seat, TREE_GONE);
        return;
    }
    int error = start(seat);
    if (error) {
        log_event(LOG_LEVEL_ERROR, "cannot start a process",
                  log_text("program", seat_program(seat)), log_text("error", strerror(-error)));
        seat_handle(seat, TREE_GONE);
        return;
    }
    clock_set(seat, SERVER_START_TIMEOUT_MS);
    log_event(LOG_LEVEL_DEBUG, "process started", log_text("program", seat_program(seat)),
              log_number("seat_number", seat->number), log_number("index", seat->index),
              log_number("pid", seat->pid));
}

static void action_announce(struct tree_seat *seat)
{
    clock_stop(seat);
    seat->up_ns = queue_now_ns();
    seat->ever_up = true;
    watch_begin(&seat->watch, seat->up_ns);
    device_rest_up(seat);
    if (seat->role == QUEUE_WORKER)
        seat->server->scalers[seat->model].start_s = (double)(seat->up_ns - seat->begun_ns) * 1e-9;
    log_event(LOG_LEVEL_INFO, "process ready", log_text("program", seat_program(seat)),
              log_number("seat_number", seat->number), log_number("pid", seat->pid));
}

/* ---- end ---- */

static void process_forget(struct tree_seat *seat)
{
    seat->gone_source = sd_event_source_disable_unref(seat->gone_source);
    seat->ready_source = sd_event_source_disable_unref(seat->ready_source);
    if (seat->ready_fd >= 0)
        close(seat->ready_fd);
    close(seat->pidfd);
    seat->ready_fd = seat->pidfd = -1;
    seat->pid = 0;
}

static bool by_fault(const struct tree_seat *seat, const siginfo_t *end)
{
    if (seat->hung)
        return !seat->stopped;
    /* Nobody outside makes a process exit. A worker does so on purpose when its device is lost. */
    if (end->si_code == CLD_EXITED)
        return end->si_status != 0 && loss_of_status(end->si_status) == LOSS_NONE;
    int number = end->si_status;
    return number == SIGSEGV || number == SIGABRT || number == SIGBUS || number == SIGILL ||
           number == SIGFPE;
}

static void end_tell(const struct tree_seat *seat, const siginfo_t *end)
{
    bool signalled = end->si_code != CLD_EXITED;
    const char *abbreviation = signalled ? sigabbrev_np(end->si_status) : NULL;
    bool calm = seat->state == TREE_DOWN && !signalled && end->si_status == 0;
    log_event(calm ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING,
              signalled ? "process killed" : "process ended",
              log_text("program", seat_program(seat)), log_number("seat_number", seat->number),
              log_number("pid", seat->pid),
              signalled ? log_text("signal", abbreviation ? abbreviation : "?")
                        : log_number("status", end->si_status),
              log_text("hung", seat->hung ? "yes" : "no"));
}

/* Those that a restart will not cure: wrong model data, a missing file or device, a wrong
 * configuration. */
static bool is_final(const siginfo_t *end)
{
    int status = end->si_status;
    return end->si_code == CLD_EXITED && (status == EX_DATAERR || status == EX_NOINPUT ||
                                          status == EX_UNAVAILABLE || status == EX_CONFIG);
}

/* What a worker that is gone was running: the lines that tell its clients' requests. */
static void jobs_tell(const struct tree_seat *seat)
{
    const struct queue *queue = &seat->server->queue;
    for (uint32_t slot = 0; slot < queue->slot_count; slot++) {
        uint64_t word = queue_word(queue, slot);
        enum queue_state state = queue_word_state(word);
        if ((state != QUEUE_RUN && state != QUEUE_STREAM) || queue_word_owner(word) != seat->index)
            continue;
        char request_id[QUEUE_ID_MAX];
        queue_request_id(queue, slot, request_id);
        log_event(LOG_LEVEL_WARNING, "a job lost its worker", log_text("request_id", request_id),
                  log_number("slot", slot), log_number("seat_number", seat->number),
                  log_number("pid", seat->pid),
                  log_number("deaths_before", queue_word_faults(word) + queue_word_kills(word)));
    }
}

/* Reap, then settle what the process held. The seat may have had no process if it could not be
 * started. */
static void action_bury(struct tree_seat *seat, siginfo_t *end)
{
    struct queue *queue = &seat->server->queue;
    clock_stop(seat);
    memset(end, 0, sizeof *end);
    if (!seat_has_process(seat))
        return;
    while (waitid(P_PIDFD, (id_t)seat->pidfd, end, WEXITED) && errno == EINTR)
        ;
    end_tell(seat, end);
    if (seat->role == QUEUE_WORKER && seat->index)
        jobs_tell(seat);
    index_leave(seat, by_fault(seat, end));
    device_rest_end(seat, device_rest_cause(seat, end));
    process_forget(seat);
    if (queue_apply_standing_rules(queue) > 0 || seat->role == QUEUE_WORKER) {
        seat_wake_role(queue, QUEUE_GATEWAY);
        seat_wake_role(queue, QUEUE_BROKER);
    }
}

/* Its index stays live in the queue, so that what it ran is out of use, and is given no more work.
 */
static void action_abandon(struct tree_seat *seat)
{
    struct server *server = seat->server;
    pid_t pid = seat->pid;
    graves_take(seat);
    clock_stop(seat);
    seat->index = 0;
    device_rest_end(seat, LOSS_NONE);
    process_forget(seat);
    log_event(LOG_LEVEL_ERROR, "a killed process does not go: it is condemned, and replaced",
              log_text("program", seat_program(seat)), log_number("pid", pid));
    counter_add(&server->queue.seats[seat->number].deaths, 1);
    seat->up_ns = 0;
    if (seat->state == TREE_BACKOFF)
        clock_set(seat, tree_delay_ms(seat->failures));
}

/* ---- what an end means for the next start ---- */

/* A process that was ready and was killed from outside (by hand, for memory) did nothing that
 * waiting would cure. */
static bool came_too_soon(const struct tree_seat *seat, const siginfo_t *end)
{
    bool killed = end->si_code == CLD_KILLED || end->si_code == CLD_DUMPED;
    if (!seat->up_ns)
        return true;
    if (killed && !by_fault(seat, end))
        return false;
    return queue_now_ns() - seat->up_ns <= TREE_STEADY_MS * UINT64_C(1000000);
}

static void action_delay(struct tree_seat *seat)
{
    siginfo_t end;
    uint64_t rest_ms = seat_has_process(seat) ? 0 : device_rest_left_ms(seat);
    if (rest_ms > 0) { /* it was not started, for its device's sake */
        clock_set(seat, rest_ms);
        return;
    }
    if (seat_has_process(seat))
        counter_add(&seat->server->queue.seats[seat->number].deaths, 1);
    action_bury(seat, &end);
    seat->failures = came_too_soon(seat, &end) ? seat->failures + 1 : 0;
    seat->up_ns = 0;
    clock_set(seat, tree_delay_ms(seat->failures));
    if (seat->ever_up || seat->extra)
        return;
    if (is_final(&end))
        loop_give_up(seat->server, end.si_status);
    else if (seat->failures >= SERVER_FIRST_TRIES)
        loop_give_up(seat->server, EX_SOFTWARE);
}

static void action_signal(struct tree_seat *seat, int number)
{
    if (!seat_has_process(seat))
        return;
    if (number == SIGKILL)
        seat->killed_ns = queue_now_ns();
    if (seat->index && seat->role == QUEUE_WORKER)
        atomic_store(&seat->server->queue.processes[seat->index].draining, 1);
    if (pidfd_send_signal(seat->pidfd, number, NULL, 0) && errno != ESRCH)
        log_event(LOG_LEVEL_ERROR, "cannot signal a process", log_number("pid", seat->pid),
                  log_text("error", strerror(errno)));
}

void seats_tell(struct server *server, enum queue_role role)
{
    for (uint32_t i = 0; i < server->seat_count; i++)
        if (server->seats[i].role == role && server->seats[i].state == TREE_UP)
            pidfd_send_signal(server->seats[i].pidfd, SIGHUP, NULL, 0);
}

/* ---- the machine ---- */

void seat_handle(struct tree_seat *seat, enum tree_event event)
{
    siginfo_t end;
    enum tree_state before = seat->state;
    struct tree_step step = tree_next(before, event);
    seat->state = step.next;
    switch (step.action) {
    case TREE_NOTHING: break;
    case TREE_SPAWN: action_spawn(seat); break;
    case TREE_ANNOUNCE: action_announce(seat); break;
    case TREE_BURY: action_bury(seat, &end); break;
    case TREE_DELAY: action_delay(seat); break;
    case TREE_TERM:
        clock_stop(seat);
        action_signal(seat, SIGTERM);
        break;
    case TREE_KILL:
        log_event(LOG_LEVEL_WARNING, "killing a process", log_text("program", seat_program(seat)),
                  log_number("pid", seat->pid), log_text("state", tree_state_name(before)));
        action_signal(seat, SIGKILL);
        break;
    case TREE_ABANDON: action_abandon(seat); break;
    case TREE_DISARM: clock_stop(seat); break;
    case TREE_ACTION_COUNT: break;
    }
    /* Wanted again while it was ending. */
    if (seat->state == TREE_DOWN && seat->want_up)
        seat_handle(seat, TREE_WANT_UP);
    loop_seat_changed(seat);
}

void seat_want(struct tree_seat *seat, bool up)
{
    seat->want_up = up;
    seat_handle(seat, up ? TREE_WANT_UP : TREE_WANT_DOWN);
}
