/*
 * libmicrohttpd in external epoll mode: its epoll descriptor is one source of the gateway's loop,
 * so that a request is read, suspended, answered and resumed by one thread and nobody has to be
 * woken across threads. Sockets are accepted here and not by libmicrohttpd, so that accepting is
 * bounded by the turn, by the connections there are, and ends at once for a drain.
 */
#include "gateway/http.h"

#include "gateway/gate_recv.h"
#include "gateway/metrics.h"
#include "gateway/negotiate.h"
#include "gateway/request.h"

#include "lib/config_address.h"
#include "unetserve/log.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/abstract.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPTS_A_TURN    64
#define ACCEPT_AGAIN_US   100000
#define SWEEP_US          1000000
#define VAIN_RUNS         4
#define VAIN_LOOKS        16
#define VAIN_MS           20
#define ACCEPT_WARNING_NS UINT64_C(10000000000)
/* How long a connection may be idle, or in a head, when there is no place for another. */
#define PATIENCE_WHEN_FULL_NS UINT64_C(1000000000)
/* How long after it was made a connection may send nothing yet, during a drain. */
#define NEWCOMER_NS UINT64_C(1000000000)
/* libmicrohttpd reads a body in pieces of half of it, and clears all of it after each request: of
 * 128 KiB that took a third of a tiny request's time. More than 32 KiB it would map for each
 * connection. The largest head that the gate lets through, and its answer's, fit. */
#define CONNECTION_MEMORY ((size_t)32 << 10)

/* ---- libmicrohttpd's callbacks ---- */

__attribute__((format(printf, 2, 0))) static void on_daemon_log(void *opaque, const char *format,
                                                                va_list arguments)
{
    (void)opaque;
    char text[512];
    vsnprintf(text, sizeof text, format, arguments);
    text[strcspn(text, "\n")] = '\0';
    log_event(LOG_LEVEL_DEBUG, "libmicrohttpd", log_text("says", text));
}

/* "%00" stays as it is: a path that ended there would be taken for a shorter one. */
static size_t on_unescape(void *opaque, struct MHD_Connection *mhd, char *text)
{
    (void)opaque;
    (void)mhd;
    return strstr(text, "%00") ? strlen(text) : MHD_http_unescape(text);
}

/* Without an identity of ours the session has the daemon's, which shows nothing: it fails. */
static void secure(struct http *http, struct connection *connection, struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(
        mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    if (info && info->tls_session &&
        connection_secure(connection, info->tls_session, http->identity))
        shutdown(connection->fd, SHUT_RDWR);
}

/* MHD_OPTION_HTTPS_CERT_CALLBACK: the daemon has no certificate itself, each session gets one. */
static int no_certificate(gnutls_session_t session, const gnutls_datum_t *authorities, int count,
                          const gnutls_pk_algorithm_t *algorithms, int algorithm_count,
                          gnutls_pcert_st **chain, unsigned *length, gnutls_privkey_t *key)
{
    (void)session, (void)authorities, (void)count, (void)algorithms, (void)algorithm_count;
    (void)chain, (void)length, (void)key;
    return -1;
}

static void on_connection(void *opaque, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http *http = opaque;
    http->connections.moved++;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(
            mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
        *context = info ? connection_find(info->connect_fd) : NULL;
        if (*context)
            secure(http, *context, mhd);
        return;
    }
    struct connection *connection = *context;
    if (!connection)
        return;
    *context = NULL;
    /* What we refused may still be coming in: keep the socket from being reset. */
    int kept = connection->refused ? fcntl(connection->fd, F_DUPFD_CLOEXEC, 0) : -1;
    connection_close(&http->connections, connection);
    if (kept >= 0)
        linger_take(&http->lingerer, kept);
}

static void on_request_done(void *opaque, struct MHD_Connection *mhd, void **request,
                            enum MHD_RequestTerminationCode code)
{
    (void)opaque;
    (void)mhd;
    (void)code;
    if (*request)
        request_end(*request);
    *request = NULL;
}

/* ---- driving libmicrohttpd ---- */

static void daemons_run(struct http *http)
{
    http->connections.run++;
    http->connections.moved = 0;
    for (int i = 0; i < 2; i++)
        if (http->daemons[i])
            MHD_run(http->daemons[i]);
    http->vain_runs = http->connections.moved ? 0 : http->vain_runs + 1;
}

/* A run that does nothing for an answer that it has is followed by one that sends it; several in a
 * row are a slow reader, or a handshake. */
static bool gets_on(const struct http *http)
{
    return http->vain_runs < VAIN_RUNS;
}

/* While a request is kept at hand, libmicrohttpd says that it wants to run. It does not if its last
 * run got on with nothing but what is kept since, and no answer is on its way. */
static bool only_waits(const struct http *http)
{
    return http->kept_count && !http->connections.moved && !http->answering;
}

/* The sooner of the times at which they want to run. False: none of them does. */
static bool daemons_timeout(struct http *http, uint64_t *timeout_ms)
{
    bool timed = false;
    for (int i = 0; i < 2; i++) {
        MHD_UNSIGNED_LONG_LONG one_ms = 0;
        if (!http->daemons[i] || MHD_get_timeout(http->daemons[i], &one_ms) != MHD_YES)
            continue;
        if (one_ms == 0 && i == 0 && only_waits(http))
            continue;
        if (!timed || one_ms < *timeout_ms)
            *timeout_ms = one_ms;
        timed = true;
    }
    return timed;
}

static int on_daemon_io(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)source;
    (void)fd;
    (void)events;
    struct http *http = opaque;
    http->vain_looks = 0;
    daemons_run(http);
    return 0;
}

