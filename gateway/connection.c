#include "gateway/connection.h"

#include "gateway/gate_recv.h"
#include "gateway/metrics.h"
#include "gateway/negotiate.h"
#include "gateway/request.h"

#include "unetserve/queue.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>

/* Written by the loop's thread only; libzmq's thread reads it for fds of its own, which are never
 * in it. */
static _Atomic(struct connection *) by_fd[CONNECTION_FD_MAX];

struct connection *connection_find(int fd)
{
    if (fd < 0 || fd >= CONNECTION_FD_MAX)
        return NULL;
    return atomic_load_explicit(&by_fd[fd], memory_order_acquire);
}

struct connection *connection_open(struct connections *connections, int fd)
{
    if (fd < 0 || fd >= CONNECTION_FD_MAX)
        return NULL;
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection)
        return NULL;
    connection->fd = fd;
    connection->among = connections;
    connection->idle_since_ns = queue_now_ns();
    head_gate_init(&connection->gate);
    connection->next = connections->first;
    if (connections->first)
        connections->first->previous = connection;
    else
        connections->last = connection;
    connections->first = connection;
    connections->count++;
    metrics_connection_made();
    metrics_connections(connections->count);
    atomic_store_explicit(&by_fd[fd], connection, memory_order_release);
    return connection;
}

void connection_close(struct connections *connections, struct connection *connection)
{
    atomic_store_explicit(&by_fd[connection->fd], NULL, memory_order_release);
    if (connection->previous)
        connection->previous->next = connection->next;
    else
        connections->first = connection->next;
    if (connection->next)
        connection->next->previous = connection->previous;
    else
        connections->last = connection->previous;
    connections->count--;
    if (connection->place)
        peers_leave(&connections->addresses, connection->place);
    crowd_give(&connections->crowd);
    tls_identity_drop(connection->identity);
    sd_event_source_disable_unref(connection->watch);
    metrics_connections(connections->count);
    free(connection);
}

void connection_moved(struct connection *connection)
{
    if (connection->moved_at == connection->among->run)
        return;
    connection->moved_at = connection->among->run;
    connection->among->moved++;
}

void connection_waits(struct connection *connection)
{
    if (connection->moved_at != connection->among->run)
        return;
    connection->moved_at = 0;
    connection->among->moved--;
}

void connection_refuse(struct connection *connection, struct answer *answer, bool kick)
{
    connection->refused = true;
    /* Fails when the peer is gone or reads nothing: then there is nobody to tell. */
    (void)answer_send(answer, connection->fd, connection->secured ? connection->tls : NULL);
    /* libmicrohttpd finds the end of the stream, asks for it, and gets the error of
     * connection_read. */
    if (kick)
        shutdown(connection->fd, SHUT_RD);
}

void connection_refuse_text(struct connection *connection, int status, const char *reason,
                            bool kick)
{
    struct problem problem;
    problem_set(&problem, status, "%s", reason);
    struct answer answer = {.retry_after_s = status == 503};
    negotiate_request_id(connection->request_id, answer.request_id);
    if (connection->cors)
        answer.cors = *connection->cors;
    (void)answer_set_problem(&answer, &problem);
    connection_refuse(connection, &answer, kick);
    answer_free(&answer);
}

bool connection_idle(const struct connection *connection)
{
    return head_gate_idle(&connection->gate) && connection->answered == connection->gate.requests;
}

int connection_secure(struct connection *connection, gnutls_session_t tls,
                      struct tls_identity *identity)
{
    connection->tls = tls;
    connection->identity = tls_identity_keep(identity);
    return tls_identity_use(identity, tls);
}

