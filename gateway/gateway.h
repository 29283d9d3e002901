/*
 * What a gateway process is made of, whichever front it has: its seat, the loop, the jobs, and its
 * end.
 */
#ifndef GATEWAY_GATEWAY_H
#define GATEWAY_GATEWAY_H

#include "gateway/admit.h"
#include "gateway/baton.h"
#include "gateway/jobs.h"

#include <systemd/sd-event.h>

/* Where requests come from: HTTP, or ZeroMQ clients. */
struct front {
    void *opaque;
    /* Take nothing new; answer what is in hand. */
    void (*drain)(void *opaque);
    /* The configuration has changed; NULL: nothing to do. */
    void (*reconfigure)(void *opaque);
    /* Jobs wait, and one of them may do so for long. NULL: nothing to do. */
    void (*rescan)(void *opaque);
    /* One step of what has to be done at once. False: there is nothing. NULL: there never is. */
    bool (*go_on)(void *opaque);
    /* At the end of a turn, before the loop looks for events. */
    void (*turn_over)(void *opaque);
    /* The drain's time is over: refuse what is not whole. NULL: nothing to do. */
    void (*give_up)(void *opaque);
    /* While draining: is everything answered? */
    bool (*drained)(void *opaque);
};

struct gateway {
    struct config config;
    struct seat seat;
    sd_event *event;
    struct models models;
    struct admit admit;
    struct jobs jobs;
    struct baton_line batons;
    struct front front;
    sd_event_source *life, *rescan, *delay_timer, *drain_timer;
    bool rescan_armed;
    bool ending;   /* told to end: /health says so to balancers, but requests are still taken for
                      drain_delay_ms */
    bool draining; /* nothing new is taken */
    bool given_up; /* the drain's time is over: only last words go out */
};

/* Everything but the front. seat and config are filled in already; signals are blocked. 0 or -errno
 * after a log line. */
int gateway_open(struct gateway *gateway);
void gateway_close(struct gateway *gateway);

/* Run until drained. 0, or -errno. */
int gateway_run(struct gateway *gateway);

#endif