static int on_daemon_again(sd_event_source *source, void *opaque)
{
    (void)source;
    daemons_run(opaque);
    return 0;
}

static int on_daemon_timer(sd_event_source *source, uint64_t now_us, void *opaque)
{
    (void)source;
    (void)now_us;
    struct http *http = opaque;
    http->daemon_due_us = UINT64_MAX;
    daemons_run(http);
    http->vain_looks = http->connections.moved ? 0 : http->vain_looks + 1;
    return 0;
}

/* The timer may fire too early (then it is set anew), never too late: so it need not be moved at
 * each request. */
static void arm_daemon_timer(struct http *http, uint64_t timeout_ms)
{
    uint64_t due_us = queue_now_ns() / 1000 + timeout_ms * 1000;
    if (due_us >= http->daemon_due_us)
        return;
    http->daemon_due_us = due_us;
    sd_event_source_set_time(http->daemon_timer, due_us);
    sd_event_source_set_enabled(http->daemon_timer, SD_EVENT_ONESHOT);
}

static void arm_sweep(struct http *http)
{
    if (http->sweeping || !http->connections.count)
        return;
    http->sweeping = true;
    sd_event_source_set_time_relative(http->sweep_timer, SWEEP_US);
    sd_event_source_set_enabled(http->sweep_timer, SD_EVENT_ONESHOT);
}

static void set_accepting(struct http *http, bool accepting)
{
    if (http->accepting == accepting)
        return;
    http->accepting = accepting;
    for (uint32_t i = 0; i < http->listen_count; i++)
        sd_event_source_set_enabled(http->listen[i].source, accepting ? SD_EVENT_ON : SD_EVENT_OFF);
}

static void accept_later(struct http *http)
{
    set_accepting(http, false);
    sd_event_source_set_time_relative(http->accept_timer, ACCEPT_AGAIN_US);
    sd_event_source_set_enabled(http->accept_timer, SD_EVENT_ONESHOT);
}

/* Whose places others have asks again and again: nobody tells when there is one. */
static void set_full(struct http *http, bool full)
{
    if (full)
        accept_later(http);
    if (http->full == full)
        return;
    http->full = full;
    crowd_wait(&http->connections.crowd, full);
}

static bool has_room(const struct http *http)
{
    return crowd_total(&http->connections.crowd) < http->gateway->config.max_connections;
}

