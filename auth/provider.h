/*
 * The keys of the provider: where they are (the issuer tells, unless the configuration does),
 * fetched when auth/refresh.h says so, and the last good ones for as long as they may be used. A
 * set that is broken, or has no key for us, is no news: the keys stay.
 */
#ifndef AUTH_PROVIDER_H
#define AUTH_PROVIDER_H

#include "auth/fetch.h"
#include "auth/jwks.h"
#include "auth/keep.h"
#include "auth/refresh.h"

#include <stdbool.h>

#define PROVIDER_DOCUMENT_MAX (128 << 10)

struct provider {
    const struct config_oauth *config;
    struct fetcher *fetcher;
    struct refresh refresh;
    struct jwks keys;
    struct keep_area *kept; /* for who comes after this process; NULL: nothing is kept */
    uint64_t mark;          /* of the configuration */
    bool inherited;         /* the keys are those of the process before */
    char jwks_url[512];     /* "": not known yet */
    struct fetch *fetch;
    void (*changed)(void *opaque); /* a try is over */
    void *opaque;
};

/* config and fetcher live longer. */
void provider_init(struct provider *provider, const struct config_oauth *config,
                   struct fetcher *fetcher, void (*changed)(void *opaque), void *opaque);

/* Begin with the keys that the process before has left, if they were fetched under that mark and
 * may still be used; and leave those that come to the next one. They are as old as they were, so a
 * try is due all the same. */
void provider_inherit(struct provider *provider, struct keep_area *kept, uint64_t mark,
                      uint64_t now_ns);

/* Begin a try if one is due. Returns when to be called next. */
uint64_t provider_turn(struct provider *provider, uint64_t now_ns);

/* The issuer's own description of itself: where its keys are. 0 with the URL; -EBADMSG with *why, a
 * static sentence: it is not this issuer's, or names no URL that keys may come from. */
int provider_read_document(const char *text, size_t size, const char *issuer, char *url,
                           size_t url_size, const char **why);

void provider_close(struct provider *provider);

#endif
