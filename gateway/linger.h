/*
 * The lingering closer. A socket that is closed while its peer still sends is reset, and a reset
 * wipes out the answer that the peer has not read yet. So a connection that was answered before its
 * request was read whole ends here: writing is shut down, and what still comes is thrown away until
 * the peer closes, within a bound of bytes, of time and of sockets.
 */
#ifndef GATEWAY_LINGER_H
#define GATEWAY_LINGER_H

#include <stdint.h>
#include <systemd/sd-event.h>

#define LINGER_MAX_SOCKETS 256
#define LINGER_MAX_BYTES   (64u << 20)
#define LINGER_MAX_MS      10000

struct linger_socket {
    sd_event_source *readable; /* NULL: this place is free */
    sd_event_source *timer;
    struct lingerer *linger;
    int fd;
    uint64_t bytes;
};

struct lingerer {
    sd_event *event;
    uint32_t count;
    struct linger_socket sockets[LINGER_MAX_SOCKETS];
};

void linger_init(struct lingerer *linger, sd_event *event);

/* Take over fd, whose last byte has been handed to the kernel. With no place left it is closed at
 * once. */
void linger_take(struct lingerer *linger, int fd);

void linger_close(struct lingerer *linger);

#endif