/* After a pause, or when there is a place. */
static void accept_again(struct http *http)
{
    bool paused = sd_event_source_get_enabled(http->accept_timer, NULL) != 0;
    if (http->accepting || http->gateway->draining)
        return;
    if (http->full && has_room(http)) {
        set_full(http, false);
        set_accepting(http, true);
    } else if (!paused && http->full) {
        accept_later(http);
    } else if (!paused) {
        set_accepting(http, true);
    }
}

/* Of those that were resumed libmicrohttpd's timeout does not speak. At once is after what else has
 * come, and no business of a timer, which may fire a millisecond later: a body whose rest is all
 * there has no other event. But libmicrohttpd also says "at once" for as long as a handshake is not
 * whole. Where runs get on with nothing, a timer is soon enough, and after some of them it waits:
 * whatever comes from outside is an event. */
static void run_later(struct http *http, bool timed, uint64_t timeout_ms)
{
    if (http->resumed || (timed && timeout_ms == 0 && gets_on(http))) {
        sd_event_source_set_enabled(http->daemon_again, SD_EVENT_ONESHOT);
    } else if (timed) {
        bool in_vain = http->vain_looks >= VAIN_LOOKS && !http->answering;
        arm_daemon_timer(http, timeout_ms == 0 && in_vain ? VAIN_MS : timeout_ms);
    }
}

/* front.go_on: one run, where libmicrohttpd wants one at once or requests were resumed, of which
 * its timeout does not speak. */
static bool go_on(void *opaque)
{
    struct http *http = opaque;
    uint64_t timeout_ms = 0;
    bool timed = daemons_timeout(http, &timeout_ms);
    if (!http->resumed && !(timed && timeout_ms == 0))
        return false;
    http->resumed = false;
    daemons_run(http);
    return true;
}

static void turn_over(void *opaque)
{
    struct http *http = opaque;
    uint64_t timeout_ms = 0;
    bool timed = daemons_timeout(http, &timeout_ms);
    /* A large answer, or a slow reader: no telling what it is that libmicrohttpd wants. */
    if (http->kept_count && timed && timeout_ms == 0 && !http->resumed && !gets_on(http)) {
        request_suspend_kept(http);
        http->suspend_all = true;
        timed = daemons_timeout(http, &timeout_ms);
    }
    run_later(http, timed, timeout_ms);
    arm_sweep(http);
    accept_again(http);
}

/* ---- accepting ---- */

/* One address has all the connections that it may have (many), or there is no memory for one more:
 * it is told, as far as its socket takes that at once. No more than half of the lingering closer's
 * places are spent on such. Over TLS it is only closed: to tell would take a handshake. */
static void refuse_socket(struct http *http, int fd, bool many, bool tls)
{
    struct answer answer = {.retry_after_s = 1};
    struct problem problem;
    if (many) {
        problem_set(&problem, 429, "Too many connections from one address: %u are allowed",
                    http->gateway->config.max_connections_per_address);
        metrics_refused(COUNTERS_REFUSED_CONNECTIONS);
    } else {
        problem_set(&problem, 503, "Out of memory, try again later");
    }
    negotiate_request_id(NULL, answer.request_id);
    if (!tls && answer_set_problem(&answer, &problem) == 0 && answer_send(&answer, fd, NULL) == 0 &&
        http->lingerer.count < LINGER_MAX_SOCKETS / 2)
        linger_take(&http->lingerer, fd);
    else
        close(fd);
    answer_free(&answer);
}

/* Proxies speak for many, and on a Unix socket everybody has the same address. */
static bool is_counted(const struct http *http, const struct client *peer)
{
    return http->gateway->config.max_connections_per_address &&
           (peer->kind == CLIENT_IPV4 || peer->kind == CLIENT_IPV6) &&
           !trusted_has(&http->trusted, peer);
}

