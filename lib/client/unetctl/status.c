/*
 * unetctl status: models, workers and slots of a running unetserve.
 */
#include "command.h"
#include "server.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#define WATCHED_PROCESSES 1024
#define WATCHED_MODELS    16

struct status_options {
    struct server_options server;
    bool json;
    bool watch;
    int interval_ms;
    int64_t count; /* rounds of --watch, 0: until interrupted */
};

static const char help_text[] =
    "usage: unetctl status [--url URL | --endpoint ADDRESS] [OPTION]...\n"
    "\n"
    "Shows what runs. Over ZeroMQ: models, workers, slots; over HTTP: what /info and /health "
    "tell.\n"
    "\n"
    "      --url URL       over HTTP\n"
    "      --endpoint ADR  over ZeroMQ; default: the one unetserve running here\n"
    "      --timeout MS    wait that long for an answer (5000)\n"
    "      --watch         again and again, with rates, until interrupted\n"
    "      --interval MS   between two looks (2000)\n"
    "      --count N       stop after N looks\n"
    "      --json          the document itself, one line a look with --watch\n";

enum {
    OPTION_URL = 256,
    OPTION_ENDPOINT,
    OPTION_TIMEOUT,
    OPTION_WATCH,
    OPTION_INTERVAL,
    OPTION_COUNT,
    OPTION_JSON
};

static const struct option long_options[] = {
    {"url", required_argument, NULL, OPTION_URL},
    {"endpoint", required_argument, NULL, OPTION_ENDPOINT},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"watch", no_argument, NULL, OPTION_WATCH},
    {"interval", required_argument, NULL, OPTION_INTERVAL},
    {"count", required_argument, NULL, OPTION_COUNT},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static int take_number(const char *name, int64_t *out)
{
    if (!command_parse_number(optarg, 1, 86400000, out))
        return command_fail(EX_USAGE, "%s is '%s', expected 1 to 86400000", name, optarg);
    return -1;
}

static int take_option(struct status_options *options, int option)
{
    int64_t number = 0;
    int code = -1;
    switch (option) {
    case OPTION_URL: options->server.url = optarg; break;
    case OPTION_ENDPOINT: options->server.endpoint = optarg; break;
    case OPTION_WATCH: options->watch = true; break;
    case OPTION_JSON: options->json = true; break;
    case OPTION_TIMEOUT:
        code = take_number("--timeout", &number);
        options->server.timeout_ms = (int)number;
        break;
    case OPTION_INTERVAL:
        code = take_number("--interval", &number);
        options->interval_ms = (int)number;
        break;
    case OPTION_COUNT: code = take_number("--count", &options->count); break;
    case 'h':
        fputs(help_text, stdout);
        code = EX_OK;
        break;
    default: code = command_bad_option(option);
    }
    return code;
}

/* ---- tables ---- */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "-";
}

