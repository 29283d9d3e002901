#include "gateway/baton.h"

#include "unetserve/seat.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <zmq.h>

#define BATONS_QUEUED 4096

static int set(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value);
}

int baton_open(struct baton_line *line, const struct queue *queue, const char *run_dir)
{
    char address[PATH_MAX];
    int size = snprintf(address, sizeof address, "ipc://%s/%s", run_dir, WIRE_BROKER_ADDRESS);
    if (size < 0 || (size_t)size >= sizeof address)
        return -ENAMETOOLONG;
    *line = (struct baton_line){.queue = queue, .context = zmq_ctx_new()};
    if (!line->context)
        return -ENOMEM;
    line->socket = zmq_socket(line->context, ZMQ_PUSH);
    /* IMMEDIATE: batons for a broker that is not there are not kept; the next one finds the slots
     * by itself. */
    if (line->socket && !set(line->socket, ZMQ_LINGER, 0) &&
        !set(line->socket, ZMQ_SNDHWM, BATONS_QUEUED) && !set(line->socket, ZMQ_IMMEDIATE, 1) &&
        !set(line->socket, ZMQ_RECONNECT_IVL, 20) &&
        !set(line->socket, ZMQ_RECONNECT_IVL_MAX, 500) && !zmq_connect(line->socket, address))
        return 0;
    int error = errno;
    baton_close(line);
    return -error;
}

void baton_close(struct baton_line *line)
{
    if (line->socket)
        zmq_close(line->socket);
    if (line->context)
        zmq_ctx_term(line->context);
    line->socket = line->context = NULL;
}

void baton_pass(void *opaque, const struct wire_baton *baton)
{
    struct baton_line *line = opaque;
    unsigned char bytes[WIRE_BATON_MAX];
    size_t size = wire_baton_write(baton, bytes);
    if (zmq_send(line->socket, bytes, size, ZMQ_DONTWAIT) < 0)
        seat_wake_role(line->queue, QUEUE_BROKER);
}