/* Its place in the crowd is taken already. */
static void take_socket(struct http *http, int fd, const struct sockaddr *address, socklen_t size,
                        bool tls)
{
    if (address->sa_family == AF_INET || address->sa_family == AF_INET6) {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    struct client peer = client_of_socket(fd, address);
    struct peer *place = NULL;
    if (is_counted(http, &peer)) {
        int error = peers_enter(&http->connections.addresses, &peer,
                                http->gateway->config.max_connections_per_address, &place);
        if (error) {
            crowd_give(&http->connections.crowd);
            refuse_socket(http, fd, error == -EBUSY, tls);
            return;
        }
    }
    struct connection *connection = connection_open(&http->connections, fd);
    if (!connection) {
        if (place)
            peers_leave(&http->connections.addresses, place);
        crowd_give(&http->connections.crowd);
        refuse_socket(http, fd, false, tls);
        return;
    }
    connection->peer = peer;
    connection->place = place;
    if (MHD_add_connection(http->daemons[tls], fd, address, size) == MHD_YES)
        return;
    /* libmicrohttpd has closed the socket, with or without telling on_connection. */
    if (connection_find(fd) == connection)
        connection_close(&http->connections, connection);
}

static int on_accept_again(sd_event_source *source, uint64_t now_us, void *opaque)
{
    (void)source;
    (void)now_us;
    (void)opaque; /* turn_over does it */
    return 0;
}

/* Tried again soon, told less often. */
static void accept_failed(struct http *http, int error)
{
    uint64_t now_ns = queue_now_ns();
    if (now_ns >= http->accept_warning_due_ns) {
        http->accept_warning_due_ns = now_ns + ACCEPT_WARNING_NS;
        log_event(LOG_LEVEL_WARNING, "cannot accept now", log_text("error", strerror(error)),
                  log_number("connections", http->connections.count));
    }
    accept_later(http);
}

static int on_listen(sd_event_source *source, int listening, uint32_t events, void *opaque)
{
    (void)source;
    (void)events;
    struct http_listener *listener = opaque;
    struct http *http = listener->http;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        /* Those who come now wait in the backlog. */
        if (!crowd_take(&http->connections.crowd, http->gateway->config.max_connections)) {
            set_full(http, true);
            return 0;
        }
        struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
        socklen_t size = sizeof address;
        int fd = accept4(listening, (struct sockaddr *)&address, &size,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take_socket(http, fd, (struct sockaddr *)&address, size, listener->tls);
            continue;
        }
        int error = errno;
        crowd_give(&http->connections.crowd);
        if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM) {
            accept_failed(http, error);
            return 0;
        }
        if (error != ECONNABORTED && error != EINTR)
            return 0;
    }
    return 0;
}

/* ---- slow clients and the end ---- */

/* Somebody waits in a backlog, this gateway's or another's, for a place that an idle one takes. */
static bool is_full(const struct http *http)
{
    return !http->gateway->draining && crowd_somebody_waits(&http->connections.crowd) &&
           !has_room(http);
}

/* True when the connection ends to make room (only if `full`). */
static bool sweep_connection(struct http *http, struct connection *connection, uint64_t now_ns,
                             bool full)
{
    uint64_t head_ns = http->gateway->config.header_timeout_ms * UINT64_C(1000000);
    if (full && head_ns > PATIENCE_WHEN_FULL_NS)
        head_ns = PATIENCE_WHEN_FULL_NS;
    if (connection->head_since_ns && now_ns - connection->head_since_ns > head_ns) {
        metrics_refused(COUNTERS_REFUSED_SLOW);
        connection_refuse_text(connection, 408, "The head of the request took too long", true);
        return full;
    }
    if (connection->request) {
        request_sweep(connection->request, now_ns);
        return false;
    }
    /* A handshake that takes as long: nothing can be said to who is in it. */
    if (connection->tls && !connection->secured && now_ns - connection->idle_since_ns > head_ns) {
        metrics_refused(COUNTERS_REFUSED_SLOW);
        shutdown(connection->fd, SHUT_RDWR);
        return full;
    }
    if (!connection_idle(connection))
        return false;
    uint64_t idle_ns = now_ns - connection->idle_since_ns;
    bool gives_way = full && idle_ns > PATIENCE_WHEN_FULL_NS;
    bool drains = http->gateway->draining && (connection->answered || idle_ns > NEWCOMER_NS);
    if (drains || gives_way || connection_ended(connection))
        connection_hang_up(connection);
    return gives_way;
}

