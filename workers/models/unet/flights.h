/*
 * Batches that a backend works on while nobody waits for it: which items are in which, and telling
 * the worker of those that have ended. Backends that do not do that (backend.h: submit) have none.
 */
#ifndef FLIGHTS_H
#define FLIGHTS_H

#include "../../backends/backend.h"
#include "unetserve/model.h"

#define FLIGHTS 2 /* a worker has no more of them at once, but when it runs one by one */

struct flight {
    struct unetserve_item **items; /* room for `most` */
    size_t count;
    uint64_t mark; /* where the backend has come to when it has ended */
};

struct flights {
    const struct unetserve_host *host; /* NULL: there are none */
    const struct backend *backend;
    void *instance;
    size_t most; /* items in one */
    size_t first;
    size_t count;
    struct flight of[FLIGHTS]; /* from first on, in a ring: in the order in which they end */
};

/* host may be NULL, as in tests. *out stays where it is until the host's loop has ended. 0, or a
 * negative errno. */
int flights_open(const struct unetserve_host *host, const struct backend *backend, void *instance,
                 size_t most, struct flights *out);
void flights_close(struct flights *flights);

/* May so many items go together, and nobody wait? */
bool flights_take(const struct flights *flights, size_t items);

/* Room for one more: where there is none, waits for the oldest. 0, -EIO. */
int flights_make_room(struct flights *flights);

/* What ends with that mark has these items. There is room. */
void flights_add(struct flights *flights, struct unetserve_item *const *items, size_t count,
                 uint64_t mark);

/* Wait for all up to that mark. 0, -EIO. */
int flights_wait(struct flights *flights, uint64_t mark);

#endif
