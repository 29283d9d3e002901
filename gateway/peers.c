#include "gateway/peers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void peers_init(struct peers *peers, const struct admission *secret)
{
    *peers = (struct peers){.secret = secret};
}

static uint64_t hash_of(const struct peers *peers, const struct client *block)
{
    return admission_hash(peers->secret, block, sizeof *block);
}

static struct peer *find(const struct peers *peers, const struct client *block, uint64_t hash)
{
    struct peer *peer = peers->chains[hash % PEERS_CHAINS];
    while (peer && memcmp(&peer->client, block, sizeof *block) != 0)
        peer = peer->next;
    return peer;
}

uint32_t peers_count(const struct peers *peers, const struct client *client)
{
    struct client block = client_block(client);
    const struct peer *peer = find(peers, &block, hash_of(peers, &block));
    return peer ? peer->count : 0;
}

static void count_set(struct peer *peer, uint32_t count)
{
    peer->count = count;
    crowd_address_set(peer->told, peer->hash, count);
}

static struct peer *peer_make(struct peers *peers, const struct client *block, uint64_t hash)
{
    struct peer *peer = malloc(sizeof *peer);
    if (!peer)
        return NULL;
    struct peer **chain = &peers->chains[hash % PEERS_CHAINS];
    *peer = (struct peer){.client = *block, .hash = hash, .next = *chain};
    if (peers->crowd)
        peer->told = crowd_address_place(peers->crowd, hash);
    *chain = peer;
    return peer;
}

int peers_enter(struct peers *peers, const struct client *client, uint32_t most, struct peer **out)
{
    struct client block = client_block(client);
    uint64_t hash = hash_of(peers, &block);
    struct peer *peer = find(peers, &block, hash);
    if (!peer)
        peer = peer_make(peers, &block, hash);
    if (!peer)
        return -ENOMEM;
    /* First told, then looked: of two gateways at least one sees the other. */
    count_set(peer, peer->count + 1);
    uint32_t elsewhere = peers->crowd && most ? crowd_address_elsewhere(peers->crowd, hash) : 0;
    if (most && (peer->count > most || elsewhere > most - peer->count)) {
        peers_leave(peers, peer);
        return -EBUSY;
    }
    *out = peer;
    return 0;
}

void peers_leave(struct peers *peers, struct peer *peer)
{
    count_set(peer, peer->count - 1);
    if (peer->count > 0)
        return;
    struct peer **link = &peers->chains[peer->hash % PEERS_CHAINS];
    while (*link != peer)
        link = &(*link)->next;
    *link = peer->next;
    free(peer);
}
