/*
 * The questions of gateways, from their packets to their answers. Those that can be answered from
 * the keys at hand are, at once. The others wait, a bounded number of them and each for a bounded
 * time: for keys that are being fetched, or for the provider that was asked. No question is left
 * without an answer while this process lives, and none is answered yes for want of an answer.
 */
#ifndef AUTH_DESK_H
#define AUTH_DESK_H

#include "auth/fetch.h"
#include "auth/jwt.h"
#include "auth/provider.h"

#include "unetserve/config.h"

#define DESK_WAITING_MAX 256
#define DESK_SECRET_MAX  512

struct desk;

struct desk_place {
    struct desk *desk;
    bool taken;
    int channel; /* whose question it is */
    uint64_t deadline_ns;
    struct fetch *fetch; /* the provider is being asked; NULL: it waits for keys, or for its turn */
    struct auth_question question;
};

struct desk {
    const struct config_oauth *config;
    uint64_t mark; /* of config: questions by another one are not answered yet */
    struct fetcher fetcher;
    struct provider provider;
    struct jwt_rules rules;
    char secret[DESK_SECRET_MAX];
    uint64_t warning_due_ns; /* not before that the next line about a provider that fails */
    unsigned waiting;
    struct desk_place places[DESK_WAITING_MAX];
};

/* whole lives longer; libcurl is initialised. 0 or -ENOMEM. */
int desk_open(struct desk *desk, const struct config *whole);

/* Go on with the provider's keys of the process before, which lie in that memory, and leave them
 * there for the next one. */
void desk_inherit(struct desk *desk, int fd);

/* Read oauth_client_secret_file, if there is one: its first line. 0; or a negative errno after a
 * log line, and what was read before stays. */
int desk_read_secret(struct desk *desk);

/* Take what questions there are on a channel (a socket of AF_UNIX and SOCK_SEQPACKET), a bounded
 * number. */
void desk_take(struct desk *desk, int channel);

/* Whatever is due: keys, requests, deadlines. Returns when to be called again at the latest. */
uint64_t desk_turn(struct desk *desk, uint64_t now_ns);

void desk_close(struct desk *desk);

#endif
