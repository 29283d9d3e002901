#include "supervisor/options.h"
#include "unetserve/sandbox.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char options_help[] =
    "usage: unetserve [-c FILE] [--model MODEL]... [--listen ADDRESS:PORT]...\n"
    "                 [--workers N|MIN-MAX] [--device auto|cpu|cuda] [--check]\n"
    "\n"
    "Serves image segmentation models over HTTP and ZeroMQ.\n"
    "\n"
    "  -c FILE                 configuration; options below override it\n"
    "  --model MODEL           a .safetensors or .pth file, a directory with model.json, a\n"
    "                          plugin (.so) or a Python file (.py); NAME=PATH names it; may be\n"
    "                          repeated\n"
    "  --listen ADDRESS        127.0.0.1:8000 (the default), [::1]:8000 or unix:/path; port 0\n"
    "                          picks a free one; may be repeated\n"
    "  --workers N|MIN-MAX     worker processes for each model\n"
    "  --device auto|cpu|cuda  where models run\n"
    "  --precision P           auto, f32, bf16, f16 or int8\n"
    "  --backend B             auto, reference, onednn, amx or cudnn\n"
    "  --gateways N            processes that speak HTTP\n"
    "  --run-dir DIR           where the sockets between processes lie\n"
    "  --log-format text|json  log lines on stderr\n"
    "  --client-file FILE      write a Python client for these models, unless FILE is there\n"
    "  --check                 say what would be served, and end\n"
    "  --probe ADDRESS         is the server there healthy? The exit status says so\n"
    "  --version, --help\n";

enum {
    OPTION_MODEL = 256,
    OPTION_LISTEN,
    OPTION_WORKERS,
    OPTION_DEVICE,
    OPTION_PRECISION,
    OPTION_BACKEND,
    OPTION_GATEWAYS,
    OPTION_RUN_DIR,
    OPTION_LOG_FORMAT,
    OPTION_CLIENT_FILE,
    OPTION_CHECK,
    OPTION_PROBE,
    OPTION_VERSION,
    OPTION_HELP,
};

