/*
 * Jobs that run until the test lets them go on: not for a time, which is too short on one machine
 * and too long on another.
 */
#ifndef TESTS_PLUGINS_GATE_H
#define TESTS_PLUGINS_GATE_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

/* The file PATH.gate, or -1. Opened in setup: there are no files in the sandbox that a model serves
 * in. */
static inline int gate_open(const char *path)
{
    char name[4096];
    snprintf(name, sizeof name, "%s.gate", path);
    return open(name, O_RDONLY | O_CLOEXEC);
}

/* Until the file is longer than that many bytes; without a file for ever. */
static inline bool gate_holds(int gate, unsigned number)
{
    return lseek(gate, 0, SEEK_END) <= (off_t)number;
}

#endif
