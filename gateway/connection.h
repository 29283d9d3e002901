/*
 * A client's connection as the gateway sees it beside libmicrohttpd: its socket, the head gate that
 * reads along, and whether it was refused. One list of all, and a table by fd for recv
 * (gate_recv.c).
 */
#ifndef GATEWAY_CONNECTION_H
#define GATEWAY_CONNECTION_H

#include "gateway/answer.h"
#include "gateway/client.h"
#include "gateway/head_gate.h"
#include "gateway/peers.h"
#include "gateway/tls.h"

#include <stdatomic.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#define CONNECTION_FD_MAX 65536 /* sockets with larger numbers are not accepted */

struct request;

struct connection {
    int fd;
    struct client peer;   /* the other end; a proxy, perhaps */
    struct peer *place;   /* among its address's connections; NULL: not counted */
    gnutls_session_t tls; /* NULL: plain. It is libmicrohttpd's */
    struct tls_identity *identity;
    bool secured;   /* the handshake is over */
    bool tls_ended; /* the client has said that nothing more will come, or the stream is cut */
    struct head_gate gate;
    uint64_t head_since_ns; /* when the head that is under way began; 0: none is */
    struct head_gate_report
        pending;             /* a refusal that waits until the requests before it are answered */
    uint64_t idle_since_ns;  /* when it was made, or its last request was done with */
    uint32_t answered;       /* requests that libmicrohttpd has done with */
    bool refused;            /* our last answer is out; libmicrohttpd gets no more bytes */
    bool hung_up;            /* we take no other request than one that was on its way */
    struct request *request; /* the one under way, or NULL */
    sd_event_source *watch;  /* of its socket, while a request is suspended; NULL: none yet */
    const char *request_id;  /* its id, or NULL */
    const struct cors_grant *cors; /* its answer's, or NULL */
    struct connections *among;
    uint64_t moved_at; /* libmicrohttpd's last run that has got on with it: among->run */
    struct connection *previous, *next;
};

struct connections {
    struct connection *first, *last; /* the newest, the oldest */
    uint32_t count;
    struct crowd crowd;
    uint64_t run;   /* libmicrohttpd's last */
    uint32_t moved; /* how many it has got on with in that, and may get on with in the next */
    struct peers addresses;
};

/* Take over a socket, and its place in the crowd. NULL: no memory, or a number beyond
 * CONNECTION_FD_MAX (fd is still the caller's). */
struct connection *connection_open(struct connections *connections, int fd);

/* Before libmicrohttpd closes the socket: out of the list and the table, freed. */
void connection_close(struct connections *connections, struct connection *connection);

/* libmicrohttpd has got on with it in this run, and may do so in the next; but not where all that
 * there is to do is to wait. */
void connection_moved(struct connection *connection);
void connection_waits(struct connection *connection);

/* The connection of a socket, or NULL. Callable from any thread. */
struct connection *connection_find(int fd);

/* Write `answer` as the last thing on this connection, which must have no answer under way; from
 * here on libmicrohttpd reads an error. With kick it is woken to notice (needed unless it is
 * calling us right now). */
void connection_refuse(struct connection *connection, struct answer *answer, bool kick);

/* The same with {"detail": reason}, and the id of the request under way if there is one. */
void connection_refuse_text(struct connection *connection, int status, const char *reason,
                            bool kick);

/* Every request that came in is answered, and none has begun. */
bool connection_idle(const struct connection *connection);

/* Between two requests, and no other will come: libmicrohttpd, which would not find out by itself,
 * is told so. */
void connection_check_over(struct connection *connection);

/* Nothing is left to read and nothing will come: the client has closed or half-closed, or we have
 * hung up. */
bool connection_ended(const struct connection *connection);

/* Take no other request; to be called between two. libmicrohttpd finds the end of the stream and
 * closes. A request that was on its way meanwhile is served, all of it. */
void connection_hang_up(struct connection *connection);

/* After a hang-up a socket says that its stream has ended, whatever the client did. True: we have
 * hung up, and the client has neither closed nor half-closed. */
bool connection_end_is_ours(const struct connection *connection);

/* recvfrom() without an address, but that our hanging up is no end within a request. */
ssize_t connection_receive(struct connection *connection, void *buffer, size_t size, int flags);

/* What libmicrohttpd's recv does on this socket: read, let the gate check. As recv(2). A stream
 * that ends within a request is refused with 400: a client that only half-closed reads why.
 * Over TLS this takes the place of gnutls_record_recv, with errno instead of its errors. */
ssize_t connection_read(struct connection *connection, void *buffer, size_t size, int flags);

/* The session of a connection that has just begun: it shows that identity. 0, or -EIO. */
int connection_secure(struct connection *connection, gnutls_session_t tls,
                      struct tls_identity *identity);

/* Write a few bytes between two answers, at once. False: not all of them went out, and the
 * connection is of no more use. */
bool connection_write(struct connection *connection, const char *bytes, size_t size);

/* libmicrohttpd is done with a request: a refusal that waited for that goes out. */
void connection_request_done(struct connection *connection);

#endif
