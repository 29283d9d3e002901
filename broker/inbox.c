#include "broker/inbox.h"
#include "lib/ipc_bind.h"
#include "unetserve/wire.h"

#include <errno.h>
#include <stddef.h>
#include <zmq.h>

#define INBOX_HIGH_WATER                                                                           \
    16384 /* batons; beyond it gateways' sends fail and the rescan finds their slots */
#define INBOX_TURN 4096 /* messages taken before the slot table is looked at */

static int set_option(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) ? -errno : 0;
}

static int set_options(void *socket)
{
    int64_t largest = WIRE_BATON_MAX;
    int error = set_option(socket, ZMQ_LINGER, 0);
    if (!error)
        error = set_option(socket, ZMQ_RCVHWM, INBOX_HIGH_WATER);
    if (!error && zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &largest, sizeof largest))
        error = -errno;
    return error;
}

int inbox_open(const char *run_dir, struct inbox *out)
{
    struct inbox inbox = {.context = zmq_ctx_new(), .fd = -1};
    size_t fd_size = sizeof inbox.fd;
    int error = -ENOMEM;
    if (!inbox.context)
        return error;
    inbox.socket = zmq_socket(inbox.context, ZMQ_PULL);
    if (!inbox.socket)
        goto fail;
    error = set_options(inbox.socket);
    if (!error)
        error = ipc_bind(inbox.socket, run_dir, WIRE_BROKER_ADDRESS);
    if (!error && zmq_getsockopt(inbox.socket, ZMQ_FD, &inbox.fd, &fd_size))
        error = -errno;
    if (error)
        goto fail;
    *out = inbox;
    return 0;
fail:
    inbox_close(&inbox);
    return error;
}

void inbox_close(struct inbox *inbox)
{
    if (inbox->socket)
        zmq_close(inbox->socket);
    zmq_ctx_term(inbox->context);
    *inbox = (struct inbox){.fd = -1};
}

/* Does the socket hold another message? Asking also rearms its fd. */
static bool has_more(const struct inbox *inbox)
{
    int events = 0;
    size_t size = sizeof events;
    return zmq_getsockopt(inbox->socket, ZMQ_EVENTS, &events, &size) == 0 && (events & ZMQ_POLLIN);
}

bool inbox_drain(struct inbox *inbox, bool *arrived)
{
    unsigned char bytes[WIRE_BATON_MAX];
    *arrived = false;
    for (unsigned i = 0; i < INBOX_TURN; i++) {
        int size = zmq_recv(inbox->socket, bytes, sizeof bytes, ZMQ_DONTWAIT);
        if (size < 0 && errno != EINTR)
            break;
        if (size < 0)
            continue;
        struct wire_baton baton;
        if (wire_baton_read(bytes, (size_t)size, &baton)) {
            inbox->not_batons++;
        } else {
            inbox->batons++;
            *arrived = true;
        }
    }
    return !has_more(inbox);
}
