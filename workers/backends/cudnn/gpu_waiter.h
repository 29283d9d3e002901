/*
 * A thread that waits for a device, so that whoever gives it work need not. It is told events and
 * the marks that they stand for, in order, and makes a descriptor readable when one has come. What
 * the device says it keeps to itself: who asks the device next is told the same.
 */
#ifndef GPU_WAITER_H
#define GPU_WAITER_H

#include "gpu_device.h"

#include <pthread.h>
#include <stdatomic.h>

struct gpu_waiter {
    const struct gpu_driver *driver; /* NULL: not open */
    CUcontext context;
    pthread_t thread;
    int orders[2]; /* a pipe: what to wait for */
    int told;      /* an eventfd */
    _Atomic uint64_t reached;
};

/* *out stays where it is until it is closed. 0, or a negative errno. */
int gpu_waiter_open(const struct gpu_device *device, struct gpu_waiter *out);

/* Waits for what it has been told first. */
void gpu_waiter_close(struct gpu_waiter *waiter);

/* The event has been recorded, and stands for that mark. It must not be destroyed before the waiter
 * is closed; if it is recorded again in the meantime, the mark comes later. 0, or a negative
 * errno. */
int gpu_waiter_expect(struct gpu_waiter *waiter, CUevent event, uint64_t mark);

/* The last mark that has come; waiter->told is readable again only after the next. */
uint64_t gpu_waiter_reached(struct gpu_waiter *waiter);

#endif
