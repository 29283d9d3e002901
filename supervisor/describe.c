#include "supervisor/describe.h"

#include "supervisor/python_command.h"
#include "supervisor/spawn.h"
#include "unetserve/interface_text.h"
#include "unetserve/layout.h"
#include "unetserve/queue.h"
#include "unetserve/seat.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#define DESCRIBE_MAX (1 << 20)

const char *describe_device(const struct config_model *model)
{
    return strcmp(model->devices, "auto") == 0 || strcmp(model->devices, "cpu") == 0 ? "cpu"
                                                                                     : "cuda";
}

static int asking_start(const struct config_model *model, struct describing *asking)
{
    char program[PATH_MAX];
    char tile[16];
    char max_batch[16];
    int pipes[2];
    int error = layout_program("unetserve-worker", program, sizeof program);
    if (error)
        return error;
    struct python_command python;
    bool is_python = config_model_is_python(model);
    snprintf(tile, sizeof tile, "%u", model->tile);
    snprintf(max_batch, sizeof max_batch, "%u", model->max_batch_size);
    const char *arguments[] = {"unetserve-worker",
                               "--describe",
                               "--model-path",
                               model->path,
                               "--device",
                               describe_device(model),
                               "--precision",
                               model->precision,
                               "--backend",
                               model->backend,
                               "--sandbox",
                               model->sandbox,
                               "--sandbox-paths",
                               model->sandbox_paths,
                               "--route",
                               model->route,
                               "--tile",
                               tile,
                               "--max-batch",
                               max_batch,
                               NULL};
    if (is_python && (error = python_command_make(model, arguments, &python)))
        return error;
    if (pipe2(pipes, O_CLOEXEC))
        return -errno;
    fcntl(pipes[0], F_SETFL, O_NONBLOCK);
    char **environment = spawn_environment(false, is_python ? python.environment : NULL);
    /* What the user's own file prints is not the answer. */
    struct spawn_fd fd = {pipes[1], is_python ? SEAT_FD_READY : STDOUT_FILENO};
    struct spawn spawn = {.path = is_python ? python.program : program,
                          .arguments = is_python ? python.arguments
                                                 : (char *const *)(uintptr_t)arguments,
                          .environment = environment,
                          .fds = &fd,
                          .fd_count = 1,
                          .die_with_parent = true};
    error = environment ? spawn_process(&spawn, &asking->pid, &asking->pidfd) : -ENOMEM;
    free(environment);
    close(pipes[1]);
    if (error)
        close(pipes[0]);
    else
        asking->output = pipes[0];
    return error;
}

/* Read to the end of its output. 0, -ETIMEDOUT, -EINTR, -EMSGSIZE. */
static int asking_listen(struct describing *asking, int timeout_ms, int signal_fd)
{
    uint64_t end_ns = queue_now_ns() + (uint64_t)timeout_ms * 1000000u;
    for (;;) {
        uint64_t now_ns = queue_now_ns();
        if (now_ns >= end_ns)
            return -ETIMEDOUT;
        struct pollfd fds[] = {{asking->output, POLLIN, 0}, {signal_fd, POLLIN, 0}};
        if (poll(fds, 2, (int)((end_ns - now_ns) / 1000000u) + 1) < 0 && errno != EINTR)
            return -errno;
        if (fds[1].revents)
            return -EINTR;
        if (!fds[0].revents)
            continue;
        if (asking->size == DESCRIBE_MAX)
            return -EMSGSIZE;
        ssize_t got = read(asking->output, asking->text + asking->size,
                           DESCRIBE_MAX - asking->size);
        if (got < 0 && errno != EINTR && errno != EAGAIN)
            return -errno;
        if (got == 0)
            return 0;
        asking->size += got > 0 ? (size_t)got : 0;
    }
}

/* Closes everything; the process is gone afterwards. Returns its exit status, or minus the signal
 * that ended it. */
