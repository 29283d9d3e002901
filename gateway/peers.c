#include "gateway/peers.h"

#include <stdlib.h>
#include <string.h>

void peers_init(struct peers *peers, const struct admission *secret)
{
    *peers = (struct peers){.secret = secret};
}

static uint64_t chain_of(const struct peers *peers, const struct client *block)
{
    return admission_hash(peers->secret, block, sizeof *block) % PEERS_CHAINS;
}

static struct peer *find(const struct peers *peers, const struct client *block)
{
    struct peer *peer = peers->chains[chain_of(peers, block)];
    while (peer && memcmp(&peer->client, block, sizeof *block) != 0)
        peer = peer->next;
    return peer;
}

uint32_t peers_count(const struct peers *peers, const struct client *client)
{
    struct client block = client_block(client);
    const struct peer *peer = find(peers, &block);
    return peer ? peer->count : 0;
}

struct peer *peers_enter(struct peers *peers, const struct client *client, uint32_t most)
{
    struct client block = client_block(client);
    struct peer *peer = find(peers, &block);
    if (!peer) {
        peer = malloc(sizeof *peer);
        if (!peer)
            return NULL;
        struct peer **chain = &peers->chains[chain_of(peers, &block)];
        *peer = (struct peer){.client = block, .next = *chain};
        *chain = peer;
    } else if (most && peer->count >= most) {
        return NULL;
    }
    peer->count++;
    return peer;
}

void peers_leave(struct peers *peers, struct peer *peer)
{
    if (--peer->count > 0)
        return;
    struct peer **link = &peers->chains[chain_of(peers, &peer->client)];
    while (*link != peer)
        link = &(*link)->next;
    *link = peer->next;
    free(peer);
}
