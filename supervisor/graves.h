/*
 * Where processes lie that were killed and do not go. Each is condemned in the queue until it does:
 * its index stays live, and what it ran stays out of use, since it may still write there.
 */
#ifndef GRAVES_H
#define GRAVES_H

#include "supervisor/server.h"

/* Take the process of a seat, which has one, with its index. The seat forgets both afterwards.
 * There is a place left: see graves_count. */
void graves_take(const struct tree_seat *seat);

/* How many lie there. */
unsigned graves_count(const struct server *server);

#endif
