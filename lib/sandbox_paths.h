/* Landlock, by its system calls: which files a process reaches, and that it neither listens nor
 * connects by TCP. */
#ifndef SANDBOX_PATHS_H
#define SANDBOX_PATHS_H

#include <stdbool.h>
#include <stdint.h>

enum sandbox_access {
    SANDBOX_READ,  /* read, list, map as code */
    SANDBOX_USE,   /* also write what is there: device nodes */
    SANDBOX_WRITE, /* also make and remove files */
};

/* What the kernel has: 0 is no Landlock, 4 adds TCP, 6 adds signals. */
int sandbox_landlock_version(void);

/* Rules that are being written: a descriptor, or a negative errno (-ENOSYS: no Landlock). files:
 * files are ruled too, not only TCP and signals. */
int sandbox_rules_new(bool files);

/* Connecting by TCP to that port. 0, also where this kernel does not rule TCP; or a negative errno.
 */
int sandbox_rules_connect(int rules, uint16_t port);

/* All below path. 0, also if there is no such path; or a negative errno. */
int sandbox_rules_allow(int rules, const char *path, enum sandbox_access access);

/* From now on, for this thread and those that it starts. Closes rules. 0 or a negative errno. */
int sandbox_rules_apply(int rules);

#endif
