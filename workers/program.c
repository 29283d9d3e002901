#include "workers/program.h"
#include "unetserve/config.h"
#include "unetserve/interface_text.h"
#include "unetserve/log.h"
#include "unetserve/loss.h"
#include "unetserve/sandbox.h"
#include "workers/cores.h"
#include "workers/fields.h"
#include "workers/image_library.h"
#include "workers/load_plugin.h"
#include "workers/worker_loop.h"
#include "workers/worker_options.h"

#include <dlfcn.h>
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define ERROR_MAX       2048
#define PATHS_MAX       16384
#define PUBLISH_TRIES   1000
#define PUBLISH_WAIT_NS 5000000

static const char usage[] =
    "usage: unetserve-worker --seat SEAT --index INDEX --model NUMBER [--device DEVICE]\n"
    "                        [--cores LIST] [--memory-node N] [--threads N]\n"
    "       unetserve-worker --describe --model-path PATH [--device DEVICE] [--precision P]\n"
    "                        [--backend B] [--tile N] [--max-batch N]\n"
    "                        [--route R] [--sandbox S] [--sandbox-paths PATH:PATH...]\n"
    "\n"
    "Runs one model on one device. Started by unetserve, with inherited file descriptors; or says\n"
    "what the model at PATH takes and gives, as one line of JSON.\n";

/* The model that this program holds, or else the plugin that path names. */
static int find_model(const struct program *program, const char *path, struct plugin *out,
                      char *error, size_t error_size)
{
    if (!program->ops)
        return plugin_load(path, out, error, error_size);
    *out = (struct plugin){.ops = *program->ops};
    return plugin_check(program->ops, error, error_size);
}

/* What else may be read, beside what the configuration says: program's, and model's own. */
static void join_paths(const struct program *program, const char *of_model, char *text, size_t size)
{
    snprintf(text, size, "%s%s%s", of_model ? of_model : "",
             of_model && of_model[0] && program->paths ? ":" : "",
             program->paths ? program->paths : "");
}

/* A model that looks at no device would otherwise be served from the CPU in spite of what was asked
 * for. */
static int check_driver(const char *device, char *error, size_t error_size)
{
    if (strncmp(device, "cuda", 4) != 0 || dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL))
        return 0;
    snprintf(error, error_size, "device %s: this machine has no NVIDIA driver: %s", device,
             dlerror());
    return -ENODEV;
}

static int describe(const struct program *program, const struct worker_options *options)
{
    struct plugin plugin;
    static struct unetserve_interface interface;
    char error[ERROR_MAX] = "";
    static char paths[PATHS_MAX];
    struct unetserve_setup setup = {
        .abi = UNETSERVE_MODEL_ABI,
        .size = sizeof setup,
        .path = options->model_path,
        .device = options->device,
        .precision = options->precision,
        .backend = options->backend,
        .threads = options->threads ? options->threads : cores_allowed(),
        .max_batch = options->max_batch,
        .tile = options->tile,
        .route = options->route,
    };
    struct sandbox sandbox = {
        .role = QUEUE_WORKER,
        .mode = sandbox_mode_of(options->sandbox),
        .asked = true,
        .gpu = strcmp(options->device, "cpu") != 0,
        .model_path = options->model_path,
        .paths = paths,
    };
    join_paths(program, options->sandbox_paths, paths, sizeof paths);
    if (sandbox_begin(&sandbox))
        return EX_CONFIG;
    int failure = find_model(program, options->model_path, &plugin, error, sizeof error);
    if (!failure)
        failure = plugin.ops.describe(&setup, &interface, error, sizeof error);
    if (!failure)
        failure = check_driver(options->device, error, sizeof error);
    if (!failure)
        failure = fields_check(&interface, error, sizeof error);
    char *line = failure ? NULL : interface_to_json(&interface);
    if (!failure && !line) {
        failure = -ENOMEM;
        snprintf(error, sizeof error, "%s: out of memory", options->model_path);
    }
    if (failure)
        fprintf(stderr, "unetserve: %s\n", error[0] ? error : strerror(-failure));
    else
        failure = dprintf(program->answer_fd, "%s\n", line) < 0 ? -errno : 0;
    free(line);
    return plugin_exit_status(failure);
}

