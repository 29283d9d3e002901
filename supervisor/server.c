#include "supervisor/server.h"
#include "supervisor/device_rest.h"

#include "lib/auth_wire.h"
#include "lib/config_address.h"
#include "lib/config_oauth.h"
#include "supervisor/geometry.h"
#include "supervisor/limits.h"
#include "unetserve/layout.h"
#include "unetserve/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

/* The ZeroMQ front, the broker, auth, who watches GPUs, and the spare worker. */
#define SEATS_BESIDE 5

#define QUEUE_MEMORY_MOST (UINT64_C(1) << 30)

__attribute__((format(printf, 2, 3))) static int complain(int status, const char *format, ...)
{
    va_list arguments;
    char sentence[600];
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    fprintf(stderr, "unetserve: %s\n", sentence);
    return status;
}

uint32_t server_workers(const struct config_model *model)
{
    return config_model_workers(model);
}

int server_plan_queue(const struct config *config, const struct unetserve_interface *interfaces,
                      struct queue_geometry *out)
{
    struct geometry_request request = {
        .interfaces = interfaces,
        .model_count = config->model_count,
        .memory = config->queue_memory,
        .max_body_bytes = config->max_body_bytes,
    };
    uint64_t needed = 0;
    if (request.memory == 0) {
        request.memory = limits_memory() / 4;
        if (request.memory > QUEUE_MEMORY_MOST)
            request.memory = QUEUE_MEMORY_MOST;
    }
    for (uint32_t i = 0; i < config->model_count; i++) {
        request.tiles[i] = config->models[i].tile;
        request.responses[i] = config->models[i].max_response_bytes;
    }
    if (geometry_plan(&request, out, &needed)) {
        uint64_t least_mib = (needed >> 20) + 1;
        return complain(EX_CONFIG,
                        "key 'queue_memory': %" PRIu64 " bytes do not hold one job of each model; "
                        "allowed: %" PRIu64 "M or more",
                        request.memory, least_mib);
    }
    return 0;
}

static int queue_open(struct server *server)
{
    const struct config *config = server->config;
    struct queue_geometry geometry;
    int status = server_plan_queue(config, server->interfaces, &geometry);
    if (status)
        return status;
    int error = queue_create(&geometry, &server->queue);
    if (error)
        return complain(EX_OSERR, "cannot make the job queue: %s", strerror(-error));
    queue_leave_areas(&server->queue);
    error = queue_open_readers(&server->queue, &server->read_inputs_fd, &server->read_outputs_fd);
    if (error)
        return complain(EX_OSERR, "cannot open the job queue for reading, is /proc mounted: %s",
                        strerror(-error));
    for (uint32_t i = 0; i < config->model_count; i++) {
        struct queue_model *model = &server->queue.models[i];
        snprintf(model->name, sizeof model->name, "%s", config->models[i].name);
        snprintf(model->route, sizeof model->route, "%s", config->models[i].route);
        atomic_store(&model->workers_wanted, server_workers(&config->models[i]));
        server_tell_batching(server, i);
    }
    for (uint32_t i = 0; i < server->seat_count; i++)
        atomic_store(&server->queue.seats[i].role, server->seats[i].role);
    device_rest_begin(server);
    return 0;
}

void server_tell_batching(struct server *server, uint32_t model)
{
    const struct config_model *config = &server->config->models[model];
    const struct unetserve_interface *interface = &server->interfaces[model];
    struct queue_model *to = &server->queue.models[model];
    uint32_t timeout_us = config->batch_timeout_us;
    if (timeout_us == CONFIG_MODELS_CHOICE)
        timeout_us = interface->batch_timeout_ms < UINT32_MAX / 1000
                         ? interface->batch_timeout_ms * 1000
                         : UINT32_MAX;
    atomic_store(&to->max_batch,
                 config->max_batch_size ? config->max_batch_size : interface->max_batch);
    atomic_store(&to->batch_timeout_us, timeout_us);
    atomic_store(&to->batch_always, strcmp(config->batch_wait, "always") == 0);
}

