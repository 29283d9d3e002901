/*
 * The worker room inside a Python interpreter: the module unetserve._worker. One process is one
 * worker with one model, so all of it is one state, touched with the interpreter's lock held unless
 * it says otherwise.
 */
#ifndef EXTENSION_H
#define EXTENSION_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* The headers show it from 3.11 on only, the function that takes it has been stable since 3.7. */
#ifndef PyBUF_READ
#define PyBUF_READ 0x100
#endif

#include "unetserve/model.h"
#include "workers/worker.h"

/* A request between its first call and its last. Python knows it by its handle, which no later
 * request has: a stale one is told apart. */
struct place {
    struct unetserve_item *item; /* NULL: the place is free */
    uint64_t handle;
    PyObject *value; /* what its next hook is given; its verdict once it is complete */
    uint32_t status; /* of the verdict */
};

struct extension {
    PyObject *model; /* an object with the methods that model_ops.c calls */
    const struct unetserve_host *host;
    struct unetserve_interface interface;
    uint32_t is_async;     /* predict starts, complete ends */
    uint32_t watches_self; /* the class has a health method of its own */
    int retire_fd;         /* SIGTERM writes to it */
    int wake_fd;           /* other threads write to it: call model.woken on the worker's thread */
    struct place places[WORKER_MAX_JOBS];
};

extern struct extension extension;

/* The place of a request, or NULL: it has come to its end. */
struct place *place_of(uint64_t handle);

/* The table that calls back into Python. */
extern const struct unetserve_model_ops extension_ops;

/* From a dict: name, version, streams, max_batch, batch_timeout_ms, max_pending, and of a tensor
 * model channels, dtypes, input_field, output_field, multiple, tile, classes. 0, or -1 with an
 * exception. */
int interface_from_dict(PyObject *dict, struct unetserve_interface *out);

/* A whole number of that dict; *out stays as it is where there is none. 0, or -1 with an exception.
 */
int interface_number(PyObject *dict, const char *key, uint32_t *out);

/* ---- signs of progress, without any lock ---- */

/* A call into Python begins, and may take most of limit_ns (0: any time): so long it counts as
 * progress. Then it ends. */
void ticker_begin(uint64_t limit_ns);
void ticker_end(void);

/* The thread that ticks meanwhile. 0 or a negative errno. */
int ticker_start(void);

#endif