static int asking_end(struct describing *asking, bool killed)
{
    siginfo_t end = {0};
    /* Its output is at an end: it is ending, or about to be made to. */
    struct pollfd fd = {asking->pidfd, POLLIN, 0};
    if (killed || poll(&fd, 1, 5000) == 0)
        kill(asking->pid, SIGKILL);
    /* One that cannot be killed is not waited for. */
    end.si_status = SIGKILL;
    if (poll(&fd, 1, 5000) == 1)
        while (waitid(P_PID, (id_t)asking->pid, &end, WEXITED) && errno == EINTR)
            ;
    close(asking->pidfd);
    close(asking->output);
    return end.si_code == CLD_EXITED ? end.si_status : -end.si_status;
}

static int complain(const struct config_model *model, int status, const char *what)
{
    fprintf(stderr, "unetserve: model '%s' (%s): %s\n", model->name, model->path, what);
    return status;
}

static int judge(const struct config_model *model, int heard, int end,
                 const struct describing *asking, struct unetserve_interface *out)
{
    if (heard == -EINTR)
        return -EINTR;
    if (heard == -ETIMEDOUT)
        return complain(model, EX_SOFTWARE, "unetserve-worker did not describe it in time");
    if (heard == -EMSGSIZE)
        return complain(model, EX_SOFTWARE, "unetserve-worker described it at too great length");
    if (heard)
        return complain(model, EX_SOFTWARE, strerror(-heard));
    /* What is wrong stands on stderr already, in the worker's words. */
    if (end == EX_DATAERR || end == EX_NOINPUT || end == EX_UNAVAILABLE || end == EX_USAGE ||
        end == EX_CONFIG)
        return end == EX_USAGE ? EX_CONFIG : end;
    if (config_model_is_python(model) && (end != 0 || asking->size == 0))
        return complain(model, EX_SOFTWARE, "its interpreter ended before LitServer.run()");
    if (end != 0)
        return complain(model, EX_SOFTWARE,
                        end < 0 ? "unetserve-worker crashed describing it"
                                : "unetserve-worker could not describe it");
    if (interface_from_json(asking->text, asking->size, out))
        return complain(model, EX_SOFTWARE, "unetserve-worker's description cannot be read");
    return 0;
}

int describe_begin(const struct config_model *model, struct describing *out)
{
    if (access(model->path, R_OK))
        return complain(model, EX_NOINPUT, strerror(errno));
    struct describing describing = {.text = malloc(DESCRIBE_MAX)};
    int error = describing.text ? asking_start(model, &describing) : -ENOMEM;
    if (!error) {
        *out = describing;
        return 0;
    }
    free(describing.text);
    if (error == -ENXIO)
        return complain(model, EX_CONFIG, "no python3 in PATH; key 'python' may name one");
    return complain(model, EX_OSERR,
                    error == -ENOENT ? "unetserve-worker is not where unetserve looks for it"
                                     : strerror(-error));
}

static int conclude(const struct config_model *model, struct describing *describing, int heard,
                    struct unetserve_interface *out)
{
    int end = asking_end(describing, heard != 0);
    int result = judge(model, heard, end, describing, out);
    free(describing->text);
    return result;
}

bool describe_listen(struct describing *describing)
{
    while (describing->size < DESCRIBE_MAX) {
        ssize_t got = read(describing->output, describing->text + describing->size,
                           DESCRIBE_MAX - describing->size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 && errno == EAGAIN;
        describing->size += (size_t)got;
    }
    return false;
}

int describe_finish(const struct config_model *model, struct describing *describing,
                    struct unetserve_interface *out)
{
    struct pollfd fd = {describing->pidfd, POLLIN, 0};
    bool ended = poll(&fd, 1, 0) == 1;
    describe_listen(describing);
    int heard = !ended ? -ETIMEDOUT : describing->size == DESCRIBE_MAX ? -EMSGSIZE : 0;
    return conclude(model, describing, heard, out);
}

int describe_model(const struct config_model *model, int timeout_ms, int signal_fd,
                   struct unetserve_interface *out)
{
    struct describing describing;
    int status = describe_begin(model, &describing);
    if (status)
        return status;
    return conclude(model, &describing, asking_listen(&describing, timeout_ms, signal_fd), out);
}