static long long number_of(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

/* What was done at the last look: by processes, by their index, and by models, in their order. */
struct watch {
    long long jobs[WATCHED_PROCESSES];
    long long busy_ms[WATCHED_PROCESSES];
    long long answered[WATCHED_MODELS];
    double seconds; /* since the last look; 0 at the first */
};

static void print_answers(const json_t *model, size_t index, struct watch *watch)
{
    long long answered = number_of(model, "answered");
    printf(" %10lld %10lld", answered, number_of(model, "answered_200"));
    if (index >= WATCHED_MODELS)
        return;
    if (watch->seconds > 0)
        printf(" %10.1f", (double)(answered - watch->answered[index]) / watch->seconds);
    watch->answered[index] = answered;
}

static void print_models(const json_t *models, struct watch *watch)
{
    printf("%-24s %-20s %7s %6s %10s %9s %10s %10s%s\n", "MODEL", "ROUTE", "WORKERS", "WANTED",
           "GENERATION", "CHANNELS", "ANSWERS", "WITH 200",
           watch->seconds > 0 ? "  ANSWERS/S" : "");
    for (size_t i = 0; i < json_array_size(models); i++) {
        const json_t *model = json_array_get(models, i);
        const json_t *input = json_object_get(json_object_get(model, "interface"), "input");
        printf("%-24s %-20s %7lld %6lld %10lld %9lld", text_of(model, "name"),
               text_of(model, "route"),
               number_of(model, json_object_get(model, "workers_ready") ? "workers_ready"
                                                                        : "ready_workers"),
               number_of(model, "workers_wanted"), number_of(model, "generation"),
               number_of(input ? input : model, "channels"));
        print_answers(model, i, watch);
        putchar('\n');
    }
}

static void print_process(const json_t *process, struct watch *watch)
{
    long long index = number_of(process, "index");
    long long jobs = number_of(process, "jobs");
    long long busy_ms = number_of(process, "busy_ms");
    const char *role = json_string_value(json_object_get(process, "role"));
    printf("%-12s %5lld %8lld %-9s %10lld %10lld", role ? role : "worker",
           number_of(process, "seat"), number_of(process, "pid"),
           json_is_true(json_object_get(process, "draining")) ? "draining"
           : json_is_true(json_object_get(process, "ready"))  ? "ready"
                                                              : "starting",
           jobs, busy_ms);
    if (index >= 0 && index < WATCHED_PROCESSES) {
        if (watch->seconds > 0)
            printf(" %8.1f %5.0f %%", (double)(jobs - watch->jobs[index]) / watch->seconds,
                   (double)(busy_ms - watch->busy_ms[index]) / watch->seconds / 10);
        watch->jobs[index] = jobs;
        watch->busy_ms[index] = busy_ms;
    }
    putchar('\n');
}

static void print_slots(const json_t *slots)
{
    const char *state;
    json_t *count;
    fputs("slots:", stdout);
    json_object_foreach((json_t *)slots, state, count) if (json_integer_value(count) > 0)
        printf(" %s %lld", state, (long long)json_integer_value(count));
    putchar('\n');
}

/* Those that workers have failed on; none, usually. */
static void print_devices(const json_t *devices)
{
    for (size_t i = 0; i < json_array_size(devices); i++) {
        const json_t *device = json_array_get(devices, i);
        bool resting = json_is_true(json_object_get(device, "resting"));
        printf("GPU %s: %lld workers failed on it, the last by %s; ", text_of(device, "device"),
               number_of(device, "failures"), text_of(device, "reason"));
        if (resting)
            printf("it rests for %.1f s\n", (double)number_of(device, "rest_ms") * 1e-3);
        else
            puts("it serves");
    }
}

static void print_document(const json_t *document, struct watch *watch)
{
    /* A front that knows of all processes lists them, one that knows of workers lists these. */
    const json_t *processes = json_object_get(document, "processes");
    if (!processes)
        processes = json_object_get(document, "workers");
    print_models(json_object_get(document, "models"), watch);
    printf("%-12s %5s %8s %-9s %10s %10s%s\n", "PROCESS", "SEAT", "PID", "STATE", "JOBS", "BUSY MS",
           watch->seconds > 0 ? "   JOBS/S    BUSY" : "");
    for (size_t i = 0; i < json_array_size(processes); i++)
        print_process(json_array_get(processes, i), watch);
    print_slots(json_object_get(document, "slots"));
    print_devices(json_object_get(document, "failed_devices"));
}

static void print_http(const json_t *document)
{
    const json_t *info = json_object_get(document, "info");
    const json_t *model = json_object_get(info, "model");
    const json_t *server = json_object_get(info, "server");
    const json_t *classes = json_object_get(model, "classes");
    printf("health: %s\n", text_of(document, "health"));
    printf("model: %s, version %s, %zu classes\n", text_of(model, "name"),
           text_of(model, "version"), json_array_size(classes));
    char *text = json_dumps(server, JSON_COMPACT);
    printf("server: %s\n", text ? text : "-");
    free(text);
}

/* ---- looks ---- */

static int look(struct server *server, const struct status_options *options, struct watch *watch)
{
    char error[COMMAND_ERROR_MAX];
    json_t *document;
    int rc = server_status(server, &document, error, sizeof error);
    if (rc < 0)
        return command_fail(command_exit_code(rc), "%s", error);
    if (options->json) {
        json_dumpf(document, stdout, options->watch ? JSON_COMPACT : JSON_INDENT(2));
        putchar('\n');
    } else if (options->server.url) {
        print_http(document);
    } else {
        print_document(document, watch);
    }
    json_decref(document);
    /* A closed pipe ends a watch. */
    return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}

static int watch_server(struct server *server, const struct status_options *options)
{
    struct watch watch = {.seconds = 0};
    const struct timespec pause = {options->interval_ms / 1000,
                                   (long)(options->interval_ms % 1000) * 1000000};
    int code = look(server, options, &watch);
    for (int64_t i = 1;
         code == EX_OK && options->watch && (options->count == 0 || i < options->count); i++) {
        nanosleep(&pause, NULL);
        watch.seconds = options->interval_ms / 1000.0;
        if (!options->json)
            putchar('\n');
        code = look(server, options, &watch);
    }
    return code;
}

int command_status(int argc, char **argv)
{
    struct status_options options = {.server = {.timeout_ms = 5000}, .interval_ms = 2000};
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
        int code = take_option(&options, option);
        if (code >= 0)
            return code;
    }
    if (optind != argc)
        return command_fail(EX_USAGE, "status takes no argument, but got '%s'", argv[optind]);
    if (options.server.url && options.server.endpoint)
        return command_fail(EX_USAGE, "--url and --endpoint exclude each other");
    char error[COMMAND_ERROR_MAX];
    struct server *server;
    int rc = server_open(&options.server, &server, error, sizeof error);
    if (rc < 0)
        return command_fail(rc == -EINVAL ? EX_USAGE : command_exit_code(rc), "%s", error);
    int code = watch_server(server, &options);
    server_close(server);
    return code;
}
