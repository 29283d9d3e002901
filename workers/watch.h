/*
 * File descriptors that a model waits on: the worker's loop watches them, so that a model needs no
 * thread of its own to answer later. A model may register them before the loop exists (in setup).
 */
#ifndef WATCH_H
#define WATCH_H

#include "workers/worker.h"

#include <systemd/sd-event.h>

typedef void watch_ready(void *opaque, int fd, uint32_t events);

/* 0, -EEXIST, -ENOSPC, -ENOMEM, or what epoll says. */
int watch_add(struct worker *worker, int fd, uint32_t events, watch_ready *ready, void *opaque);

/* One that is not watched is left alone. */
void watch_remove(struct worker *worker, int fd);

/* The loop begins: what was registered before is watched from now on, and what comes later at once.
 * 0 or -errno. */
int watch_begin(struct worker *worker, sd_event *event);

/* Forget all of them: before the loop ends. */
void watch_end(struct worker *worker);

#endif
