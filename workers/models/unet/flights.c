#include "flights.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/* Items of those that have ended are the worker's again. */
static int land(struct flights *flights, uint64_t least)
{
    uint64_t mark = 0;
    int failure = flights->backend->collect(flights->instance, least, &mark);
    while (flights->count > 0 && (failure || flights->of[flights->first].mark <= mark)) {
        const struct flight *flight = &flights->of[flights->first];
        for (size_t i = 0; i < flight->count; i++)
            flights->host->complete(flights->host, flight->items[i], failure);
        flights->first = (flights->first + 1) % FLIGHTS;
        flights->count--;
    }
    return failure;
}

static void on_ready(void *opaque, int fd, uint32_t events)
{
    (void)fd, (void)events;
    (void)land(opaque, 0); /* a failure goes with the items */
}

int flights_open(const struct unetserve_host *host, const struct backend *backend, void *instance,
                 size_t most, struct flights *out)
{
    *out = (struct flights){.backend = backend, .instance = instance, .most = most};
    if (!host || !backend->submit)
        return 0;
    for (size_t i = 0; i < FLIGHTS; i++) {
        out->of[i].items = calloc(most, sizeof(struct unetserve_item *));
        if (!out->of[i].items)
            return -ENOMEM;
    }
    int error = host->watch(host, backend->descriptor(instance), EPOLLIN, on_ready, out);
    if (!error)
        out->host = host;
    return error;
}

void flights_close(struct flights *flights)
{
    for (size_t i = 0; i < FLIGHTS; i++)
        free(flights->of[i].items);
    if (flights->host)
        flights->host->unwatch(flights->host, flights->backend->descriptor(flights->instance));
    *flights = (struct flights){.host = NULL};
}

bool flights_take(const struct flights *flights, size_t items)
{
    return flights->host && items > 0 && items <= flights->most;
}

int flights_make_room(struct flights *flights)
{
    return flights->count < FLIGHTS ? 0 : land(flights, flights->of[flights->first].mark);
}

void flights_add(struct flights *flights, struct unetserve_item *const *items, size_t count,
                 uint64_t mark)
{
    struct flight *flight = &flights->of[(flights->first + flights->count) % FLIGHTS];
    memcpy(flight->items, items, count * sizeof(struct unetserve_item *));
    flight->count = count;
    flight->mark = mark;
    if (flights->count > 0)
        (void)flights->host->count(flights->host, "overlapped_batches_total", 1);
    flights->count++;
}

int flights_wait(struct flights *flights, uint64_t mark)
{
    return flights->host ? land(flights, mark) : 0;
}
