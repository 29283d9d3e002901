/*
 * Where gateways' batons arrive: a PULL socket at ipc://RUN_DIR/broker.ipc. A baton is only a
 * reason to look at the slot table, so what it says is counted and dropped.
 *
 * The socket's fd fires once for new messages and not again for those that were left: after it
 * fired, and before every wait, the inbox must be drained until inbox_drain says that it is empty.
 */
#ifndef INBOX_H
#define INBOX_H

#include <stdbool.h>
#include <stdint.h>

struct inbox {
    void *context;
    void *socket;
    int fd; /* becomes readable when something may have arrived */
    uint64_t batons;
    uint64_t not_batons;
};

/* Bind. A socket file that a dead broker left is replaced; the new one is for this user only. 0,
 * -ENAMETOOLONG, or a negative errno from the bind. */
int inbox_open(const char *run_dir, struct inbox *out);
void inbox_close(struct inbox *inbox);

/* Take what is there, at most a bounded number of messages. *arrived: at least one baton came.
 * Returns true when the inbox is empty, false when there is more: come again without waiting. */
bool inbox_drain(struct inbox *inbox, bool *arrived);

#endif
