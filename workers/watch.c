#include "workers/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

/* One that was removed stays in the list, with fd -1, until the next is added: it may be removed by
 * the very function that it calls. */
struct watch {
    struct watch *next;
    int fd;
    uint32_t events;
    watch_ready *ready;
    void *opaque;
    sd_event_source *source;
};

static int on_ready(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)source;
    const struct watch *watch = opaque;
    if (watch->fd >= 0)
        watch->ready(watch->opaque, fd, events);
    return 0;
}

static int begin_one(struct watch *watch, sd_event *event)
{
    int error = sd_event_add_io(event, &watch->source, watch->fd, watch->events, on_ready, watch);
    return error < 0 ? error : 0;
}

/* A place for fd: a free one, or a new one. */
static int find_place(struct worker *worker, int fd, struct watch **out)
{
    unsigned count = 0;
    *out = NULL;
    for (struct watch *watch = worker->watches; watch; watch = watch->next, count++) {
        if (watch->fd == fd)
            return -EEXIST;
        if (watch->fd < 0)
            *out = watch;
    }
    if (*out)
        return 0;
    if (count >= UNETSERVE_MAX_WATCHES)
        return -ENOSPC;
    struct watch *made = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    made->fd = -1;
    made->next = worker->watches;
    worker->watches = made;
    *out = made;
    return 0;
}

int watch_add(struct worker *worker, int fd, uint32_t events, watch_ready *ready, void *opaque)
{
    struct watch *watch;
    if (fd < 0 || !ready || (events & ~(uint32_t)(EPOLLIN | EPOLLOUT)))
        return -EINVAL;
    int error = find_place(worker, fd, &watch);
    if (error)
        return error;
    watch->events = events;
    watch->ready = ready;
    watch->opaque = opaque;
    watch->fd = fd;
    error = worker->event ? begin_one(watch, worker->event) : 0;
    if (error)
        watch->fd = -1;
    return error;
}

void watch_remove(struct worker *worker, int fd)
{
    for (struct watch *watch = worker->watches; fd >= 0 && watch; watch = watch->next) {
        if (watch->fd != fd)
            continue;
        watch->fd = -1;
        watch->source = sd_event_source_disable_unref(watch->source);
    }
}

int watch_begin(struct worker *worker, sd_event *event)
{
    worker->event = event;
    int error = 0;
    for (struct watch *watch = worker->watches; !error && watch; watch = watch->next)
        if (watch->fd >= 0)
            error = begin_one(watch, event);
    return error;
}

void watch_end(struct worker *worker)
{
    while (worker->watches) {
        struct watch *watch = worker->watches;
        worker->watches = watch->next;
        sd_event_source_disable_unref(watch->source);
        free(watch);
    }
    worker->event = NULL;
}
