#include "gateway/linger.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* Bytes thrown away in one turn of the loop: others want a turn too. */
#define TURN_BYTES (1u << 20)

void linger_init(struct lingerer *linger, sd_event *event)
{
    memset(linger, 0, sizeof *linger);
    linger->event = event;
}

static void socket_end(struct linger_socket *socket)
{
    sd_event_source_disable_unref(socket->readable);
    sd_event_source_disable_unref(socket->timer);
    close(socket->fd);
    socket->readable = socket->timer = NULL;
    socket->linger->count--;
}

static int on_readable(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)source;
    (void)events;
    struct linger_socket *socket = opaque;
    static char waste[65536]; /* never read */
    for (size_t turn = 0; turn < TURN_BYTES;) {
        ssize_t got = recvfrom(fd, waste, sizeof waste, MSG_DONTWAIT, NULL, NULL);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        if (got <= 0) {
            socket_end(socket);
            return 0;
        }
        turn += (size_t)got;
        socket->bytes += (uint64_t)got;
        if (socket->bytes > LINGER_MAX_BYTES) {
            socket_end(socket);
            return 0;
        }
    }
    return 0;
}

static int on_time_over(sd_event_source *source, uint64_t now_us, void *opaque)
{
    (void)source;
    (void)now_us;
    socket_end(opaque);
    return 0;
}

static struct linger_socket *place_find(struct lingerer *linger)
{
    for (uint32_t i = 0; i < LINGER_MAX_SOCKETS; i++)
        if (!linger->sockets[i].readable)
            return &linger->sockets[i];
    return NULL;
}

void linger_take(struct lingerer *linger, int fd)
{
    struct linger_socket *socket = place_find(linger);
    shutdown(fd, SHUT_WR);
    if (!socket) {
        close(fd);
        return;
    }
    *socket = (struct linger_socket){.linger = linger, .fd = fd};
    if (sd_event_add_io(linger->event, &socket->readable, fd, EPOLLIN, on_readable, socket) < 0 ||
        sd_event_add_time_relative(linger->event, &socket->timer, CLOCK_MONOTONIC,
                                   LINGER_MAX_MS * 1000ull, 100000, on_time_over, socket) < 0) {
        sd_event_source_disable_unref(socket->readable);
        socket->readable = NULL;
        close(fd);
        return;
    }
    linger->count++;
}

void linger_close(struct lingerer *linger)
{
    for (uint32_t i = 0; i < LINGER_MAX_SOCKETS; i++)
        if (linger->sockets[i].readable)
            socket_end(&linger->sockets[i]);
}
