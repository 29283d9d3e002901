/* One seat: what the actions of tree.h do to its process. */
#include "supervisor/describe.h"
#include "supervisor/device_rest.h"
#include "supervisor/python_command.h"
#include "supervisor/server.h"
#include "supervisor/spawn.h"
#include "unetserve/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#define WORKER_OOM_SCORE 300
#define ARGUMENTS_MAX    24

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

/* The words of a command line, kept until the program runs. */
struct command {
    char *words[ARGUMENTS_MAX];
    size_t count;
    char seat[16], index[16], model[16], threads[16], node[16], cores[512], omp[40];
    char visible[GPU_TEXT_MAX + 32];
    char **environment;
    const char *program;
    char *const *arguments;
    struct python_command python;
};

static void word_add(struct command *command, const char *word)
{
    if (command->count + 1 < ARGUMENTS_MAX)
        command->words[command->count++] = (char *)(uintptr_t)word;
}

static void option_add(struct command *command, const char *option, const char *value)
{
    word_add(command, option);
    word_add(command, value);
}

/* How many workers, at most, are bound to the same cores as that GPU's. */
static unsigned workers_near(const struct server *server, const struct gpu_entry *gpu)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < server->seat_count; i++) {
        const struct tree_seat *seat = &server->seats[i];
        const struct gpu_entry *other = seat->role == QUEUE_WORKER && seat != server->spare
                                            ? server_gpu(seat)
                                            : NULL;
        count += other && memcmp(other->cpus, gpu->cpus, sizeof gpu->cpus) == 0;
    }
    return count ? count : 1;
}

/* The GPU alone, the cores beside it, all of them, and memory there. Threads: as many as if the
 * cores were divided among those who are bound to them. */
static unsigned command_gpu(const struct tree_seat *seat, const struct gpu_entry *gpu,
                            struct command *command, struct core_share *share)
{
    const struct server *server = seat->server;
    core_share_near(&server->cores, gpu->cpus, share);
    snprintf(command->visible, sizeof command->visible, "CUDA_VISIBLE_DEVICES=%s", gpu->uuid);
    snprintf(command->node, sizeof command->node, "%d", gpu->node);
    if (gpu->node >= 0)
        option_add(command, "--memory-node", command->node);
    unsigned threads = share->count / workers_near(server, gpu);
    return threads ? threads : 1;
}

static void command_worker(const struct tree_seat *seat, struct command *command)
{
    const struct server *server = seat->server;
    const struct config_model *model = &server->config->models[seat->model];
    const struct gpu_entry *gpu = server_gpu(seat);
    struct core_share share;
    unsigned threads;
    if (gpu) {
        threads = command_gpu(seat, gpu, command, &share);
    } else {
        core_share_cut(&server->cores, server->cpu_workers, seat->worker, &share);
        threads = share.count;
    }
    threads = model->threads ? model->threads : threads;
    snprintf(command->model, sizeof command->model, "%u", seat->model);
    snprintf(command->threads, sizeof command->threads, "%u", threads);
    option_add(command, "--model", command->model);
    option_add(command, "--device", describe_device(model));
    if (core_share_format(&share, command->cores, sizeof command->cores))
        option_add(command, "--cores", command->cores);
    option_add(command, "--threads", command->threads);
    snprintf(command->omp, sizeof command->omp, "OMP_NUM_THREADS=%u", threads);
}

/* The same words for a Python model's interpreter. */
static int command_python(const struct tree_seat *seat, struct command *command, const char **extra)
{
    const struct config_model *model = &seat->server->config->models[seat->model];
    if (!config_model_is_python(model))
        return 0;
    int error = python_command_make(model, (const char *const *)(uintptr_t)command->words,
                                    &command->python);
    if (error)
        return error;
    command->program = command->python.program;
    command->arguments = command->python.arguments;
    for (size_t i = 0; command->python.environment[i]; i++)
        extra[i] = command->python.environment[i];
    return 0;
}

