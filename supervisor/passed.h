/*
 * Sockets that the service manager passed to this process. Two kinds: those of socket activation
 * (systemd opened them), and those that an earlier life of this service left in systemd's fd store,
 * so that whoever connects while there is no supervisor waits in their backlogs.
 *
 * A stored socket is known by its name, "stored/PLACE/ADDRESS" with '_' for the ':' that names may
 * not have: no unit's name has a slash, so that no activated socket is taken for one.
 */
#ifndef PASSED_H
#define PASSED_H

#include <stdbool.h>
#include <stdint.h>

#define PASSED_MAX      520 /* all gateways on all addresses, and some more */
#define PASSED_NAME_MAX 256
#define PASSED_ABOVE    512 /* where they are moved to, out of the way of a child's numbers */

struct passed_socket {
    int fd;      /* -1: taken, or given back */
    bool stored; /* by an earlier life of this service */
    char name[PASSED_NAME_MAX];
};

struct passed {
    uint32_t count;
    struct passed_socket sockets[PASSED_MAX];
};

/* Before anything else is opened: take what was passed, and close every other file descriptor above
 * stderr that a careless parent left open. */
void passed_take(struct passed *out);

/* The next stored socket of that address, which is the caller's from now on; -1: none. */
int passed_take_stored(struct passed *passed, const char *address);

/* The next activated socket; -1: none. */
int passed_take_activated(struct passed *passed);

/* Have a socket kept for the next life. Without a service manager that stores, nothing happens. */
void passed_store(int fd, uint32_t place, const char *address);

/* Close stored sockets that nobody has taken, here and in the store. Returns how many. Call before
 * passed_store: names may be used again. */
unsigned passed_drop_rest(struct passed *passed);

#endif
