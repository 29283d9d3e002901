/*
 * The HTTP front: libmicrohttpd driven by the gateway's loop, and the connections that it accepts.
 */
#ifndef GATEWAY_HTTP_H
#define GATEWAY_HTTP_H

#include "gateway/api_key.h"
#include "gateway/connection.h"
#include "gateway/door.h"
#include "gateway/gateway.h"
#include "gateway/linger.h"
#include "gateway/openapi.h"
#include "gateway/spare.h"

/* So many requests wait without being suspended at a time; others are suspended at once. */
#define HTTP_KEPT_MAX 256

struct http {
    struct gateway *gateway;
    /* libmicrohttpd's daemons: connections of one are plain, those of the other TLS. NULL where no
     * address is of its kind. */
    struct MHD_Daemon *daemons[2];
    struct tls_identity *identity; /* for those who come now; NULL: no TLS */
    struct connections connections;
    struct lingerer lingerer;
    struct api_keys keys;
    struct oauth oauth;
    struct openapi openapi;
    struct trusted trusted;
    struct peers uploads; /* requests in BODY, by client */
    struct spare requests;
    struct http_listener {
        struct http *http;
        sd_event_source *source;
        bool tls;
    } listen[SEAT_MAX_LISTEN + SEAT_MAX_MORE];
    uint32_t listen_count;
    sd_event_source *daemon_io[2], *daemon_again, *daemon_timer, *sweep_timer, *accept_timer;
    uint64_t daemon_due_us;         /* when daemon_timer fires; UINT64_MAX: off */
    uint32_t vain_looks;            /* times that it fired in a row, and nothing got on */
    uint32_t vain_runs;             /* of libmicrohttpd in a row that have got on with nothing */
    uint64_t accept_warning_due_ns; /* not before that is the next one logged */
    unsigned idle_s;                /* libmicrohttpd's own time-out of a connection */
    bool accepting, sweeping;
    bool full;    /* it does not accept, since there are as many connections as may be */
    bool resumed; /* a connection was resumed: libmicrohttpd must run */
    /* Requests that wait for their jobs without being suspended (request_wait). */
    struct request *kept[HTTP_KEPT_MAX];
    uint32_t kept_count;
    uint32_t answering; /* answers that libmicrohttpd has, and has not sent yet */
    bool suspend_all;   /* until the next rescan each request is suspended that waits */
};

/* Serve on the listening sockets of the seat. Sets gateway->front. 0, or -errno after a log line;
 * -ENOKEY: the files of keys or certificates are wrong, and will be the next time. */
int http_open(struct http *http, struct gateway *gateway);
void http_close(struct http *http);

#endif
