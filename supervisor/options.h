/*
 * The command line. It only says what was given; options_apply puts it on top of the configuration.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "unetserve/config.h"

#include <stdbool.h>

struct options {
    const char *config_path;              /* -c; NULL: defaults only */
    const char *models[QUEUE_MAX_MODELS]; /* --model, in order */
    uint32_t model_count;
    const char *listen[CONFIG_MAX_LISTEN];
    uint32_t listen_count;
    const char *gateways, *run_dir, *log_format;        /* NULL: not given */
    const char *workers, *device, *precision, *backend; /* for every model */
    const char *probe;                                  /* NULL: serve */
    const char *client_file;                            /* NULL: none */
    bool check, version, help;
};

/* 0, or -EINVAL with a sentence. Strings stay argv's. */
int options_parse(int argc, char **argv, struct options *out, char *error, size_t error_size);

/* Defaults, then the file, then the command line, then config_validate. 0; -ENOENT or -EACCES (the
 * file); -EINVAL: the configuration is wrong; -EDOM: an option is wrong. */
int options_apply(const struct options *options, struct config *config, struct config_error *error);

extern const char options_help[];

#endif
