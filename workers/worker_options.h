/*
 * The worker's command line, beside --seat and --index which seat_take has taken:
 *
 *     unetserve-worker --seat S --index I --model N --device cpu --cores 0-1 --threads 2
 *     unetserve-worker --describe --model-path PATH [--device D] [--precision P] [--backend B]
 * [--tile N] [--max-batch N] [--route R] [--sandbox S] [--sandbox-paths PATH:PATH...]
 */
#ifndef WORKER_OPTIONS_H
#define WORKER_OPTIONS_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct worker_options {
    bool describe;
    const char *model_path;    /* --describe only; points into argv, like the strings below */
    const char *device;        /* "cpu" */
    const char *precision;     /* "auto" */
    const char *backend;       /* "auto" */
    const char *sandbox;       /* --describe only, as in the configuration: "auto" */
    const char *sandbox_paths; /* NULL: none */
    const char *route;         /* --describe only; NULL: not known */
    uint32_t tile;
    uint32_t max_batch;
    uint32_t model;   /* number in the model table */
    uint32_t threads; /* 0: as many as cores are allowed */
    bool has_memory_node;
    uint32_t memory_node;
    bool has_cores;
    cpu_set_t cores;
};

/* 0, or -EINVAL with a sentence that names the option. */
int worker_options_parse(int argc, char **argv, struct worker_options *out, char *error,
                         size_t error_size);

#endif
