/* A child's side of the process tree: what the supervisor passed to it, and how to wake the others.
 */
#include "unetserve/seat.h"

#include "unetserve/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Beyond the drain: who can end in order has done so by then. */
#define OUTLIVE_GRACE_S 5

/* The value of "--name" in argv, which is taken out of it with its option; NULL if it is not there.
 */
static const char *option_take(const char *name, int *argc, char **argv)
{
    for (int i = 1; i + 1 < *argc; i++) {
        if (strcmp(argv[i], name) != 0)
            continue;
        const char *value = argv[i + 1];
        for (int k = i; k + 2 <= *argc; k++)
            argv[k] = argv[k + 2];
        *argc -= 2;
        return value;
    }
    return NULL;
}

static int number_take(const char *name, unsigned long limit, int *argc, char **argv,
                       unsigned long *out)
{
    const char *text = option_take(name, argc, argv);
    if (!text)
        return -EINVAL;
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || end == text || *end || value >= limit)
        return -EINVAL;
    *out = value;
    return 0;
}

static void close_on_exec(int fd)
{
    int flags = fcntl(fd, F_GETFD);
    if (flags >= 0)
        fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
}

static void inherited_close_on_exec(void)
{
    for (int fd = SEAT_FD_QUEUE; fd < SEAT_FD_MORE + SEAT_MAX_MORE; fd++)
        close_on_exec(fd);
}

bool seat_explain(int argc, char **argv, const char *name, const char *usage)
{
    for (int i = 1; i < argc; i++) {
        bool help = strcmp(argv[i], "--help") == 0;
        if (!help && strcmp(argv[i], "--version") != 0)
            continue;
        if (help)
            printf("%s", usage);
        else
            printf("%s " UNETSERVE_VERSION "\n", name);
        return fflush(stdout) == 0;
    }
    return false;
}

void seat_signals(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
}

static const struct seat_config_area *config_area; /* NULL: not mapped */
static uint32_t drain_at_start_ms;

uint32_t seat_drain_timeout_ms(uint32_t otherwise)
{
    return config_area ? atomic_load_explicit(&config_area->drain_timeout_ms, memory_order_relaxed)
                       : otherwise;
}

static pid_t supervisor;

/* SIGALRM ends the process, in the middle of anything. */
static void set_end(void)
{
    static volatile sig_atomic_t is_set;
    if (!is_set)
        alarm(seat_drain_timeout_ms(drain_at_start_ms) / 1000 + OUTLIVE_GRACE_S);
    is_set = 1;
}

/* Somebody lets a stopped process go on, or the supervisor has died. */
static void on_continued(int number)
{
    (void)number;
    if (getppid() != supervisor)
        set_end();
}

static bool supervisor_is_gone(void)
{
    struct pollfd line = {.fd = SEAT_FD_LIFE, .events = POLLIN};
    return poll(&line, 1, 0) == 1 && (line.revents & POLLHUP);
}

void seat_outlive(uint32_t drain_timeout_ms)
{
    struct sigaction action = {.sa_handler = on_continued, .sa_flags = SA_RESTART};
    drain_at_start_ms = drain_timeout_ms;
    supervisor = getppid();
    const void *area = mmap(NULL, sizeof *config_area, PROT_READ, MAP_SHARED, SEAT_FD_CONFIG, 0);
    config_area = area == MAP_FAILED ? NULL : area;
    sigaction(SIGCONT, &action, NULL);
    /* This signal, since one that is stopped then, or about to be, must go on to end itself. The
     * kernel does that for stopped processes whose group is orphaned, not for those whose threads
     * are still on their way to the stop. */
    prctl(PR_SET_PDEATHSIG, SIGCONT);
    /* It may have ended before it was asked to tell. */
    if (supervisor_is_gone())
        set_end();
}

int seat_take(enum queue_role role, int *argc, char **argv, struct seat *out)
{
    unsigned long number = 0;
    unsigned long index = 0;
    if (number_take("--seat", SEAT_MAX, argc, argv, &number) ||
        number_take("--index", QUEUE_MAX_PROCESSES, argc, argv, &index)) {
        log_event(LOG_LEVEL_ERROR, "this program is started by unetserve, with --seat and --index");
        return -EINVAL;
    }
    inherited_close_on_exec();
    struct seat seat = {
        .seat = (uint32_t)number,
        .index = (uint16_t)index,
        .role = role,
        .event_fd = SEAT_FD_EVENT + (int)number,
    };
    bool areas = role == QUEUE_GATEWAY || role == QUEUE_WORKER;
    int error = queue_attach(SEAT_FD_QUEUE, areas ? SEAT_FD_INPUTS : -1,
                             areas ? SEAT_FD_OUTPUTS : -1, &seat.queue);
    if (error) {
        log_event(LOG_LEVEL_ERROR, "cannot attach the queue", log_text("error", strerror(-error)));
        return error;
    }
    if (!queue_process_is(&seat.queue, seat.index, role) ||
        atomic_load(&seat.queue.processes[seat.index].seat) != seat.seat) {
        log_event(LOG_LEVEL_ERROR, "the process table does not know this process",
                  log_number("index", seat.index));
        queue_close(&seat.queue);
        return -EPROTO;
    }
    *out = seat;
    return 0;
}

