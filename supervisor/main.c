/* unetserve: reads the configuration, asks what the models take, and runs the process tree that
 * serves them. */
#include "supervisor/client_program.h"
#include "supervisor/describe.h"
#include "supervisor/devices.h"
#include "supervisor/named_files.h"
#include "supervisor/options.h"
#include "supervisor/passed.h"
#include "supervisor/probe.h"
#include "supervisor/server.h"
#include "unetserve/log.h"
#include "unetserve/sandbox.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <unistd.h>

#define DESCRIBE_TIMEOUT_MS 60000
#define FILES_LEAST         512 /* those of spawn.h, twice over, and a few */
#define FILES_MOST          65536

static struct config config;
static struct server server;
static struct passed passed;
static struct gpu_list gpus;

/* A gateway holds a file descriptor a connection; the soft limit is inherited. False, after a
 * sentence: no process could be handed its descriptors. */
static bool files_limit_raise(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        return true;
    if (limit.rlim_max < FILES_LEAST) {
        fprintf(stderr,
                "unetserve: a process may open %llu files here (ulimit -n); needed: %d or more\n",
                (unsigned long long)limit.rlim_max, FILES_LEAST);
        return false;
    }
    rlim_t wanted = limit.rlim_max < FILES_MOST ? limit.rlim_max : FILES_MOST;
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = wanted;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    return true;
}

/* From here on signals wait until the loop takes them. */
static int signals_block(void)
{
    sigset_t all;
    sigset_t ends;
    sigemptyset(&all);
    sigaddset(&all, SIGTERM);
    sigaddset(&all, SIGINT);
    ends = all;
    sigaddset(&all, SIGHUP);
    sigprocmask(SIG_BLOCK, &all, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* 0; -EINTR: told to end; or an exit status. */
static int models_describe(int signal_fd, struct unetserve_interface *interfaces)
{
    for (uint32_t i = 0; i < config.model_count; i++) {
        int status = describe_model(&config.models[i], DESCRIBE_TIMEOUT_MS, signal_fd,
                                    &interfaces[i]);
        if (status)
            return status;
    }
    return 0;
}

static void check_print(const struct unetserve_interface *interfaces)
{
    for (uint32_t i = 0; i < config.model_count; i++) {
        const struct config_model *model = &config.models[i];
        const struct unetserve_interface *interface = &interfaces[i];
        printf("model %s at %s: %s%s%s from %s", model->name, model->route, interface->name,
               interface->version[0] ? " " : "", interface->version, model->path);
        if (interface->input_kind == UNETSERVE_TENSOR)
            printf("; %u channels, tile %u, %u classes", interface->channels,
                   model->tile ? model->tile : interface->tile, interface->class_count);
        bool pinned = gpus.count && strcmp(describe_device(model), "cpu") != 0;
        uint32_t workers = server_workers(model);
        printf("; %u %s on %s\n", workers, workers == 1 ? "worker" : "workers",
               pinned ? model->devices : describe_device(model));
    }
    for (uint32_t i = 0; i < config.listen_count; i++)
        printf("listen %s\n", config.listen[i]);
}

/* What --check finds out, it says, and writes a client if that is wanted. An exit status. */
static int check(const struct options *options, const struct unetserve_interface *interfaces)
{
    struct queue_geometry geometry;
    int status = server_plan_queue(&config, interfaces, &geometry);
    if (status)
        return status;
    check_print(interfaces);
    if (fflush(stdout)) {
        fprintf(stderr, "unetserve: cannot write to standard output: %s\n", strerror(errno));
        return EX_IOERR;
    }
    int rc = 0;
    if (options->client_file)
        rc = client_program_write(options->client_file, &config, interfaces);
    if (rc < 0)
        fprintf(stderr, "unetserve: cannot write %s: %s\n", options->client_file,
                rc == -EADDRNOTAVAIL ? "there is no TCP address for it to ask" : strerror(-rc));
    return rc < 0 ? EX_CANTCREAT : 0;
}

/* Each model's sandbox is named from here on; cores of processes with people's data in them are not
 * written. False: this machine cannot do what is asked. */
static bool sandbox_prepare(void)
{
    bool all_off = strcmp(config.sandbox, "off") == 0;
    bool must = strcmp(config.sandbox, "on") == 0;
    for (uint32_t i = 0; i < config.model_count; i++) {
        const struct config_model *model = &config.models[i];
        all_off = all_off && strcmp(model->sandbox, "off") == 0;
        must = must || strcmp(model->sandbox, "on") == 0;
    }
    const char *missing = must ? sandbox_missing() : NULL;
    if (missing) {
        fprintf(stderr,
                "unetserve: key 'sandbox': 'on' needs %s, which is not here; allowed: auto\n",
                missing);
        return false;
    }
    if (!all_off) {
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    }
    return true;
}

/* False, after a sentence: a file that the configuration names is not there. */
static bool files_find(void)
{
    char error[PATH_MAX + 200];
    if (named_files_check(&config, error, sizeof error) == 0)
        return true;
    fprintf(stderr, "unetserve: %s\n", error);
    return false;
}

/* GPUs are looked for where they are wanted: that may take seconds. False, after a sentence: what
 * is asked for is not there. */
static bool devices_find(void)
{
    char error[1000];
    if (!devices_wanted(&config))
        return true;
    gpu_list_ask(&gpus);
    if (devices_resolve(&config, &gpus, error, sizeof error)) {
        fprintf(stderr, "unetserve: %s\n", error);
        return false;
    }
    if (gpus.error[0])
        log_event(LOG_LEVEL_WARNING, "workers are bound to no GPU, the driver chooses",
                  log_text("reason", gpus.error));
    return true;
}

static int serve(const struct options *options)
{
    struct unetserve_interface *interfaces = calloc(config.model_count, sizeof *interfaces);
    int signal_fd = signals_block();
    if (!interfaces || signal_fd < 0) {
        fprintf(stderr, "unetserve: out of memory or file descriptors\n");
        free(interfaces);
        return EX_OSERR;
    }
    int status = models_describe(signal_fd, interfaces);
    close(signal_fd);
    if (status == -EINTR) {
        status = 0;
    } else if (status == 0 && options->check) {
        status = check(options, interfaces);
    } else if (status == 0) {
        status = server_open(&server, &config, interfaces, &gpus, &passed);
        if (status == 0) {
            server.options = options;
            status = loop_run(&server);
            server_close(&server);
        }
    }
    free(interfaces);
    return status;
}

int main(int argc, char **argv)
{
    struct options options;
    struct config_error config_error;
    char error[600];
    if (options_parse(argc, argv, &options, error, sizeof error)) {
        fprintf(stderr, "unetserve: %s\n", error);
        return EX_USAGE;
    }
    if (options.help || options.version) {
        printf("%s", options.help ? options_help : "unetserve " UNETSERVE_VERSION "\n");
        return fflush(stdout) ? EX_IOERR : 0;
    }
    if (options.probe)
        return probe_health(options.probe);
    int failed = options_apply(&options, &config, &config_error);
    if (failed) {
        fprintf(stderr, "unetserve: %s\n", config_error.text);
        return failed == -EDOM                          ? EX_USAGE
               : failed == -ENOENT || failed == -EACCES ? EX_NOINPUT
                                                        : EX_CONFIG;
    }
    log_init("supervisor", -1, config.log_format, config.log_level);
    if (!files_limit_raise())
        return EX_OSERR;
    if (!sandbox_prepare())
        return EX_CONFIG;
    if (!files_find())
        return EX_NOINPUT;
    if (!devices_find())
        return EX_UNAVAILABLE;
    passed_take(&passed);
    return serve(&options);
}