/* Several workers of a model come up together; one of them writes, the others wait for it. */
static int publish(const struct worker *worker)
{
    int error = -EBUSY;
    for (int i = 0; i < PUBLISH_TRIES && error == -EBUSY; i++) {
        error = queue_model_publish(&worker->seat->queue, worker->model, worker->generation,
                                    worker->seat->index, &worker->interface);
        if (error == -EBUSY)
            nanosleep(&(struct timespec){.tv_nsec = PUBLISH_WAIT_NS}, NULL);
    }
    if (error)
        log_event(LOG_LEVEL_ERROR, "cannot publish the model's interface",
                  log_text("model", worker->interface.name), log_text("error", strerror(-error)));
    return error;
}

/* Where workers share what they make of weights. */
static const char *cache_of(const struct config *config)
{
    return config->cache_dir[0] ? config->cache_dir : config->run_dir;
}

static int set_up(const struct program *program, struct worker *worker,
                  const struct worker_options *options, const struct config *config,
                  uint32_t threads)
{
    const struct config_model *model = &config->models[worker->model];
    static struct plugin plugin; /* as long as the process */
    char error[ERROR_MAX] = "";
    uint64_t begin_ns = queue_now_ns();
    struct unetserve_setup setup = {
        .abi = UNETSERVE_MODEL_ABI,
        .size = sizeof setup,
        .host = &worker->host,
        .path = model->path,
        .device = options->device,
        .precision = model->precision[0] ? model->precision : "auto",
        .backend = model->backend[0] ? model->backend : "auto",
        .threads = threads,
        .max_batch = model->max_batch_size,
        .tile = model->tile,
        .cache_dir = cache_of(config),
        .route = model->route,
        .no_timing = strcmp(model->engine_timing, "off") == 0,
        .convolution = model->convolution,
    };
    int failure = find_model(program, model->path, &plugin, error, sizeof error);
    if (!failure)
        failure = plugin.ops.setup(&setup, &worker->instance, &worker->interface, error,
                                   sizeof error);
    if (!failure)
        failure = fields_check(&worker->interface, error, sizeof error);
    if (failure) {
        log_event(LOG_LEVEL_ERROR, "cannot set up the model", log_text("name", model->name),
                  log_text("error", error[0] ? error : strerror(-failure)));
        return failure;
    }
    worker->ops = &plugin.ops;
    log_event(LOG_LEVEL_INFO, "model set up", log_text("name", model->name),
              log_text("path", model->path), log_text("device", options->device),
              log_number("threads", threads),
              log_real("seconds", (double)(queue_now_ns() - begin_ns) * 1e-9));
    return 0;
}

static int serve(const struct program *program, struct worker *worker,
                 const struct worker_options *options, const struct config *config,
                 uint32_t threads)
{
    const struct config_model *model = &config->models[worker->model];
    static char paths[PATHS_MAX];
    struct sandbox sandbox = {
        .role = QUEUE_WORKER,
        .mode = sandbox_mode_of(model->sandbox),
        .gpu = strcmp(options->device, "cpu") != 0,
        .model_path = model->path,
        .paths = paths,
        .writable = {cache_of(config)},
    };
    join_paths(program, model->sandbox_paths, paths, sizeof paths);
    /* Now, while what is above it can still be written to; whoever uses it complains if it is not
     * there. */
    if (config->cache_dir[0])
        (void)mkdir(config->cache_dir, 0700);
    if (sandbox_begin(&sandbox))
        return EX_CONFIG;
    int error = set_up(program, worker, options, config, threads);
    if (error)
        return plugin_exit_status(error);
    json_object_seed(0); /* from a file, which cannot be opened later */
    if (!program->ops && worker->interface.input_kind == UNETSERVE_TENSOR)
        image_library_open();
    if (sandbox_serve(&sandbox))
        return EX_CONFIG;
    if (publish(worker))
        return EX_SOFTWARE;
    error = worker_loop(worker, config->drain_timeout_ms);
    if (error == -EIO)
        return loss_status(worker->loss); /* no teardown: it would ask the lost device */
    if (error)
        log_event(LOG_LEVEL_ERROR, "the event loop failed", log_text("error", strerror(-error)));
    worker->ops->teardown(worker->instance);
    return error ? EX_OSERR : EXIT_SUCCESS;
}

