/*
 * A stream's items on their way from worker to gateway: a ring over the slot's output area. One
 * process produces and one consumes; each has a counter of bytes that only it writes and that only
 * grows. An item lies in the ring as its length (32 bits, little-endian) and its bytes; both wrap
 * around.
 *
 * Each side keeps its own counter in private memory and bounds what it reads of the other's, so
 * neither a length nor a counter that makes no sense leads outside the ring.
 */
#ifndef RING_H
#define RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In shared memory. */
struct ring_counts {
    _Atomic uint64_t produced; /* by the producer; by who clears the ring before it has one */
    _Atomic uint64_t consumed; /* by the consumer */
    _Atomic uint32_t waiting;  /* set by a producer that waits for room, cleared by the consumer */
    uint32_t reserved;
};

/* One side's view. */
struct ring {
    struct ring_counts *counts;
    unsigned char *bytes;
    uint64_t capacity;
    uint64_t own; /* the counter that this side writes */
};

/* Before there is a producer or a consumer. */
void ring_clear(struct ring_counts *counts);

/* Producer: append an item. 0; -EAGAIN: no room now; -EMSGSIZE: larger than the ring; -EBADMSG: the
 * consumer's counter makes no sense. */
int ring_put(struct ring *ring, const void *bytes, size_t size);

/* Producer, after -EAGAIN: ask to be woken. True: there is room by now, try again instead. */
bool ring_wait(struct ring *ring, size_t size);

/* Consumer: the size of the next item. 0 with *size; -EAGAIN: there is none yet; -EBADMSG: what the
 * producer wrote makes no sense. */
int ring_next(const struct ring *ring, size_t *size);

/* Consumer, after ring_next: copy that item out and make room. True: the producer waits for that,
 * wake it. */
bool ring_take(struct ring *ring, void *bytes, size_t size);

/* Consumer: all that lies there, lengths included. 0 with *size, or -EBADMSG. */
int ring_size(const struct ring *ring, size_t *size);

/* Consumer: copy ring_size bytes out, and look at the copy, with counters of its own, from now on.
 */
void ring_detach(struct ring *ring, struct ring_counts *counts, void *bytes, size_t size);

#endif