static int command_make(const struct tree_seat *seat, struct command *command)
{
    static const char *const passive = "OMP_WAIT_POLICY=PASSIVE";
    const char *extra[3 + PYTHON_COMMAND_VARIABLES + 1] = {NULL};
    memset(command, 0, sizeof *command);
    command->program = seat->server->programs[seat->role];
    command->arguments = command->words;
    word_add(command, strrchr(seat->server->programs[seat->role], '/') + 1);
    snprintf(command->seat, sizeof command->seat, "%u", seat->number);
    snprintf(command->index, sizeof command->index, "%u", seat->index);
    option_add(command, "--seat", command->seat);
    option_add(command, "--index", command->index);
    if (seat->role == QUEUE_GATEWAY && seat->gateway == LISTENERS_MAX_GATEWAYS)
        option_add(command, "--front", "zmq");
    if (seat->role == QUEUE_WORKER) {
        command_worker(seat, command);
        extra[0] = command->omp;
        /* Threads that spin between jobs would take the cores from the gateways. */
        size_t count = 1;
        if (!getenv("OMP_WAIT_POLICY"))
            extra[count++] = passive;
        if (command->visible[0])
            extra[count++] = command->visible;
        int error = command_python(seat, command, &extra[count]);
        if (error)
            return error;
    }
    command->environment = spawn_environment(seat->role == QUEUE_GATEWAY, extra);
    return command->environment ? 0 : -ENOMEM;
}

static size_t fds_listening(const struct tree_seat *seat, struct spawn_fd *fds)
{
    const struct listeners *listeners = &seat->server->listeners;
    size_t count = 0;
    int more = SEAT_FD_MORE;
    for (uint32_t i = 0; i < listeners->count; i++)
        fds[count++] = (struct spawn_fd){listeners->fds[seat->gateway][i], SEAT_FD_LISTEN + (int)i};
    for (uint32_t i = 0; i < listeners->extra_count; i++)
        if (listeners->extras[i].gateway == seat->gateway)
            fds[count++] = (struct spawn_fd){listeners->extras[i].fd, more++};
    return count;
}

/* The gateway's end of its pair, or all of the others. */
static size_t fds_of_auth(const struct tree_seat *seat, struct spawn_fd *fds)
{
    const struct server *server = seat->server;
    size_t count = 0;
    if (seat->role == QUEUE_GATEWAY && seat->gateway < LISTENERS_MAX_GATEWAYS)
        fds[count++] = (struct spawn_fd){server->auth_pairs[seat->gateway][0], SEAT_FD_AUTH};
    if (seat->role == QUEUE_AUTH)
        fds[count++] = (struct spawn_fd){server->auth_keys_fd, SEAT_FD_KEYS};
    for (uint32_t i = 0; seat->role == QUEUE_AUTH && i < server->config->gateways; i++)
        fds[count++] = (struct spawn_fd){server->auth_pairs[i][1], SEAT_FD_MORE + (int)i};
    return count;
}

