/*
 * The directory of this instance's sockets and, unless cache_dir is set, of the weights that its
 * workers share: private, locked while the instance lives, emptied at its end.
 */
#ifndef RUN_DIR_H
#define RUN_DIR_H

#include <stdbool.h>
#include <stddef.h>

struct run_dir {
    char path[76];
    char root[76]; /* "" when the configuration named the directory */
    int lock_fd;
    bool made; /* by this process, which removes it */
};

/* The directory `wanted`, or, when that is "", a directory called `name` (or name-PID) under
 * layout_run_root. 0, or a negative errno with a sentence: -EBUSY another instance lives there,
 * -EPERM somebody else could write there, ... */
int run_dir_open(const char *wanted, const char *name, struct run_dir *out, char *error,
                 size_t error_size);

/* Remove the sockets, the packed weights, and the directories that were made. */
void run_dir_remove(struct run_dir *run_dir);

#endif
