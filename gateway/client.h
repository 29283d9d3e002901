/*
 * Who a client is, as far as limits are concerned: what it cannot choose freely. Pure but for the
 * first two functions.
 *
 * - with API keys: the name of the key that it was let in by; of a plain key, its digest
 * - over TCP: its address; behind a trusted proxy the address that the proxy names
 * - on this machine, over a Unix socket or ZeroMQ's ipc: the user whose process it is, which the
 *   kernel tells. Not the process and not ZeroMQ's routing id: new ones cost nothing.
 */
#ifndef GATEWAY_CLIENT_H
#define GATEWAY_CLIENT_H

#include "lib/api_key_line.h"
#include "unetserve/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum client_kind { CLIENT_UNKNOWN, CLIENT_IPV4, CLIENT_IPV6, CLIENT_USER, CLIENT_KEY };

/* Bytes only, all of them set, so that two of them are the same client exactly when memcmp says so.
 */
struct client {
    unsigned char kind; /* enum client_kind */
    unsigned char
        bytes[16]; /* an address in network order, or a number in the first four; zero to the end */
};

/* Whose word about others is taken. */
struct trusted {
    bool local; /* "unix:" is among them: whoever comes over a Unix socket */
    uint32_t count;
    struct {
        struct client base;
        uint32_t bits;
    } networks[CONFIG_MAX_PROXIES];
};

/* The other end of a connected socket; address is what accept(2) said. */
struct client client_of_socket(int fd, const struct sockaddr *address);

/* trusted_proxies, which config_key_read has checked. */
void trusted_read(const struct config *config, struct trusted *out);

bool trusted_has(const struct trusted *trusted, const struct client *client);

/* Whose key it is: keys of one name are one client, while one of them takes the other's place. */
struct client client_of_key(const struct api_key *key);

/* What libzmq says of a message's sender ("Peer-Address": over ipc ":UID:GID:PID", over tcp an
 * address); NULL: nothing. */
struct client client_of_peer_address(const char *text);

/*
 * The client behind `peer`, from the lines of X-Forwarded-For in the order in which they came.
 * Each proxy adds, on the right, whom it was asked by, so the list is read from the right for as
 * long as whoever has written an entry is trusted: the result is the first that is not, or the
 * last one read. What is left of it may be invented and is not looked at. An entry that is no
 * address ("unknown", a name, rubbish) ends the search at the proxy that wrote it. Entries may
 * carry ports: 192.0.2.1:1234, [2001:db8::1]:1234. Empty ones are skipped, as in every HTTP list.
 */
struct client client_forwarded(const struct trusted *trusted, const struct client *peer,
                               const char *const *lines, size_t count);

/* What counts as one client of those that share an address block: of IPv6 the first 64 bits, which
 * is what one customer gets at least. */
struct client client_block(const struct client *client);

#endif
