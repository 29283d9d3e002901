/*
 * The ZeroMQ front: a ROUTER at RUN_DIR/client.ipc that speaks unetserve/protocol.h, for programs
 * on this machine.
 */
#ifndef GATEWAY_FRONT_ZMQ_H
#define GATEWAY_FRONT_ZMQ_H

#include "gateway/gateway.h"

struct front_zmq {
    struct gateway *gateway;
    void *router;
    sd_event_source *readable, *again;
    uint32_t waiting; /* requests without an answer */
};

/* Bind, and set gateway->front. 0, or -errno after a log line. */
int front_zmq_open(struct front_zmq *front, struct gateway *gateway);
void front_zmq_close(struct front_zmq *front);

#endif