static const struct option long_options[] = {
    {"config", required_argument, NULL, 'c'},
    {"model", required_argument, NULL, OPTION_MODEL},
    {"listen", required_argument, NULL, OPTION_LISTEN},
    {"workers", required_argument, NULL, OPTION_WORKERS},
    {"device", required_argument, NULL, OPTION_DEVICE},
    {"precision", required_argument, NULL, OPTION_PRECISION},
    {"backend", required_argument, NULL, OPTION_BACKEND},
    {"gateways", required_argument, NULL, OPTION_GATEWAYS},
    {"run-dir", required_argument, NULL, OPTION_RUN_DIR},
    {"log-format", required_argument, NULL, OPTION_LOG_FORMAT},
    {"client-file", required_argument, NULL, OPTION_CLIENT_FILE},
    {"check", no_argument, NULL, OPTION_CHECK},
    {"probe", required_argument, NULL, OPTION_PROBE},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static int list_add(const char **list, uint32_t *count, uint32_t most)
{
    if (*count == most)
        return -EINVAL;
    list[(*count)++] = optarg;
    return 0;
}

static int option_take(int which, struct options *options)
{
    switch (which) {
    case 'c': options->config_path = optarg; return 0;
    case OPTION_MODEL: return list_add(options->models, &options->model_count, QUEUE_MAX_MODELS);
    case OPTION_LISTEN: return list_add(options->listen, &options->listen_count, CONFIG_MAX_LISTEN);
    case OPTION_WORKERS: options->workers = optarg; return 0;
    case OPTION_DEVICE: options->device = optarg; return 0;
    case OPTION_PRECISION: options->precision = optarg; return 0;
    case OPTION_BACKEND: options->backend = optarg; return 0;
    case OPTION_GATEWAYS: options->gateways = optarg; return 0;
    case OPTION_RUN_DIR: options->run_dir = optarg; return 0;
    case OPTION_LOG_FORMAT: options->log_format = optarg; return 0;
    case OPTION_CLIENT_FILE: options->client_file = optarg; return 0;
    case OPTION_CHECK: options->check = true; return 0;
    case OPTION_PROBE: options->probe = optarg; return 0;
    case OPTION_VERSION: options->version = true; return 0;
    default: options->help = true; return 0;
    }
}

int options_parse(int argc, char **argv, struct options *out, char *error, size_t error_size)
{
    struct options options = {0};
    int which;
    opterr = 0;
    optind = 0; /* from the beginning, also the second time */
    while ((which = getopt_long(argc, argv, ":c:h", long_options, NULL)) != -1) {
        if (which == ':' || which == '?') {
            snprintf(error, error_size, "%s: %s; see unetserve --help", argv[optind - 1],
                     which == ':' ? "a value is missing" : "no such option");
            return -EINVAL;
        }
        if (option_take(which, &options)) {
            snprintf(error, error_size, "%s: given too often", argv[optind - 1]);
            return -EINVAL;
        }
    }
    if (optind < argc) {
        snprintf(error, error_size, "'%.200s': not an option; a model is given with --model",
                 argv[optind]);
        return -EINVAL;
    }
    *out = options;
    return 0;
}

/* An error of the command line says so, where one of the file names its line. */
static int option_error(const char *option, struct config_error *error)
{
    struct config_error said = *error;
    snprintf(error->text, sizeof error->text, "%s: %.450s", option, said.text);
    return -EDOM;
}

static int server_set(struct config *config, const char *option, const char *key, const char *value,
                      struct config_error *error)
{
    if (value && config_set(config, "server", key, value, error))
        return option_error(option, error);
    return 0;
}

static int models_set(struct config *config, const char *option, const char *key, const char *value,
                      struct config_error *error)
{
    char section[80];
    for (uint32_t i = 0; value && i < config->model_count; i++) {
        snprintf(section, sizeof section, "model %s", config->models[i].name);
        if (config_set(config, section, key, value, error))
            return option_error(option, error);
    }
    return 0;
}

static int listen_set(struct config *config, const struct options *options,
                      struct config_error *error)
{
    char list[CONFIG_MAX_LISTEN * CONFIG_ADDRESS_MAX] = "";
    size_t at = 0;
    for (uint32_t i = 0; i < options->listen_count; i++) {
        int length = snprintf(list + at, sizeof list - at, "%s%s", i ? "," : "",
                              options->listen[i]);
        if (length < 0 || (size_t)length >= sizeof list - at)
            return -EDOM;
        at += (size_t)length;
    }
    return server_set(config, "--listen", "listen", options->listen_count ? list : NULL, error);
}

int options_apply(const struct options *options, struct config *config, struct config_error *error)
{
    int failed;
    config_init(config);
    error->text[0] = '\0';
    if (options->config_path && (failed = config_load(options->config_path, config, error)))
        return failed;
    for (uint32_t i = 0; i < options->model_count; i++)
        if (config_add_model(config, options->models[i], error))
            return option_error("--model", error);
    if (listen_set(config, options, error) ||
        server_set(config, "--gateways", "gateways", options->gateways, error) ||
        server_set(config, "--run-dir", "run_dir", options->run_dir, error) ||
        server_set(config, "--log-format", "log_format", options->log_format, error) ||
        models_set(config, "--workers", "workers", options->workers, error) ||
        models_set(config, "--device", "devices", options->device, error) ||
        models_set(config, "--precision", "precision", options->precision, error) ||
        models_set(config, "--backend", "backend", options->backend, error))
        return -EDOM;
    if (config->model_count == 0 && !options->config_path) {
        config_validate(config, error);
        return -EDOM;
    }
    sandbox_resolve(config);
    return config_validate(config, error) ? -EINVAL : 0;
}