bool connection_write(struct connection *connection, const char *bytes, size_t size)
{
    ssize_t sent = connection->tls ? gnutls_record_send(connection->tls, bytes, size)
                                   : send(connection->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent == (ssize_t)size;
}

bool connection_ended(const struct connection *connection)
{
    char byte;
    if (connection->tls_ended)
        return true;
    if (connection->secured && gnutls_record_check_pending(connection->tls) > 0)
        return false;
    return recvfrom(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT, NULL, NULL) == 0;
}

/* Nothing can be on its way where a Unix socket is hung up. */
bool connection_end_is_ours(const struct connection *connection)
{
    struct tcp_info info;
    socklen_t size = sizeof info;
    return connection->hung_up && !connection->tls_ended &&
           getsockopt(connection->fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
           info.tcpi_state == TCP_ESTABLISHED;
}

void connection_hang_up(struct connection *connection)
{
    connection->hung_up = true;
    shutdown(connection->fd, SHUT_RD);
}

/* The kernel goes on taking what comes after a shutdown, and reads as ended where nothing is. */
ssize_t connection_receive(struct connection *connection, void *buffer, size_t size, int flags)
{
    ssize_t got = recvfrom(connection->fd, buffer, size, flags, NULL, NULL);
    if (got || connection_idle(connection) || !connection_end_is_ours(connection))
        return got;
    errno = EAGAIN;
    return -1;
}

/* libmicrohttpd's epoll is edge-triggered, and after a short read it waits for an edge, which never
 * comes if the end of the stream came with the last bytes. This makes one. */
void connection_check_over(struct connection *connection)
{
    if (connection_idle(connection) && connection_ended(connection))
        shutdown(connection->fd, SHUT_RD);
}

void connection_request_done(struct connection *connection)
{
    connection->answered++;
    connection->idle_since_ns = queue_now_ns();
    /* A socket that is watched tells of its end by itself (request_suspend.c). */
    if (!connection->watch || connection->tls || connection->hung_up)
        connection_check_over(connection);
    if (connection->pending.status && !connection->refused &&
        connection->answered == connection->gate.requests)
        connection_refuse_text(connection, connection->pending.status, connection->pending.reason,
                               true);
}

/* After a read that left nothing: is this all that will come of a request that is not whole? Nor
 * would libmicrohttpd find that out (see connection_check_over). */
static void check_cut(struct connection *connection, struct head_gate_report *report)
{
    const struct head_gate *gate = &connection->gate;
    /* An empty line, which may stand before a request, is none. */
    connection_check_over(connection);
    if (report->status || head_gate_idle(gate) || !connection_ended(connection) ||
        connection_end_is_ours(connection))
        return;
    /* It has been refused already, and that is what its client is told: one request, one reason. */
    struct answer *refusal = connection->request ? request_refusal(connection->request) : NULL;
    if (refusal) {
        connection_refuse(connection, refusal, false);
        return;
    }
    metrics_refused(COUNTERS_REFUSED_CUT);
    report->status = 400;
    report->reason = head_gate_in_head(gate)
                         ? "truncated: the connection ended within the head of the request"
                         : "truncated: the connection ended before the whole body had come";
}

/* A TLS stream that is cut reads as one that was ended: whether what came is whole is the gate's to
 * say. */
static ssize_t source_read(struct connection *connection, void *buffer, size_t size, int flags)
{
    if (!connection->tls)
        return connection_receive(connection, buffer, size, flags);
    ssize_t got = gate_recv_record(connection->tls, buffer, size);
    if (got == GNUTLS_E_AGAIN || got == GNUTLS_E_INTERRUPTED) {
        errno = EAGAIN;
        return -1;
    }
    if (got < 0 && got != GNUTLS_E_PREMATURE_TERMINATION) {
        errno = ECONNRESET;
        return -1;
    }
    connection->tls_ended = got <= 0;
    return got > 0 ? got : 0;
}

ssize_t connection_read(struct connection *connection, void *buffer, size_t size, int flags)
{
    if (connection->refused) {
        connection_moved(connection);
        errno = ECONNRESET;
        return -1;
    }
    /* libmicrohttpd asks for nothing between a refusal that waits and the answers before it, but
     * for the end of the stream. */
    if (connection->pending.status) {
        errno = EAGAIN;
        return -1;
    }
    ssize_t got = source_read(connection, buffer, size, flags);
    if (got >= 0 || errno != EAGAIN)
        connection_moved(connection);
    if (got < 0 || (flags & MSG_PEEK))
        return got;
    metrics_received((size_t)got);
    struct head_gate_report report;
    head_gate_feed(&connection->gate, buffer, (size_t)got, &report);
    if (report.status)
        metrics_refused(COUNTERS_REFUSED_HEAD);
    if ((size_t)got < size)
        check_cut(connection, &report);
    if (connection->refused) {
        errno = ECONNRESET;
        return -1;
    }
    if (!head_gate_in_head(&connection->gate))
        connection->head_since_ns = 0;
    else if (!connection->head_since_ns || report.whole)
        connection->head_since_ns = queue_now_ns();
    if (!report.status)
        return got;
    /* Requests that were whole before the bad byte are answered first. */
    if (report.whole || connection->answered != connection->gate.requests) {
        connection->pending = report;
        if (report.whole)
            return (ssize_t)report.whole;
        errno = EAGAIN;
        return -1;
    }
    connection_refuse_text(connection, report.status, report.reason, false);
    errno = ECONNRESET;
    return -1;
}
