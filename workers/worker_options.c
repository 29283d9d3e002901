#include "workers/worker_options.h"
#include "workers/cores.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    OPTION_DESCRIBE = 1000,
    OPTION_PATH,
    OPTION_DEVICE,
    OPTION_PRECISION,
    OPTION_BACKEND,
    OPTION_TILE,
    OPTION_MAX_BATCH,
    OPTION_MODEL,
    OPTION_THREADS,
    OPTION_CORES,
    OPTION_MEMORY_NODE,
    OPTION_SANDBOX,
    OPTION_SANDBOX_PATHS,
    OPTION_ROUTE
};

static const struct option long_options[] = {
    {"describe", no_argument, NULL, OPTION_DESCRIBE},
    {"model-path", required_argument, NULL, OPTION_PATH},
    {"device", required_argument, NULL, OPTION_DEVICE},
    {"precision", required_argument, NULL, OPTION_PRECISION},
    {"backend", required_argument, NULL, OPTION_BACKEND},
    {"tile", required_argument, NULL, OPTION_TILE},
    {"max-batch", required_argument, NULL, OPTION_MAX_BATCH},
    {"model", required_argument, NULL, OPTION_MODEL},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"cores", required_argument, NULL, OPTION_CORES},
    {"memory-node", required_argument, NULL, OPTION_MEMORY_NODE},
    {"sandbox", required_argument, NULL, OPTION_SANDBOX},
    {"sandbox-paths", required_argument, NULL, OPTION_SANDBOX_PATHS},
    {"route", required_argument, NULL, OPTION_ROUTE},
    {NULL, 0, NULL, 0},
};

static int parse_number(const char *text, uint32_t max, uint32_t *out)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || *text < '0' || *text > '9' || *end || value > max)
        return -EINVAL;
    *out = (uint32_t)value;
    return 0;
}

static int set_cores(struct worker_options *options, const char *text)
{
    options->has_cores = true;
    return cores_parse(text, &options->cores);
}

/* One option. 0, or -EINVAL: its value makes no sense, or there is no such option. */
static int set_option(struct worker_options *options, int option, const char *value)
{
    if (!value && option != OPTION_DESCRIBE)
        return -EINVAL;
    switch (option) {
    case OPTION_DESCRIBE: options->describe = true; return 0;
    case OPTION_PATH: options->model_path = value; return 0;
    case OPTION_DEVICE: options->device = value; return 0;
    case OPTION_PRECISION: options->precision = value; return 0;
    case OPTION_BACKEND: options->backend = value; return 0;
    case OPTION_TILE: return parse_number(value, 1u << 20, &options->tile);
    case OPTION_MAX_BATCH: return parse_number(value, 1u << 16, &options->max_batch);
    case OPTION_MODEL: return parse_number(value, UINT32_MAX, &options->model);
    case OPTION_THREADS: return parse_number(value, 4096, &options->threads);
    case OPTION_MEMORY_NODE:
        options->has_memory_node = true;
        return parse_number(value, CORES_MAX_NODES - 1, &options->memory_node);
    case OPTION_SANDBOX: options->sandbox = value; return 0;
    case OPTION_SANDBOX_PATHS: options->sandbox_paths = value; return 0;
    case OPTION_ROUTE: options->route = value; return 0;
    case OPTION_CORES: return set_cores(options, value);
    default: return -EINVAL;
    }
}

int worker_options_parse(int argc, char **argv, struct worker_options *out, char *error,
                         size_t error_size)
{
    struct worker_options options = {
        .device = "cpu", .precision = "auto", .backend = "auto", .sandbox = "auto"};
    optind = 1;
    opterr = 0;
    for (;;) {
        int at = optind;
        int option = getopt_long(argc, argv, "", long_options, NULL);
        if (option == -1)
            break;
        if (set_option(&options, option, optarg)) {
            const char *shown = at > 0 && at < argc ? argv[at] : "";
            snprintf(error, error_size, "option %s: unknown, or its value makes no sense", shown);
            return -EINVAL;
        }
    }
    if (optind != argc) {
        snprintf(error, error_size, "unexpected argument %s", argv[optind]);
        return -EINVAL;
    }
    if (options.describe != (options.model_path != NULL)) {
        snprintf(error, error_size, "--describe and --model-path go together");
        return -EINVAL;
    }
    if (strcmp(options.device, "auto") == 0)
        options.device = "cpu";
    *out = options;
    return 0;
}
