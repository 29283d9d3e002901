/*
 * Who may come in: whoever has an API key (gateway/api_key.h), or a token of the identity provider
 * (gateway/oauth.h). Neither configured: everybody.
 *
 * A bearer that is no API key is a token. What it is refused with is what RFC 6750 asks for: 401
 * with invalid_token, 403 with insufficient_scope; and 503 when it cannot be told.
 */
#ifndef GATEWAY_DOOR_H
#define GATEWAY_DOOR_H

#include "gateway/answer.h"
#include "gateway/api_key.h"
#include "gateway/oauth.h"

enum door { DOOR_OPEN, DOOR_CLOSED, DOOR_ASKS };

struct door_keys {
    const struct api_keys *keys;
    struct oauth *oauth;
    const struct config *config;
};

/* A request in front of it. */
struct door_knock {
    struct api_key_given given;
    int model;                      /* which it is for; -1: a page */
    const struct auth_answer *told; /* what was said of its token; NULL: nothing yet */
    const struct client *client;    /* who it is before anybody has said so */
    struct oauth_waiter *waiter;    /* for DOOR_ASKS */
};

/* DOOR_OPEN with *key (NULL: nobody in particular; of a token one that stands for its holder, good
 * until the next call); DOOR_CLOSED with *problem, and answer's WWW-Authenticate; DOOR_ASKS: the
 * waiter will be told. */
enum door door_try(const struct door_keys *door, const struct door_knock *knock,
                   const struct api_key **key, struct problem *problem, struct answer *answer);

#endif
