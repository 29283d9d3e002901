/*
 * The listening sockets. The supervisor owns them, so that a gateway that was started again finds
 * its own backlog.
 */
#ifndef LISTENERS_H
#define LISTENERS_H

#include "unetserve/config.h"

#include <stdbool.h>

#define LISTENERS_MAX_GATEWAYS 64

struct listeners {
    uint32_t gateways;
    uint32_t count; /* addresses */
    int fds[LISTENERS_MAX_GATEWAYS]
           [CONFIG_MAX_LISTEN]; /* the same fd in several places where a socket is shared */
    bool passed;                /* systemd's: left as they are at the end */
    char unix_paths[CONFIG_MAX_LISTEN]
                   [CONFIG_ADDRESS_MAX]; /* made here, removed at the end; "" for others */
};

/* Open what config->listen names, or take the sockets that systemd passed; config->listen then says
 * what they really are (a picked port). 0, or a negative errno with a sentence; nothing stays open
 * then. */
int listeners_open(struct config *config, struct listeners *out, char *error, size_t error_size);

void listeners_close(struct listeners *listeners);

#endif
