/*
 * What a process gives up when it needs it no more. SECURITY.md says against whom, and what each
 * wall is worth. A process calls, in this order and from its main thread:
 *
 * - sandbox_begin, before it has threads, and before a worker loads its plugin
 * - sandbox_serve, when it is set up and before its first request
 *
 * Libraries that read a file at their first use (jansson: /dev/urandom, for its seed) must have
 * been used before. Neither can be undone, and what exec or fork would start inherits them.
 */
#ifndef SANDBOX_H
#define SANDBOX_H

#include "unetserve/config.h"
#include "unetserve/queue.h"

enum sandbox_mode {
    SANDBOX_AUTO,  /* what the kernel has */
    SANDBOX_ON,    /* all of it, or the process does not start */
    SANDBOX_FILES, /* workers: as AUTO, but files can still be opened while the model serves */
    SANDBOX_OFF,
};

/* The values of key `sandbox`; what is none of them is AUTO. */
enum sandbox_mode sandbox_mode_of(const char *text);

/* Models whose key says `server` say what the server's says from here on; Python files say `off`
 * where that is `auto`, since what they import, fetch and start is not known. */
void sandbox_resolve(struct config *config);

#define SANDBOX_FILES_AGAIN 4
#define SANDBOX_PORTS       5

struct sandbox {
    enum queue_role role;
    enum sandbox_mode mode;
    uint32_t max_connections; /* gateways */
    const char
        *again[SANDBOX_FILES_AGAIN]; /* gateways, auth: files read again at SIGHUP, or "" or NULL */
    uint16_t ports[SANDBOX_PORTS];   /* auth: where it may connect to by TCP; 0: none */
    bool asked; /* a question about a model: the worker that serves it will say what is missing */
    bool gpu;   /* workers: device nodes, ioctl, and files opened late */
    const char *model_path;  /* workers: its directory can be read */
    const char *paths;       /* workers: key `sandbox_paths`: more that can be read, "" or NULL */
    const char *writable[2]; /* directories in which files can be made during set-up, or NULL */
};

/* 0, or a negative errno after a log line: -ENOSYS where the mode is ON and the kernel lacks
 * something. */
int sandbox_begin(const struct sandbox *sandbox);
int sandbox_serve(const struct sandbox *sandbox);

/* NULL, or a sentence that names what this kernel (or build) does not have. */
const char *sandbox_missing(void);

#endif
