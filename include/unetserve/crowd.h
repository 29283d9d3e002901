/*
 * How many connections there are, in all and from each address, over all HTTP gateways: in the
 * queue's shared memory, one block a gateway.
 *
 * A gateway writes its own block only, and adds up those of all that live. So nothing is left of
 * one that dies: its numbers count no more from the moment its index is given back, which is when
 * the kernel has closed its connections. There is no lock and nothing to repair.
 *
 * A place is taken by writing first and looking then, both sequentially consistent: of two gateways
 * that want the last place, at least one sees the other. So there are never more than are allowed.
 * Both may see each other, and both step back; that is all that being exact costs.
 *
 * A block has room for the addresses of CROWD_WAYS entries in each of CROWD_SETS sets, by a hash
 * whose secret nobody outside knows. An address whose set is full is counted by its own gateway
 * alone. With 8192 connections from as many addresses that has come to one in a hundred gateways.
 */
#ifndef CROWD_H
#define CROWD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define CROWD_GATEWAYS  64 /* HTTP gateways: those of the first seats */
#define CROWD_SETS      8192
#define CROWD_WAYS      8
#define CROWD_COUNT_MAX 0xfffff

struct queue;

/* By the gateway of that seat. */
struct crowd_block {
    _Alignas(64) _Atomic uint32_t holder; /* its process index; another's numbers mean nothing */
    _Atomic uint32_t count;               /* connections */
    _Atomic uint32_t waiting; /* 1: somebody waits in its backlog, since there is no place */
    _Atomic uint32_t used;    /* 1: addresses[] is not all zeros */
    _Alignas(64) _Atomic uint64_t addresses[CROWD_SETS][CROWD_WAYS]; /* tag:44 | count:20 */
};

/* A gateway's own view. */
struct crowd {
    const struct queue *queue;
    struct crowd_block *mine; /* NULL: there are no others */
    uint32_t seats;           /* HTTP gateways */
    uint32_t count;           /* its own connections */
};

/* The process that sits on that seat, of so many, begins, with none. */
void crowd_open(struct crowd *crowd, const struct queue *queue, uint32_t seats, uint32_t seat,
                uint16_t index);

/* One connection more, if there are fewer than that in all. */
bool crowd_take(struct crowd *crowd, uint32_t most);

/* One less. */
void crowd_give(struct crowd *crowd);

/* How many there are in all. */
uint32_t crowd_total(const struct crowd *crowd);

/* Say, and ask, whether somebody waits for a place. */
void crowd_wait(struct crowd *crowd, bool waiting);
bool crowd_somebody_waits(const struct crowd *crowd);

/* A place for an address that has none here yet; NULL: there is none, so others will not see it. */
_Atomic uint64_t *crowd_address_place(struct crowd *crowd, uint64_t hash);

/* How many connections it has here: 0 gives the place back. place may be NULL. */
void crowd_address_set(_Atomic uint64_t *place, uint64_t hash, uint32_t count);

/* How many it has at the others. */
uint32_t crowd_address_elsewhere(const struct crowd *crowd, uint64_t hash);

#endif
