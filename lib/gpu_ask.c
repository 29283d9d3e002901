/* Asking unetserve-gpu, within bounds. */
#include "lib/gpu_list.h"

#include "unetserve/layout.h"
#include "unetserve/queue.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANSWER_MAX (1 << 20)
#define ENDING_MS  2000

struct asking {
    pid_t pid;
    int pidfd;
    int output;
    size_t size;
    char *text; /* ANSWER_MAX */
};

/* Nothing of this process but its standard error; signals as they come. */
static int child_start(const char *program, int output, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    char *const arguments[] = {(char *)(uintptr_t) "unetserve-gpu", (char *)(uintptr_t) "--list",
                               NULL};
    int error = posix_spawn_file_actions_init(&actions);
    if (error)
        return -error;
    error = posix_spawnattr_init(&attributes);
    if (error) {
        posix_spawn_file_actions_destroy(&actions);
        return -error;
    }
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    error = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (!error)
        error = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    if (!error)
        error = posix_spawn(pid, program, &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return -error;
}

static int begin(struct asking *asking)
{
    char program[PATH_MAX];
    int pipes[2];
    int error = layout_program("unetserve-gpu", program, sizeof program);
    if (error)
        return error;
    if (pipe2(pipes, O_CLOEXEC))
        return -errno;
    error = child_start(program, pipes[1], &asking->pid);
    close(pipes[1]);
    asking->output = pipes[0];
    asking->pidfd = error ? -1 : pidfd_open(asking->pid, 0);
    if (!error && asking->pidfd < 0) {
        error = -errno;
        kill(asking->pid, SIGKILL);
        waitpid(asking->pid, NULL, 0);
    }
    if (error)
        close(pipes[0]);
    return error;
}

/* To the end of what it says. 0, -ETIMEDOUT, -EMSGSIZE, ... */
static int listen_to(struct asking *asking)
{
    uint64_t end_ns = queue_now_ns() + GPU_LIST_WAIT_MS * UINT64_C(1000000);
    for (;;) {
        uint64_t now_ns = queue_now_ns();
        if (now_ns >= end_ns)
            return -ETIMEDOUT;
        struct pollfd fd = {asking->output, POLLIN, 0};
        int ready = poll(&fd, 1, (int)((end_ns - now_ns) / 1000000) + 1);
        if (ready < 0 && errno != EINTR)
            return -errno;
        if (ready <= 0)
            continue;
        if (asking->size == ANSWER_MAX)
            return -EMSGSIZE;
        ssize_t got = read(asking->output, asking->text + asking->size, ANSWER_MAX - asking->size);
        if (got < 0 && errno != EINTR)
            return -errno;
        if (got == 0)
            return 0;
        asking->size += got > 0 ? (size_t)got : 0;
    }
}

/* One that a driver holds cannot be killed, and is not waited for. */
static void end(const struct asking *asking, bool killed)
{
    struct pollfd fd = {asking->pidfd, POLLIN, 0};
    if (killed || poll(&fd, 1, ENDING_MS) != 1)
        kill(asking->pid, SIGKILL);
    if (poll(&fd, 1, ENDING_MS) == 1)
        waitpid(asking->pid, NULL, 0);
    close(asking->pidfd);
    close(asking->output);
}

static int ask(struct asking *asking, struct gpu_list *out)
{
    asking->text = malloc(ANSWER_MAX);
    int error = asking->text ? begin(asking) : -ENOMEM;
    if (!error) {
        error = listen_to(asking);
        end(asking, error != 0);
    }
    if (!error)
        error = gpu_list_from_json(asking->text, asking->size, out);
    free(asking->text);
    return error;
}

void gpu_list_ask(struct gpu_list *out)
{
    struct asking asking = {.pid = 0};
    memset(out, 0, sizeof *out);
    int error = ask(&asking, out);
    if (error == -ETIMEDOUT)
        snprintf(out->error, sizeof out->error,
                 "the NVIDIA driver did not tell its GPUs within %d s", GPU_LIST_WAIT_MS / 1000);
    else if (error == -ENOENT)
        snprintf(out->error, sizeof out->error, "unetserve-gpu, which finds GPUs, is not here");
    else if (error)
        snprintf(out->error, sizeof out->error, "unetserve-gpu could not tell the GPUs: %s",
                 error == -EBADMSG ? "it ended without an answer" : strerror(-error));
}
