#include "supervisor/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Copies are made up here first, above every target, so that no source is overwritten before it was
 * used. */
#define SPAWN_ABOVE 256

/* ---- in the child, between fork and exec: async-signal-safe calls only ---- */

static void child_signals_reset(void)
{
    struct sigaction usual = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &usual, NULL); /* fails for a few, which are as they must be */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static int child_fds_arrange(const struct spawn *spawn)
{
    int high[SPAWN_MAX_FDS];
    for (size_t i = 0; i < spawn->fd_count; i++) {
        high[i] = fcntl(spawn->fds[i].from, F_DUPFD_CLOEXEC, SPAWN_ABOVE);
        if (high[i] < 0)
            return -1;
    }
    if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC))
        return -1;
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        return -1;
    for (size_t i = 0; i < spawn->fd_count; i++)
        if (dup2(high[i], spawn->fds[i].to) < 0)
            return -1;
    return 0;
}

/* A worker is what the kernel should end first when memory runs out: it can be replaced. */
static void child_oom_score_raise(int score)
{
    char text[16];
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    int length = snprintf(text, sizeof text, "%d", score);
    ssize_t written = write(fd, text, (size_t)length);
    (void)written; /* where it is forbidden, nothing is lost but the order of dying */
    close(fd);
}

static void child_say(const char *text)
{
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written; /* there is nobody else to tell */
}

__attribute__((noreturn)) static void child_run(const struct spawn *spawn, pid_t parent)
{
    /* A group of its own: a terminal's Ctrl-C goes to the supervisor, which ends the others in
     * order. */
    setpgid(0, 0);
    if (spawn->die_with_parent && (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent))
        _exit(127);
    /* One that somebody has stopped when this process dies goes on, to end itself. */
    if (!spawn->die_with_parent)
        prctl(PR_SET_PDEATHSIG, SIGCONT);
    child_signals_reset();
    if (spawn->oom_score_adj > 0)
        child_oom_score_raise(spawn->oom_score_adj);
    if (child_fds_arrange(spawn) == 0)
        execve(spawn->path, spawn->arguments, spawn->environment);
    const char *reason = strerrordesc_np(errno);
    child_say("unetserve: a program could not be started: ");
    child_say(spawn->path);
    child_say(": ");
    child_say(reason ? reason : "?");
    child_say("\n");
    _exit(127);
}

/* ---- in this process ---- */

int spawn_process(const struct spawn *spawn, pid_t *pid, int *pidfd)
{
    if (spawn->fd_count > SPAWN_MAX_FDS)
        return -EINVAL;
    pid_t parent = getpid();
    pid_t child = fork();
    if (child < 0)
        return -errno;
    if (child == 0)
        child_run(spawn, parent);
    /* Nobody but this process reaps, so the number still means that child. */
    int fd = pidfd_open(child, 0);
    if (fd < 0) {
        int error = -errno;
        kill(child, SIGKILL);
        waitid(P_PID, (id_t)child, NULL, WEXITED);
        return error;
    }
    *pid = child;
    *pidfd = fd;
    return 0;
}

static bool names_same(const char *entry, const char *name)
{
    size_t length = strcspn(name, "=");
    return strncmp(entry, name, length) == 0 && entry[length] == '=';
}

static bool environment_keeps(const char *entry, bool with_key, const char *const *extra)
{
    static const char *const never[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
                                        "LISTEN_FDS",    "LISTEN_PID",    "LISTEN_FDNAMES"};
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++)
        if (names_same(entry, never[i]))
            return false;
    if (!with_key &&
        (names_same(entry, "UNETSERVE_API_KEY") || names_same(entry, "LIT_SERVER_API_KEY")))
        return false;
    for (size_t i = 0; extra && extra[i]; i++)
        if (names_same(entry, extra[i]))
            return false;
    return true;
}

char **spawn_environment(bool with_key, const char *const *extra)
{
    size_t count = 1;
    for (char **entry = environ; entry && *entry; entry++)
        count++;
    for (size_t i = 0; extra && extra[i]; i++)
        count++;
    char **list = calloc(count, sizeof *list);
    if (!list)
        return NULL;
    size_t at = 0;
    for (char **entry = environ; entry && *entry; entry++)
        if (environment_keeps(*entry, with_key, extra))
            list[at++] = *entry;
    for (size_t i = 0; extra && extra[i]; i++)
        list[at++] = (char *)(uintptr_t)extra[i];
    return list;
}
