/*
 * The items of a streamed answer as its gateway takes them out: first from the slot's ring, while
 * the model makes more, then from a copy of what was left in it, so that a slow reader holds no
 * slot. A stream that breaks off ends with an item that says why.
 */
#ifndef GATEWAY_ITEMS_H
#define GATEWAY_ITEMS_H

#include "unetserve/problem.h"
#include "unetserve/ring.h"

struct items {
    struct ring ring;
    struct ring_counts counts; /* of the copy */
    void *rest;                /* the copy; NULL while the ring is the slot's */
    void *item;                /* the one at hand */
    size_t item_room;
    bool live;            /* more may come */
    bool broken;          /* the end is not a clean one */
    const char *sentence; /* what is still to be said about that; static, or NULL */
    struct problem said;
};

enum items_next { ITEMS_ONE, ITEMS_NOT_YET, ITEMS_END, ITEMS_BROKEN };

void items_begin(struct items *items, struct ring_counts *counts, void *bytes, uint64_t capacity);
void items_free(struct items *items);

/* Is there something to take: an item, or the end? */
bool items_ready(const struct items *items);

/* The next item, in memory that lives until the next call. *wake: the model waits for the room. */
enum items_next items_take(struct items *items, const char **bytes, size_t *size, bool *wake);

/* The model has said all, and the slot is about to go: copy out what is left. */
void items_finish(struct items *items);

/* It breaks off: after what is there already, or (cut) at once. sentence: static; NULL where the
 * model's own last item says it. */
void items_break(struct items *items, const char *sentence, bool cut);

#endif