static int on_sweep(sd_event_source *source, uint64_t now_us, void *opaque)
{
    (void)source;
    (void)now_us;
    struct http *http = opaque;
    http->sweeping = false;
    uint64_t now_ns = queue_now_ns();
    uint32_t room = is_full(http) ? ACCEPTS_A_TURN : 0;
    for (struct connection *connection = http->connections.last; connection;
         connection = connection->previous)
        if (!connection->refused && sweep_connection(http, connection, now_ns, room > 0))
            room--;
    return 0;
}

static bool has_unread(const struct connection *connection)
{
    char byte;
    return recvfrom(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT, NULL, NULL) > 0;
}

/* The backlog stays where the supervisor or the service manager holds the socket, too; where nobody
 * does, who waits there is better refused, and the address free for the next supervisor. */
static void stop_listening(struct http *http)
{
    set_accepting(http, false);
    for (uint32_t i = 0; i < http->listen_count; i++) {
        int fd = sd_event_source_get_io_fd(http->listen[i].source);
        sd_event_source_disable_unref(http->listen[i].source);
        close(fd);
    }
    http->listen_count = 0;
}

/* Connections between two requests are ended; the others end after their answer. One that has just
 * been made is about to send something: it has a second, until the next sweep. */
static void drain(void *opaque)
{
    struct http *http = opaque;
    stop_listening(http);
    set_full(http, false);
    for (struct connection *connection = http->connections.first; connection;
         connection = connection->next)
        if (connection_idle(connection) && connection->answered > 0 && !has_unread(connection))
            connection_hang_up(connection);
}

static void give_up(void *opaque)
{
    struct http *http = opaque;
    oauth_give_up(&http->oauth, "The server ends");
    for (struct connection *connection = http->connections.first; connection;
         connection = connection->next)
        if (connection->request && !connection->refused)
            request_turn_away(connection->request);
}

static bool drained(void *opaque)
{
    struct http *http = opaque;
    return http->connections.count == 0 && http->lingerer.count == 0;
}

/* ---- life ---- */

static int start_daemon(struct http *http, bool tls)
{
    const struct config *config = &http->gateway->config;
    struct MHD_OptionItem secured[] = {
        {MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)(intptr_t)no_certificate},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, TLS_PRIORITIES},
        {MHD_OPTION_END, 0, NULL}};
    struct MHD_OptionItem plain[] = {{MHD_OPTION_END, 0, NULL}};
    /* A little later than on_sweep, which says 408 to those who have begun a head. */
    http->idle_s = (config->header_timeout_ms + 999) / 1000 + 2;
    http->daemons[tls] = MHD_start_daemon(
        (tls ? MHD_USE_TLS : 0) | MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME |
            MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ERROR_LOG,
        0, NULL, NULL, request_handle, http, MHD_OPTION_EXTERNAL_LOGGER, on_daemon_log, http,
        MHD_OPTION_NOTIFY_COMPLETED, on_request_done, http, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, http, MHD_OPTION_CONNECTION_LIMIT, config->max_connections + 1,
        MHD_OPTION_CONNECTION_TIMEOUT, http->idle_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        CONNECTION_MEMORY, MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, http,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_ARRAY, tls ? secured : plain, MHD_OPTION_END);
    return http->daemons[tls] ? 0 : -ENOMEM;
}

static int add_timers(struct http *http)
{
    sd_event *event = http->gateway->event;
    struct {
        sd_event_source **source;
        sd_event_time_handler_t handler;
        uint64_t accuracy_us;
    } timers[] = {
        {&http->daemon_timer, on_daemon_timer, 1000},
        {&http->sweep_timer, on_sweep, 250000},
        {&http->accept_timer, on_accept_again, 10000},
    };
    for (size_t i = 0; i < sizeof timers / sizeof timers[0]; i++) {
        int error = sd_event_add_time(event, timers[i].source, CLOCK_MONOTONIC, 0,
                                      timers[i].accuracy_us, timers[i].handler, http);
        if (error < 0)
            return error;
        sd_event_source_set_enabled(*timers[i].source, SD_EVENT_OFF);
    }
    http->daemon_due_us = UINT64_MAX;
    int error = sd_event_add_defer(event, &http->daemon_again, on_daemon_again, http);
    if (error >= 0)
        error = sd_event_source_set_enabled(http->daemon_again, SD_EVENT_OFF);
    return error < 0 ? error : 0;
}

