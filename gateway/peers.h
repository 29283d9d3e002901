/*
 * How many of something each client has: connections, slots that wait for its bodies. One process's
 * own counts, in a hash table that nobody outside can aim at.
 */
#ifndef GATEWAY_PEERS_H
#define GATEWAY_PEERS_H

#include "gateway/client.h"

#include "unetserve/admission.h"

#define PEERS_CHAINS 1024

struct peer {
    struct client client; /* as client_block makes it */
    uint32_t count;
    struct peer *next;
};

struct peers {
    const struct admission *secret;
    struct peer *chains[PEERS_CHAINS];
};

void peers_init(struct peers *peers, const struct admission *secret);

/* How many it has; 0 for one that is not known. */
uint32_t peers_count(const struct peers *peers, const struct client *client);

/* One more. NULL: it has `most` already (0: any number is allowed), or there is no memory. What is
 * returned stays where it is until peers_leave. */
struct peer *peers_enter(struct peers *peers, const struct client *client, uint32_t most);

/* One less; frees it with the last. */
void peers_leave(struct peers *peers, struct peer *peer);

#endif
