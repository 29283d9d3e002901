/*
 * How many of something each client has: connections, slots that wait for its bodies. One process's
 * own counts, in a hash table that nobody outside can aim at; those of connections are told to the
 * other gateways, and theirs count too.
 */
#ifndef GATEWAY_PEERS_H
#define GATEWAY_PEERS_H

#include "gateway/client.h"

#include "unetserve/admission.h"
#include "unetserve/crowd.h"

#define PEERS_CHAINS 1024

struct peer {
    struct client client; /* as client_block makes it */
    uint32_t count;
    uint64_t hash;
    _Atomic uint64_t *told; /* where others read the count; NULL: nowhere */
    struct peer *next;
};

struct peers {
    const struct admission *secret;
    struct crowd *crowd; /* of which it is a part; NULL: counts are this process's alone */
    struct peer *chains[PEERS_CHAINS];
};

void peers_init(struct peers *peers, const struct admission *secret);

/* How many it has here; 0 for one that is not known. */
uint32_t peers_count(const struct peers *peers, const struct client *client);

/* One more. 0 with *out, which stays where it is until peers_leave; -EBUSY: it has `most` already,
 * in all gateways together where there is a crowd (0: any number is allowed); -ENOMEM. */
int peers_enter(struct peers *peers, const struct client *client, uint32_t most, struct peer **out);

/* One less; frees it with the last. */
void peers_leave(struct peers *peers, struct peer *peer);

#endif
