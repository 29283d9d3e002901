/*
 * The baton: what a gateway tells the broker over ZeroMQ (PUSH to PULL at
 * "ipc://RUN_DIR/broker.ipc"). One msgpack array a message,
 *
 *     baton = [ "job", slot: uint, word: uint64, model: uint ]
 *
 * A baton is a hint: it makes the broker look at a slot now instead of at its next rescan. Losing,
 * doubling or forging one changes nothing, because the broker reads the slot's word itself.
 */
#ifndef WIRE_H
#define WIRE_H

#include <stddef.h>
#include <stdint.h>

#define WIRE_BATON_MAX      64
#define WIRE_BROKER_ADDRESS "broker.ipc" /* in run_dir */
#define WIRE_CLIENT_ADDRESS "client.ipc"

struct wire_baton {
    uint32_t slot;
    uint32_t model;
    uint64_t word;
};

/* Returns the length, at most WIRE_BATON_MAX. */
size_t wire_baton_write(const struct wire_baton *baton, unsigned char *bytes);

/* 0, or -EBADMSG for anything but exactly one baton. Never allocates in proportion to what bytes
 * claim. */
int wire_baton_read(const void *bytes, size_t size, struct wire_baton *out);

#endif