/* A private copy of the current text, to be freed; NULL: the area cannot be read. */
static char *config_text(void)
{
    struct seat_config_area *area = mmap(NULL, sizeof *area, PROT_READ, MAP_SHARED, SEAT_FD_CONFIG,
                                         0);
    char *text = NULL;
    if (area == MAP_FAILED)
        return NULL;
    for (int attempt = 0; attempt < 8; attempt++) {
        uint32_t version = atomic_load_explicit(&area->version, memory_order_acquire);
        free(text);
        text = strndup(area->texts[version & 1], SEAT_CONFIG_TEXT_MAX - 1);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&area->version, memory_order_relaxed) == version)
            break;
    }
    munmap(area, sizeof *area);
    return text;
}

int seat_config(struct config *out)
{
    struct config_error error = {"it is not there"};
    config_init(out);
    char *text = config_text();
    int failed = text ? config_parse(text, strlen(text), "resolved configuration", out, &error)
                      : -ENOENT;
    free(text);
    if (failed)
        log_event(LOG_LEVEL_ERROR, "cannot read the configuration", log_text("error", error.text));
    return failed;
}

void seat_ready(struct seat *seat)
{
    atomic_store(&seat->queue.processes[seat->index].ready, 1);
    /* The supervisor may be gone by now; the life line tells, not this. */
    ssize_t written = write(SEAT_FD_READY, "\n", 1);
    (void)written;
    close(SEAT_FD_READY);
}

bool seat_gateways_gone(void)
{
    struct pollfd line = {.fd = SEAT_FD_GATEWAYS, .events = POLLIN};
    return poll(&line, 1, 0) == 1 && (line.revents & POLLHUP);
}

void seat_wake_seat(uint32_t seat)
{
    if (seat >= SEAT_MAX)
        return;
    uint64_t one = 1;
    /* A full counter is a wake-up already under way; a closed fd is a seat that this supervisor
     * never made. */
    ssize_t written = write(SEAT_FD_EVENT + (int)seat, &one, sizeof one);
    (void)written;
}

bool seat_awake(const struct seat *seat)
{
    return atomic_exchange_explicit(&seat->queue.processes[seat->index].attention, QUEUE_AWAKE,
                                    memory_order_acq_rel) &
           QUEUE_CALLED;
}

/* Both sides swap the same word, so one of them sees the other: who called before this is seen
 * here, with what it has done to the slots, and who calls after it finds nobody awake. */
bool seat_asleep(const struct seat *seat)
{
    return atomic_exchange_explicit(&seat->queue.processes[seat->index].attention, 0,
                                    memory_order_acq_rel) &
           QUEUE_CALLED;
}

/* The call of somebody who dies before the write is lost; the sleeper's rescan finds out. */
static void wake_unless(const struct queue *queue, uint32_t index, uint32_t attention)
{
    if (index == 0 || index >= QUEUE_MAX_PROCESSES)
        return;
    struct queue_process *process = &queue->processes[index];
    if (atomic_load_explicit(&process->life, memory_order_acquire) == QUEUE_VACANT)
        return;
    uint32_t before = atomic_fetch_or_explicit(&process->attention, QUEUE_CALLED,
                                               memory_order_acq_rel);
    if (!(before & attention))
        seat_wake_seat(atomic_load_explicit(&process->seat, memory_order_relaxed));
}

void seat_wake(const struct queue *queue, uint32_t index)
{
    wake_unless(queue, index, QUEUE_AWAKE);
}

void seat_call(const struct queue *queue, uint32_t index)
{
    wake_unless(queue, index, QUEUE_AWAKE | QUEUE_CALLED);
}

void seat_wake_role(const struct queue *queue, enum queue_role role)
{
    for (uint32_t i = 0; (i = queue_process_next(queue, i));)
        if (queue_process_is(queue, i, role))
            seat_wake(queue, i);
}

void seat_clear(const struct seat *seat)
{
    uint64_t count;
    ssize_t got = read(seat->event_fd, &count, sizeof count);
    (void)got;
}

void seat_tick(struct seat *seat)
{
    atomic_fetch_add_explicit(&seat->queue.processes[seat->index].tick, 1, memory_order_relaxed);
}

struct counters *seat_counters(const struct seat *seat)
{
    assert(seat->seat < SEAT_MAX);
    return &seat->queue.counters[seat->seat];
}
