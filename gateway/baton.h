/*
 * The gateway's end of the line to the broker: a PUSH socket that carries batons
 * (unetserve/wire.h).
 */
#ifndef GATEWAY_BATON_H
#define GATEWAY_BATON_H

#include "unetserve/queue.h"
#include "unetserve/wire.h"

struct baton_line {
    const struct queue *queue;
    void *context; /* ZeroMQ's, shared with the ZeroMQ front */
    void *socket;
};

/* 0 or -errno. Does not wait for the broker. */
int baton_open(struct baton_line *line, const struct queue *queue, const char *run_dir);
void baton_close(struct baton_line *line);

/* A baton_send of jobs.h; opaque is the line. Never blocks. Where no broker is connected yet the
 * brokers' seats are woken instead: they look at the queue then. */
void baton_pass(void *opaque, const struct wire_baton *baton);

#endif
