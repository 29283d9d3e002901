#include "supervisor/seat_command.h"

#include "supervisor/describe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKER_OOM_SCORE 300

/* ---- words and environment ---- */

static void word_add(struct seat_command *command, const char *word)
{
    if (command->count + 1 < SEAT_COMMAND_MAX_WORDS)
        command->words[command->count++] = (char *)(uintptr_t)word;
}

static void option_add(struct seat_command *command, const char *option, const char *value)
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
                            struct seat_command *command, struct core_share *share)
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

static void command_worker(const struct tree_seat *seat, struct seat_command *command)
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
static int command_python(const struct tree_seat *seat, struct seat_command *command,
                          const char **extra)
{
    const struct config_model *model = &seat->server->config->models[seat->model];
    if (!config_model_is_python(model))
        return 0;
    int error = python_command_make(model, (const char *const *)(uintptr_t)command->words,
                                    &command->python);
    if (error)
        return error;
    command->spawn.path = command->python.program;
    command->spawn.arguments = command->python.arguments;
    for (size_t i = 0; command->python.environment[i]; i++)
        extra[i] = command->python.environment[i];
    return 0;
}

static int command_words(const struct tree_seat *seat, struct seat_command *command)
{
    static const char *const passive = "OMP_WAIT_POLICY=PASSIVE";
    const char *extra[3 + PYTHON_COMMAND_VARIABLES + 1] = {NULL};
    command->spawn.path = seat->server->programs[seat->role];
    command->spawn.arguments = command->words;
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

/* ---- file descriptors ---- */

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

int seat_command_make(const struct tree_seat *seat, int ready_fd, struct seat_command *out)
{
    memset(out, 0, sizeof *out);
    int error = command_words(seat, out);
    if (error)
        return error;
    out->spawn.environment = out->environment;
    out->spawn.fds = out->fds;
    out->spawn.fd_count = fds_collect(seat, ready_fd, out->fds);
    out->spawn.oom_score_adj = seat->role == QUEUE_WORKER ? WORKER_OOM_SCORE : 0;
    return 0;
}

void seat_command_free(struct seat_command *command)
{
    free(command->environment);
}