static size_t fds_collect(const struct tree_seat *seat, int ready_fd, struct spawn_fd *fds)
{
    const struct server *server = seat->server;
    size_t count = 0;
    fds[count++] = (struct spawn_fd){server->queue.fd, SEAT_FD_QUEUE};
    if (seat->role == QUEUE_GATEWAY) {
        fds[count++] = (struct spawn_fd){server->queue.inputs_fd, SEAT_FD_INPUTS};
        fds[count++] = (struct spawn_fd){server->read_outputs_fd, SEAT_FD_OUTPUTS};
    } else if (seat->role == QUEUE_WORKER) {
        fds[count++] = (struct spawn_fd){server->read_inputs_fd, SEAT_FD_INPUTS};
        fds[count++] = (struct spawn_fd){server->queue.outputs_fd, SEAT_FD_OUTPUTS};
    }
    fds[count++] = (struct spawn_fd){server->config_fd, SEAT_FD_CONFIG};
    fds[count++] = (struct spawn_fd){ready_fd, SEAT_FD_READY};
    fds[count++] = (struct spawn_fd){server->life[0], SEAT_FD_LIFE};
    fds[count++] = (struct spawn_fd){server->gateway_line[seat->role == QUEUE_GATEWAY],
                                     SEAT_FD_GATEWAYS};
    if (seat->role == QUEUE_GATEWAY && seat->gateway < LISTENERS_MAX_GATEWAYS)
        count += fds_listening(seat, fds + count);
    count += fds_of_auth(seat, fds + count);
    for (uint32_t i = 0; i < server->seat_count; i++)
        fds[count++] = (struct spawn_fd){SEAT_FD_EVENT + (int)i, SEAT_FD_EVENT + (int)i};
    return count;
}

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
    struct command command;
    struct spawn_fd fds[SPAWN_MAX_FDS];
    int error = command_make(seat, &command);
    if (error)
        return error;
    struct spawn spawn = {
        .path = command.program,
        .arguments = command.arguments,
        .environment = command.environment,
        .fds = fds,
        .fd_count = fds_collect(seat, ready_write_fd, fds),
        .oom_score_adj = seat->role == QUEUE_WORKER ? WORKER_OOM_SCORE : 0,
    };
    error = spawn_process(&spawn, &seat->pid, &seat->pidfd);
    free(command.environment);
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
        return end->si_status != 0 && end->si_status != EX_IOERR;
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
    device_rest_end(seat, device_rest_is_cause(seat, end));
    process_forget(seat);
    if (queue_apply_standing_rules(queue) > 0 || seat->role == QUEUE_WORKER) {
        seat_wake_role(queue, QUEUE_GATEWAY);
        seat_wake_role(queue, QUEUE_BROKER);
    }
}

static void settle(struct queue *queue)
{
    queue_apply_standing_rules(queue);
    seat_wake_role(queue, QUEUE_GATEWAY);
    seat_wake_role(queue, QUEUE_BROKER);
}

/* ---- the graveyard ---- */

unsigned seats_condemned(const struct server *server)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < SERVER_MAX_GRAVES; i++)
        count += server->graves[i].index != 0;
    return count;
}

static struct tree_grave *grave_find(struct server *server)
{
    for (uint32_t i = 0; i < SERVER_MAX_GRAVES; i++)
        if (!server->graves[i].index)
            return &server->graves[i];
    return NULL;
}

static int on_grave_gone(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)source;
    (void)events;
    struct tree_grave *grave = opaque;
    struct queue *queue = &grave->server->queue;
    siginfo_t end;
    while (waitid(P_PIDFD, (id_t)fd, &end, WEXITED) && errno == EINTR)
        ;
    log_event(LOG_LEVEL_WARNING, "a condemned process is gone", log_number("pid", grave->pid));
    queue_process_leave(queue, grave->index, grave->by_fault);
    grave->gone_source = sd_event_source_disable_unref(grave->gone_source);
    close(grave->pidfd);
    *grave = (struct tree_grave){.index = 0};
    settle(queue);
    return 0;
}

/* Its index stays live in the queue, so that what it ran is out of use, and is given no more work.
 */
static void action_abandon(struct tree_seat *seat)
{
    struct server *server = seat->server;
    struct tree_grave *grave = grave_find(server);
    assert(grave && seat->index);
    *grave = (struct tree_grave){.server = server,
                                 .index = seat->index,
                                 .pid = seat->pid,
                                 .pidfd = fcntl(seat->pidfd, F_DUPFD_CLOEXEC, 0),
                                 .by_fault = seat->hung && !seat->stopped};
    clock_stop(seat);
    seat->index = 0;
    device_rest_end(seat, false);
    process_forget(seat);
    atomic_store(&server->queue.processes[grave->index].life, QUEUE_CONDEMNED);
    if (grave->pidfd < 0 || sd_event_add_io(server->event, &grave->gone_source, grave->pidfd,
                                            EPOLLIN, on_grave_gone, grave) < 0)
        log_event(LOG_LEVEL_ERROR, "a condemned process will not be missed",
                  log_number("pid", grave->pid));
    log_event(LOG_LEVEL_ERROR, "a killed process does not go: it is condemned, and replaced",
              log_text("program", seat_program(seat)), log_number("pid", grave->pid));
    counter_add(&server->queue.seats[seat->number].deaths, 1);
    settle(&server->queue);
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