/* Mapped before it is sealed, so that this process alone can write. */
static int config_area_open(struct server *server)
{
    struct seat_config_area *area = MAP_FAILED;
    int fd = memfd_create("unetserve-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 && ftruncate(fd, sizeof *area) == 0)
        area = mmap(NULL, sizeof *area, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    server->config_fd = fd;
    if (area == MAP_FAILED ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL))
        return complain(EX_OSERR, "cannot hand on the configuration");
    madvise(area, sizeof *area, MADV_DONTFORK);
    server->config_area = area;
    return 0;
}

int server_publish_config(struct server *server)
{
    struct seat_config_area *area = server->config_area;
    uint32_t next = atomic_load(&area->version) + 1;
    char *text = area->texts[next & 1];
    long length = config_write(server->config, text, SEAT_CONFIG_TEXT_MAX - 1);
    if (length < 0)
        return complain(EX_OSERR, "cannot hand on the configuration");
    text[length] = '\0';
    atomic_store_explicit(&area->drain_timeout_ms, server->config->drain_timeout_ms,
                          memory_order_relaxed);
    atomic_store_explicit(&area->version, next, memory_order_release);
    return 0;
}

static struct tree_seat *seat_add(struct server *server, enum queue_role role)
{
    struct tree_seat *seat = &server->seats[server->seat_count];
    *seat = (struct tree_seat){
        .server = server, .number = server->seat_count, .role = role, .pidfd = -1, .ready_fd = -1};
    server->seat_count++;
    return seat;
}

const struct gpu_entry *server_gpu(const struct tree_seat *seat)
{
    const char *at = seat->server->config->models[seat->model].devices;
    char uuid[GPU_TEXT_MAX];
    for (uint32_t i = 0; i < seat->device && *at; i++) {
        at += strcspn(at, ",");
        at += *at == ',';
    }
    size_t length = strcspn(at, ",");
    if (length == 0 || length >= sizeof uuid)
        return NULL;
    memcpy(uuid, at, length);
    uuid[length] = '\0';
    const struct gpu_entry *entry = gpu_list_find(seat->server->gpus, uuid);
    return entry && strcmp(entry->uuid, uuid) == 0 ? entry : NULL;
}

/* Devices are dealt out in turn, so that workers that come and go with the load spread. */
static void workers_plan(struct server *server, uint32_t model)
{
    const struct config_model *config = &server->config->models[model];
    for (uint32_t w = 0; w < scaler_most(config, server->cores.count); w++) {
        struct tree_seat *seat = seat_add(server, QUEUE_WORKER);
        seat->model = model;
        seat->device = w % config_model_devices(config);
        seat->extra = w >= server_workers(config);
        if (!server_gpu(seat))
            seat->worker = server->cpu_workers++;
    }
}

static int seats_plan(struct server *server)
{
    const struct config *config = server->config;
    for (uint32_t i = 0; i < config->model_count; i++)
        server->workers += scaler_most(&config->models[i], server->cores.count);
    if (server->workers + config->gateways + SEATS_BESIDE > SEAT_MAX)
        return complain(EX_CONFIG, "%u workers and %u gateways are too many; allowed: %d together",
                        server->workers, config->gateways, SEAT_MAX - SEATS_BESIDE);
    for (uint32_t g = 0; g < config->gateways; g++)
        seat_add(server, QUEUE_GATEWAY)->gateway = g;
    seat_add(server, QUEUE_GATEWAY)->gateway = LISTENERS_MAX_GATEWAYS;
    seat_add(server, QUEUE_BROKER);
    server->auth = seat_add(server, QUEUE_AUTH);
    server->gpu = seat_add(server, QUEUE_GPU);
    server->gpu->extra = true; /* whatever becomes of it, the server serves */
    for (uint32_t i = 0; i < config->model_count; i++)
        workers_plan(server, i);
    server->spare = seat_add(server, QUEUE_WORKER);
    for (uint32_t i = 0; i < config->model_count; i++)
        server->generations[i] = 1;
    return 0;
}

/* The eventfds lie at the same numbers here as in the children, so that seat_wake works everywhere.
 */
static int events_open(struct server *server)
{
    for (uint32_t i = 0; i < server->seat_count; i++) {
        int to = SEAT_FD_EVENT + (int)i;
        int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (fd == to)
            continue;
        if (fd < 0)
            return complain(EX_OSERR, "cannot make an eventfd: %s", strerror(errno));
        bool taken = fcntl(to, F_GETFD) >= 0;
        if (taken || dup3(fd, to, O_CLOEXEC) < 0) {
            int error = taken ? EBUSY : errno;
            close(fd);
            return complain(EX_OSERR, "cannot make an eventfd: %s", strerror(error));
        }
        close(fd);
    }
    return 0;
}

static void events_close(const struct server *server)
{
    for (uint32_t i = 0; i < server->seat_count; i++)
        close(SEAT_FD_EVENT + (int)i);
}

static int programs_find(struct server *server)
{
    static const struct {
        enum queue_role role;
        const char *name;
    } roles[] = {{QUEUE_GATEWAY, "unetserve-gateway"},
                 {QUEUE_BROKER, "unetserve-broker"},
                 {QUEUE_WORKER, "unetserve-worker"},
                 {QUEUE_AUTH, "unetserve-auth"},
                 {QUEUE_GPU, "unetserve-gpu"}};
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        if (layout_program(roles[i].name, server->programs[roles[i].role], PATH_MAX))
            return complain(EX_OSFILE, "%s is neither beside unetserve nor in ../lib/unetserve",
                            roles[i].name);
    return 0;
}

/* What lies in it is auth's. It cannot be made smaller under its successor. */
static int auth_keys_open(struct server *server)
{
    server->auth_keys_fd = memfd_create("unetserve-auth-keys", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (server->auth_keys_fd < 0 || ftruncate(server->auth_keys_fd, AUTH_KEEP_BYTES) ||
        fcntl(server->auth_keys_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
        return complain(EX_OSERR, "cannot make memory for a provider's keys: %s", strerror(errno));
    return 0;
}

/* One for each HTTP gateway, for as long as the server: neither end's death closes it. */
static int pairs_open(struct server *server)
{
    for (uint32_t i = 0; i < server->config->gateways; i++)
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, server->auth_pairs[i]))
            return complain(EX_OSERR, "cannot make a pair of sockets: %s", strerror(errno));
    return 0;
}

static void pairs_close(const struct server *server)
{
    for (uint32_t i = 0; i < LISTENERS_MAX_GATEWAYS && server->auth_pairs[i][0] >= 0; i++) {
        close(server->auth_pairs[i][0]);
        close(server->auth_pairs[i][1]);
    }
}

/* The run directory is called after the first port, so that people find it. */
static void instance_name(const struct config *config, char *name, size_t size)
{
    for (uint32_t i = 0; i < config->listen_count; i++) {
        const char *address = config_address_bare(config->listen[i]);
        const char *colon = strrchr(address, ':');
        if (colon && strncmp(address, "unix:", 5) != 0) {
            snprintf(name, size, "%s", colon + 1);
            return;
        }
    }
    snprintf(name, size, "pid-%d", (int)getpid());
}

static int sockets_open(struct server *server, struct passed *passed)
{
    char error[512];
    char name[32];
    struct config *config = server->config;
    if (listeners_open(config, passed, &server->listeners, error, sizeof error))
        return complain(EX_UNAVAILABLE, "%s", error);
    instance_name(config, name, sizeof name);
    if (run_dir_open(config->run_dir, name, &server->run_dir, error, sizeof error))
        return complain(EX_UNAVAILABLE, "%s", error);
    snprintf(config->run_dir, sizeof config->run_dir, "%s", server->run_dir.path);
    return 0;
}

int server_open(struct server *server, struct config *config,
                struct unetserve_interface *interfaces, const struct gpu_list *gpus,
                struct passed *passed)
{
    memset(server, 0, sizeof *server);
    server->config = config;
    server->interfaces = interfaces;
    server->gpus = gpus;
    server->config_fd = server->life[0] = server->life[1] = -1;
    server->gateway_line[0] = server->gateway_line[1] = -1;
    server->run_dir.lock_fd = -1;
    memset(server->auth_pairs, 0xff, sizeof server->auth_pairs);
    server->queue.fd = server->read_inputs_fd = server->read_outputs_fd = -1;
    server->auth_keys_fd = -1;
    server->asked = malloc(sizeof *server->asked);
    if (!server->asked)
        return complain(EX_OSERR, "out of memory");
    *server->asked = *config;
    int status = 0;
    if (core_share_allowed(limits_cpus(), &server->cores))
        status = complain(EX_OSERR, "cannot tell which cores may be used");
    if (!status)
        status = seats_plan(server);
    if (!status)
        status = events_open(server);
    if (!status)
        status = programs_find(server);
    if (!status)
        status = queue_open(server);
    if (!status)
        status = sockets_open(server, passed);
    if (!status)
        status = config_area_open(server);
    if (!status)
        status = server_publish_config(server);
    if (!status)
        status = auth_keys_open(server);
    if (!status)
        status = pairs_open(server);
    if (!status && (pipe2(server->life, O_CLOEXEC) || pipe2(server->gateway_line, O_CLOEXEC)))
        status = complain(EX_OSERR, "cannot make a pipe: %s", strerror(errno));
    if (status)
        server_close(server);
    return status;
}

void server_close(struct server *server)
{
    listeners_close(&server->listeners);
    run_dir_remove(&server->run_dir);
    if (server->queue.fd >= 0)
        queue_close(&server->queue);
    if (server->read_inputs_fd >= 0) {
        close(server->read_inputs_fd);
        close(server->read_outputs_fd);
    }
    if (server->config_area)
        munmap(server->config_area, sizeof *server->config_area);
    if (server->config_fd >= 0)
        close(server->config_fd);
    if (server->auth_keys_fd >= 0)
        close(server->auth_keys_fd);
    for (int i = 0; i < 2; i++) {
        if (server->life[i] >= 0)
            close(server->life[i]);
        if (server->gateway_line[i] >= 0)
            close(server->gateway_line[i]);
    }
    pairs_close(server);
    events_close(server);
    free(server->asked);
}
