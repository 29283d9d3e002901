/*
 * What a worker process does from its command line to its exit status. unetserve-worker is this and
 * nothing else; another program that is a worker (a Python interpreter with the extension of
 * python/) brings its model along.
 */
#ifndef PROGRAM_H
#define PROGRAM_H

#include "unetserve/model.h"

struct program {
    const struct unetserve_model_ops *ops; /* the model that it holds; NULL: the plugin that the
                                              configuration names */
    const char *paths; /* what it needs to read, PATH:PATH..., beside what the configuration says;
                          or NULL */
    int answer_fd;     /* --describe: where the answer goes */
    int retire_fd;     /* readable when the worker is to leave, and SIGTERM is not touched; -1: it
                          leaves at SIGTERM, which is blocked */
};

/* Either --describe, or a life in a seat. Returns the exit status. */
int program_run(int argc, char **argv, const struct program *program);

#endif
