/*
 * SIGHUP: models and configuration are taken over while requests are served.
 *
 *     asking    a child describes each model; what cannot be served ends the reload here
 *     trying    for one model after the other: a spare worker loads it. If it cannot, the reload
 *               ends, and the old workers never noticed
 *     outgoing  where the model takes or gives something else than before, the spare has published
 *               its interface as the next generation; the old workers stay until no request of the
 *               old one is left
 *     swapping  the model's workers restart one after the other
 *     closing   the spare ends
 */
#ifndef RELOAD_H
#define RELOAD_H

#include "supervisor/server.h"

/* Begin; none is under way. What comes of it is logged and told to systemd. */
void reload_begin(struct server *server);

/* A seat has changed while a reload is under way. */
void reload_advance(struct server *server);

/* Give up whatever is under way: the server ends. */
void reload_forget(struct server *server);

#endif
