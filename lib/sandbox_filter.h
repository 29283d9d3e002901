/* The system calls that a role may make: allow-lists for seccomp. */
#ifndef SANDBOX_FILTER_H
#define SANDBOX_FILTER_H

#include <stdbool.h>

enum sandbox_stage {
    SANDBOX_STAGE_SETUP, /* a worker that loads its model */
    SANDBOX_STAGE_MODEL, /* a worker that serves */
    SANDBOX_STAGE_FILES, /* one that serves and may open files */
    SANDBOX_STAGE_GATEWAY,
    SANDBOX_STAGE_GATEWAY_READS, /* one that reads keys or certificates again */
    SANDBOX_STAGE_BROKER,
    SANDBOX_STAGE_AUTH, /* sockets of the Internet's families, files for reading */
};

/* Load it for every thread of the process. gpu: ioctl of NVIDIA's devices. 0 or a negative errno.
 */
int sandbox_filter_load(enum sandbox_stage stage, bool gpu);

#endif