/* Which generation of which model, and on which cores. 0, or an exit status after a log line. */
static int prepare(const struct program *program, struct seat *seat,
                   const struct worker_options *options, const struct config *config,
                   struct worker *worker, uint32_t *threads)
{
    const struct queue_process *self = &seat->queue.processes[seat->index];
    if (options->model >= config->model_count ||
        options->model >= seat->queue.geometry->model_count) {
        log_event(LOG_LEVEL_ERROR, "there is no such model", log_number("model", options->model));
        return EX_USAGE;
    }
    /* The allowed set may have shrunk since the machine was divided: slower, but it serves. */
    if (options->has_cores && cores_pin(&options->cores))
        log_event(LOG_LEVEL_WARNING, "cannot bind to the cores given, running on those allowed");
    int far = options->has_memory_node ? cores_prefer_node(options->memory_node) : 0;
    if (far)
        log_event(LOG_LEVEL_WARNING, "cannot ask for memory near the GPU",
                  log_number("node", options->memory_node), log_text("error", strerror(-far)));
    uint32_t generation = atomic_load(&self->model_generation);
    if (generation == 0) {
        log_event(LOG_LEVEL_ERROR, "the process table names no generation of the model");
        return EX_SOFTWARE;
    }
    *threads = options->threads ? options->threads : cores_allowed();
    if (cores_prepare_threads(*threads))
        return EX_OSERR;
    worker_init(worker, seat, options->model, generation);
    worker->retire_fd = program->retire_fd;
    return 0;
}

/* Its handler knows what to do, and what the program starts must not inherit a blocked signal. */
static void allow_termination(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
}

static int work(const struct program *program, int argc, char **argv)
{
    static struct config config;
    static struct worker worker;
    static struct seat seat;
    struct worker_options options;
    char error[ERROR_MAX];
    uint32_t threads;
    seat_signals();
    if (program->retire_fd >= 0)
        allow_termination();
    if (seat_take(QUEUE_WORKER, &argc, argv, &seat))
        return EX_USAGE;
    if (worker_options_parse(argc, argv, &options, error, sizeof error)) {
        log_event(LOG_LEVEL_ERROR, error);
        return EX_USAGE;
    }
    if (seat_config(&config))
        return EX_CONFIG;
    seat_outlive(config.drain_timeout_ms);
    log_init("worker", (int)seat.seat, config.log_format, config.log_level);
    int status = prepare(program, &seat, &options, &config, &worker, &threads);
    if (!status)
        status = serve(program, &worker, &options, &config, threads);
    if (!program->ops) /* else it may still be looked at, by what ends with the process */
        queue_close(&seat.queue);
    return status;
}

int program_run(int argc, char **argv, const struct program *program)
{
    struct worker_options options;
    char error[ERROR_MAX];
    if (seat_explain(argc, argv, "unetserve-worker", usage))
        return EXIT_SUCCESS;
    log_init("worker", -1, LOG_FORMAT_TEXT, LOG_LEVEL_INFO);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--describe") != 0)
            continue;
        if (worker_options_parse(argc, argv, &options, error, sizeof error)) {
            fprintf(stderr, "%s\n", error);
            return EX_USAGE;
        }
        return describe(program, &options);
    }
    return work(program, argc, argv);
}
