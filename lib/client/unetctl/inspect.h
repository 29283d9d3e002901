/*
 * What a model is, found out without serving it.
 */
#ifndef INSPECT_H
#define INSPECT_H

#include <stdbool.h>

/* Print the facts of a weights file, a model directory or a plugin to stdout, or say on stderr what
 * does not fit. Returns the exit code. */
int inspect_model(const char *path, bool json);

#endif
