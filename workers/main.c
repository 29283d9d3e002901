/* unetserve-worker: one model instance on one device. Started by unetserve; with --describe, a
 * question about a model. */
#include "unetserve/config.h"
#include "unetserve/interface_text.h"
#include "unetserve/log.h"
#include "unetserve/sandbox.h"
#include "workers/cores.h"
#include "workers/fields.h"
#include "workers/load_plugin.h"
#include "workers/worker_loop.h"
#include "workers/worker_options.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>

#define ERROR_MAX       2048
#define PUBLISH_TRIES   1000
#define PUBLISH_WAIT_NS 5000000

static const char usage[] =
    "usage: unetserve-worker --seat SEAT --index INDEX --model NUMBER [--device DEVICE]\n"
    "                        [--cores LIST] [--threads N]\n"
    "       unetserve-worker --describe --model-path PATH [--device DEVICE] [--precision P]\n"
    "                        [--backend B] [--tile N] [--max-batch N]\n"
    "                        [--sandbox S] [--sandbox-paths PATH:PATH...]\n"
    "\n"
    "Runs one model on one device. Started by unetserve, with inherited file descriptors; or says\n"
    "what the model at PATH takes and gives, as one line of JSON.\n";

static int describe(const struct worker_options *options)
{
    struct plugin plugin;
    static struct unetserve_interface interface;
    char error[ERROR_MAX] = "";
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
    };
    struct sandbox sandbox = {
        .role = QUEUE_WORKER,
        .mode = sandbox_mode_of(options->sandbox),
        .gpu = strcmp(options->device, "cpu") != 0,
        .model_path = options->model_path,
        .paths = options->sandbox_paths,
    };
    if (sandbox_begin(&sandbox))
        return EX_CONFIG;
    int failure = plugin_load(options->model_path, &plugin, error, sizeof error);
    if (!failure)
        failure = plugin.ops.describe(&setup, &interface, error, sizeof error);
    if (!failure)
        failure = fields_check(&interface, error, sizeof error);
    char *line = failure ? NULL : interface_to_json(&interface);
    if (!failure && !line) {
        failure = -ENOMEM;
        snprintf(error, sizeof error, "%s: out of memory", options->model_path);
    }
    if (failure)
        fprintf(stderr, "%s\n", error[0] ? error : strerror(-failure));
    else
        puts(line);
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

static int set_up(struct worker *worker, const struct worker_options *options,
                  const struct config *config, uint32_t threads)
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
    };
    int failure = plugin_load(model->path, &plugin, error, sizeof error);
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

static int serve(struct worker *worker, const struct worker_options *options,
                 const struct config *config, uint32_t threads)
{
    const struct config_model *model = &config->models[worker->model];
    struct sandbox sandbox = {
        .role = QUEUE_WORKER,
        .mode = sandbox_mode_of(model->sandbox),
        .gpu = strcmp(options->device, "cpu") != 0,
        .model_path = model->path,
        .paths = model->sandbox_paths,
        .writable = {cache_of(config)},
    };
    /* Now, while what is above it can still be written to; whoever uses it complains if it is not
     * there. */
    if (config->cache_dir[0])
        (void)mkdir(config->cache_dir, 0700);
    if (sandbox_begin(&sandbox))
        return EX_CONFIG;
    int error = set_up(worker, options, config, threads);
    if (error)
        return plugin_exit_status(error);
    json_object_seed(0); /* from a file, which cannot be opened later */
    if (sandbox_serve(&sandbox))
        return EX_CONFIG;
    if (publish(worker))
        return EX_SOFTWARE;
    error = worker_loop(worker, config->drain_timeout_ms);
    if (error == -EIO)
        return EX_IOERR; /* no teardown: it would ask the lost device */
    if (error)
        log_event(LOG_LEVEL_ERROR, "the event loop failed", log_text("error", strerror(-error)));
    worker->ops->teardown(worker->instance);
    return error ? EX_OSERR : EXIT_SUCCESS;
}

/* Which generation of which model, and on which cores. 0, or an exit status after a log line. */
static int prepare(struct seat *seat, const struct worker_options *options,
                   const struct config *config, struct worker *worker, uint32_t *threads)
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
    uint32_t generation = atomic_load(&self->model_generation);
    if (generation == 0) {
        log_event(LOG_LEVEL_ERROR, "the process table names no generation of the model");
        return EX_SOFTWARE;
    }
    *threads = options->threads ? options->threads : cores_allowed();
    if (cores_prepare_threads(*threads))
        return EX_OSERR;
    worker_init(worker, seat, options->model, generation);
    return 0;
}

static int work(int argc, char **argv)
{
    static struct config config;
    static struct worker worker;
    static struct seat seat;
    struct worker_options options;
    char error[ERROR_MAX];
    uint32_t threads;
    seat_signals();
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
    int status = prepare(&seat, &options, &config, &worker, &threads);
    if (!status)
        status = serve(&worker, &options, &config, threads);
    queue_close(&seat.queue);
    return status;
}

int main(int argc, char **argv)
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
        return describe(&options);
    }
    return work(argc, argv);
}
