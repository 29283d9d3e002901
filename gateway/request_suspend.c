/*
 * A request whose connection is suspended, and its client's socket meanwhile.
 *
 * A suspended connection is not read, so libmicrohttpd does not notice a client that leaves. Its
 * socket is watched here. An error or a hang-up (reset; both directions closed; a Unix socket's
 * peer gone) means that nobody waits. The end of the client's stream alone does not:
 * shutdown(SHUT_WR) after a request is legal, and over TCP it looks the same as close() until
 * something is sent. So something is sent: a second "100 Continue", which every HTTP/1.1 client
 * must put up with before its answer. A client that has closed answers with a reset, which is the
 * hang-up above; one that only half-closed goes on waiting. It is sent a little later than the end
 * of the stream came, so that answers which come soon go out without it. Where we have hung up
 * ourselves (a drain, and a request that was on its way) there is nothing to find out. HTTP/1.0
 * knows no interim answers; there a half-closed client is taken to be waiting.
 *
 * In the middle of an answer nothing harmless can be sent: there, who ends his side has left,
 * unless it was ended before the answer began.
 *
 * To suspend a connection and to resume it costs libmicrohttpd two system calls and a round of its
 * lists, more than a job may take that does next to nothing. So a request that begins to wait is
 * only kept at hand: libmicrohttpd keeps it among those that have something to do, and asks for its
 * answer at each run. That makes its runs longer and its time-out 0 (http.c knows), so that there
 * are not many of them, and the next rescan suspends those that still wait.
 */
#include "gateway/request_parts.h"

#include <sys/epoll.h>

/* How long after a client's half-close we ask whether it is still there (on_probe). */
#define PROBE_AFTER_US 150000

static void connection_unwatch(struct connection *connection)
{
    connection->watch = sd_event_source_disable_unref(connection->watch);
}

static void request_keep(struct request *request)
{
    struct http *http = request->http;
    request->kept = true;
    request->kept_at = http->kept_count;
    http->kept[http->kept_count++] = request;
}

static void request_let_go(struct request *request)
{
    struct http *http = request->http;
    if (!request->kept)
        return;
    struct request *last = http->kept[--http->kept_count];
    http->kept[request->kept_at] = last;
    last->kept_at = request->kept_at;
    request->kept = false;
}

/* The watch stays for the connection's next request; not if it has told of an end already, which it
 * does once. */
void request_unwatch(struct request *request)
{
    request_let_go(request);
    request->probe = sd_event_source_disable_unref(request->probe);
    if (request->half_closed)
        connection_unwatch(request->connection);
}

void request_resume(struct request *request, enum request_state state)
{
    request_unwatch(request);
    oauth_forget(&request->http->oauth, &request->waiter);
    request->state = state;
    request->http->resumed = true;
    if (request->suspended)
        MHD_resume_connection(request->mhd);
    request->suspended = false;
}

void request_gone(struct request *request)
{
    if (request->job)
        job_drop(request->job);
    request->job = NULL;
    request_resume(request, REQUEST_GONE);
}

static int on_probe(sd_event_source *source, uint64_t now_us, void *opaque)
{
    (void)source;
    (void)now_us;
    static const char interim[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct request *request = opaque;
    /* Half a line would spoil the answer; a socket that has no room for 25 bytes is not being read.
     */
    if (!connection_write(request->connection, interim, sizeof interim - 1))
        request_gone(request);
    return 0;
}

static int on_watch(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)source;
    (void)fd;
    struct connection *connection = opaque;
    struct request *request = connection->request;
    bool ended = events & EPOLLRDHUP && !connection_end_is_ours(connection);
    /* libmicrohttpd reads this end itself or is told of it, or the next request finds it anew. */
    if (!request || !request->suspended) {
        connection_unwatch(connection);
        connection_check_over(connection);
        return 0;
    }
    if ((events & (EPOLLERR | EPOLLHUP)) ||
        (ended && request->state == REQUEST_STREAM && !request->half_closed)) {
        request_gone(request);
        return 0;
    }
    request->half_closed = request->half_closed || ended;
    if (ended && request->state == REQUEST_WAITING && request->speaks_1 && !request->probe)
        sd_event_add_time_relative(request->http->gateway->event, &request->probe, CLOCK_MONOTONIC,
                                   PROBE_AFTER_US, 10000, on_probe, request);
    return 0;
}

/* Its client may leave unnoticed if that fails; the deadline ends it. */
static void request_watch(struct request *request)
{
    struct connection *connection = request->connection;
    if (!connection->watch &&
        sd_event_add_io(request->http->gateway->event, &connection->watch, connection->fd,
                        EPOLLRDHUP | EPOLLET, on_watch, connection) < 0)
        connection->watch = NULL;
}

void request_suspend(struct request *request)
{
    request->suspended = true;
    MHD_suspend_connection(request->mhd);
    request_watch(request);
}

void request_wait(struct request *request)
{
    struct http *http = request->http;
    if (request->connection->tls || http->suspend_all || http->kept_count == HTTP_KEPT_MAX) {
        request_suspend(request);
        return;
    }
    request_keep(request);
    request_watch(request);
    connection_waits(request->connection);
}

void request_suspend_kept(struct http *http)
{
    while (http->kept_count) {
        struct request *request = http->kept[http->kept_count - 1];
        request_let_go(request);
        request_suspend(request);
    }
}