static bool is_listening(int fd)
{
    int listening = 0;
    socklen_t size = sizeof listening;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening;
}

/* Is it bound to an address of the configuration that speaks TLS? The sockets of gateways that
 * there are no more come without telling whose they were. */
static bool speaks_tls(const struct http *http, int fd)
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t size = sizeof address;
    char text[CONFIG_ADDRESS_MAX];
    if (getsockname(fd, (struct sockaddr *)&address, &size) ||
        config_address_format(&address, size, text, sizeof text))
        return false;
    const struct config *config = &http->gateway->config;
    for (uint32_t i = 0; i < config->listen_count; i++)
        if (strcmp(config_address_bare(config->listen[i]), text) == 0)
            return config_address_is_tls(config->listen[i]);
    return false;
}

static int listen_add(struct http *http, int fd, bool tls)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    struct http_listener *listener = &http->listen[http->listen_count];
    *listener = (struct http_listener){.http = http, .tls = tls};
    int error = sd_event_add_io(http->gateway->event, &listener->source, fd, EPOLLIN, on_listen,
                                listener);
    if (error < 0)
        return error;
    http->listen_count++;
    return 0;
}

static int add_daemon(struct http *http, bool tls)
{
    int error = start_daemon(http, tls);
    if (error)
        return error;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemons[tls],
                                                           MHD_DAEMON_INFO_EPOLL_FD);
    if (!info)
        return -EINVAL;
    return sd_event_add_io(http->gateway->event, &http->daemon_io[tls], info->epoll_fd, EPOLLIN,
                           on_daemon_io, http);
}

static int add_daemons(struct http *http)
{
    const struct config *config = &http->gateway->config;
    bool wanted[2] = {false, false};
    for (uint32_t i = 0; i < config->listen_count; i++)
        wanted[config_address_is_tls(config->listen[i])] = true;
    int error = wanted[false] ? add_daemon(http, false) : 0;
    if (error >= 0 && wanted[true])
        error = add_daemon(http, true);
    return error;
}

static int add_sources(struct http *http)
{
    int error = add_daemons(http);
    uint32_t addresses = http->gateway->config.listen_count;
    for (uint32_t i = 0; error >= 0 && i < addresses && i < SEAT_MAX_LISTEN; i++)
        error = listen_add(http, SEAT_FD_LISTEN + (int)i,
                           config_address_is_tls(http->gateway->config.listen[i]));
    for (int i = 0; error >= 0 && i < SEAT_MAX_MORE && is_listening(SEAT_FD_MORE + i); i++)
        error = listen_add(http, SEAT_FD_MORE + i, speaks_tls(http, SEAT_FD_MORE + i));
    return error < 0 ? error : 0;
}

/* What was read before stays when this cannot be read. */
static int keys_read(struct http *http)
{
    static struct api_keys fresh;
    const char *file = http->gateway->config.api_key_file;
    const char *key = getenv("UNETSERVE_API_KEY");
    char text[256] = "";
    int error = api_keys_load(&fresh, key ? key : getenv("LIT_SERVER_API_KEY"), file, text,
                              sizeof text);
    if (error)
        log_event(LOG_LEVEL_ERROR, "cannot read the API keys", log_text("file", file),
                  log_text("error", text));
    else
        http->keys = fresh;
    return error;
}

