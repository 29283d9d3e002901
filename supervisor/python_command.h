/*
 * How a worker of a Python model is started: the user's interpreter runs the user's file again, and
 * an environment variable tells the package `unetserve` in it which seat it has.
 */
#ifndef PYTHON_COMMAND_H
#define PYTHON_COMMAND_H

#include "unetserve/config.h"

#define PYTHON_COMMAND_VARIABLES 2
#define PYTHON_WORDS_MAX         16384

struct python_command {
    char program[PATH_MAX];
    char *arguments[3];                                    /* the program and the file */
    const char *environment[PYTHON_COMMAND_VARIABLES + 1]; /* to add, NULL at the end */
    char words[PYTHON_WORDS_MAX]; /* UNETSERVE_WORKER=: a line for each word */
    char package[2 * PATH_MAX];   /* PYTHONPATH=: this unetserve's own package comes first */
};

/* words: as unetserve-worker would be started, NULL at the end. *out holds pointers into itself and
 * into model. 0; -ENXIO: no interpreter; -E2BIG. */
int python_command_make(const struct config_model *model, const char *const *words,
                        struct python_command *out);

#endif
