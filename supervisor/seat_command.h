/*
 * What a seat's process is started with: its program, command line, environment and file
 * descriptors.
 */
#ifndef SEAT_COMMAND_H
#define SEAT_COMMAND_H

#include "supervisor/python_command.h"
#include "supervisor/server.h"
#include "supervisor/spawn.h"

#define SEAT_COMMAND_MAX_WORDS 24

/* Its parts point at each other: it stays where it is. */
struct seat_command {
    struct spawn spawn; /* what counts; the rest is what it points at */
    struct spawn_fd fds[SPAWN_MAX_FDS];
    char *words[SEAT_COMMAND_MAX_WORDS];
    size_t count;
    char seat[16], index[16], model[16], threads[16], node[16], cores[512], omp[40];
    char visible[GPU_TEXT_MAX + 32];
    char **environment;
    struct python_command python;
};

/* For a seat that has its index in the queue. ready_fd is the end that its process writes to. 0, or
 * a negative errno; free it in either case. */
int seat_command_make(const struct tree_seat *seat, int ready_fd, struct seat_command *out);

void seat_command_free(struct seat_command *command);

#endif
