/*
 * The listening sockets. The supervisor owns them, so that a gateway that was started again finds
 * its own backlog.
 */
#ifndef LISTENERS_H
#define LISTENERS_H

#include "supervisor/passed.h"
#include "unetserve/config.h"
#include "unetserve/seat.h"

#include <stdbool.h>

#define LISTENERS_MAX_GATEWAYS 64
#define LISTENERS_MAX_EXTRA    SEAT_MAX_MORE

/* A socket of a gateway that there is no more; another one serves it. */
struct listeners_extra {
    int fd;
    uint32_t gateway;
    uint32_t number; /* of its address */
};

struct listeners {
    uint32_t gateways;
    uint32_t count; /* addresses */
    int fds[LISTENERS_MAX_GATEWAYS]
           [CONFIG_MAX_LISTEN]; /* the same fd in several places where a socket is shared */
    struct listeners_extra extras[LISTENERS_MAX_EXTRA];
    uint32_t extra_count;
    uint32_t taken_back; /* from the fd store */
    bool passed;         /* socket activation's: left as they are at the end */
    char asked[CONFIG_MAX_LISTEN][CONFIG_ADDRESS_MAX]; /* the addresses as configured */
    char unix_paths[CONFIG_MAX_LISTEN]
                   [CONFIG_ADDRESS_MAX]; /* made here, removed at the end; "" for others */
};

/* Take what socket activation passed; or open what config->listen names, taking back what an
 * earlier life stored, and store all for the next one. Stored sockets that are no longer named are
 * closed. config->listen then says what they really are (a picked port). 0, or a negative errno
 * with a sentence; nothing stays open then. */
int listeners_open(struct config *config, struct passed *passed, struct listeners *out, char *error,
                   size_t error_size);

void listeners_close(struct listeners *listeners);

#endif