/* So does this. */
static int identity_read(struct http *http)
{
    const struct config *config = &http->gateway->config;
    struct tls_identity *fresh = NULL;
    char text[1024] = "";
    if (!config->tls_certificate[0])
        return 0;
    int error = tls_identity_read(config, &fresh, text, sizeof text);
    if (error) {
        log_event(LOG_LEVEL_ERROR, "cannot read the certificates", log_text("error", text));
        return error;
    }
    tls_identity_drop(http->identity);
    http->identity = fresh;
    return 0;
}

/* Reading them again would not help. */
static bool is_the_files_fault(int error)
{
    return error == -EINVAL || error == -EMSGSIZE || error == -ENODATA;
}

/* The pair to auth; -1: this gateway has none. */
static int auth_socket(void)
{
    int type = 0;
    socklen_t size = sizeof type;
    bool socket = getsockopt(SEAT_FD_AUTH, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
    return socket && type == SOCK_SEQPACKET ? SEAT_FD_AUTH : -1;
}

static void rescan(void *opaque)
{
    struct http *http = opaque;
    request_suspend_kept(http);
    http->suspend_all = false;
}

static void reconfigure(void *opaque)
{
    struct http *http = opaque;
    trusted_read(&http->gateway->config, &http->trusted);
    cors_configure(&http->gateway->config);
    compress_configure(&http->gateway->config);
    keys_read(http);
    oauth_reconfigure(&http->oauth);
    identity_read(http);
}

int http_open(struct http *http, struct gateway *gateway)
{
    *http = (struct http){
        .gateway = gateway, .accepting = true, .requests = {.size = request_size()}};
    if (!gate_recv_in_place()) {
        log_event(LOG_LEVEL_ERROR,
                  "this program was linked without its own recv: requests cannot be checked");
        return -ENOTSUP;
    }
    linger_init(&http->lingerer, gateway->event);
    trusted_read(&gateway->config, &http->trusted);
    cors_configure(&gateway->config);
    compress_configure(&gateway->config);
    crowd_open(&http->connections.crowd, &gateway->seat.queue, gateway->config.gateways,
               gateway->seat.seat, gateway->seat.index);
    peers_init(&http->connections.addresses, gateway->seat.queue.admission);
    http->connections.addresses.crowd = &http->connections.crowd;
    peers_init(&http->uploads, gateway->seat.queue.admission);
    int error = keys_read(http);
    if (!error)
        error = identity_read(http);
    if (error)
        return is_the_files_fault(error) ? -ENOKEY : error;
    error = add_timers(http);
    if (!error)
        error = add_sources(http);
    if (!error)
        error = oauth_open(&http->oauth, gateway->event, auth_socket(), &gateway->config,
                           gateway->seat.queue.admission);
    if (error) {
        log_event(LOG_LEVEL_ERROR, "cannot start the HTTP front",
                  log_text("error", strerror(-error)));
        return error;
    }
    gateway->front = (struct front){
        .opaque = http,
        .drain = drain,
        .give_up = give_up,
        .drained = drained,
        .reconfigure = reconfigure,
        .rescan = rescan,
        .go_on = go_on,
        .turn_over = turn_over,
    };
    return 0;
}

void http_close(struct http *http)
{
    for (struct connection *connection = http->connections.first; connection;
         connection = connection->next)
        if (connection->request)
            request_give_up(connection->request);
    daemons_run(
        http); /* takes up what was resumed: they must not stop with suspended connections */
    for (int i = 0; i < 2; i++)
        if (http->daemons[i])
            MHD_stop_daemon(http->daemons[i]);
    spare_free(&http->requests);
    tls_identity_drop(http->identity);
    oauth_close(&http->oauth);
    openapi_close(&http->openapi);
    linger_close(&http->lingerer);
    for (uint32_t i = 0; i < http->listen_count; i++)
        sd_event_source_disable_unref(http->listen[i].source);
    for (int i = 0; i < 2; i++)
        sd_event_source_disable_unref(http->daemon_io[i]);
    sd_event_source_disable_unref(http->daemon_again);
    sd_event_source_disable_unref(http->daemon_timer);
    sd_event_source_disable_unref(http->sweep_timer);
    sd_event_source_disable_unref(http->accept_timer);
}
