#include "gateway/request.h"

#include "gateway/decoding.h"
#include "gateway/docs_page.h"
#include "gateway/http.h"
#include "gateway/metrics.h"
#include "gateway/negotiate.h"
#include "gateway/openapi.h"
#include "gateway/pages.h"
#include "gateway/routes.h"
#include "gateway/stream_text.h"

#include "lib/config_oauth.h"
#include "unetserve/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* A refused body of at most that many bytes is read to its end, and the connection lives on. */
#define DISCARD_MAX 65536

/* Slower bodies than that, after the time that a head may take, are refused: they hold a slot. */
#define LEAST_BYTES_A_SECOND 4096

/* How long after a client's half-close we ask whether it is still there (request_probe). */
#define PROBE_AFTER_US 150000

/* When bodies that are still coming hold all slots, one that is slower than that, after that time,
 * loses its slot to a newcomer. */
#define HURRIED_BYTES_A_SECOND 65536
#define HURRIED_AFTER_MS       1000
/* After that time if its client has more slots than the newcomer's would have then. */
#define HURRIED_HEAVY_AFTER_MS 100

#define BODY_UNKNOWN UINT64_MAX

/* Of all Content-Encoding fields as much is looked at. */
#define CODINGS_MAX 128

enum request_state {
    REQUEST_PAGE,
    REQUEST_CHECKING,
    REQUEST_BODY,
    REQUEST_WAITING,
    REQUEST_ANSWER,
    REQUEST_STREAM,
    REQUEST_GONE
};

struct request {
    struct http *http;
    struct connection *connection;
    struct MHD_Connection *mhd;
    enum request_state state;
    uint64_t begun_ns;
    uint64_t body_bytes; /* announced; BODY_UNKNOWN if chunked */
    uint64_t body_seen, discarded;
    bool expects;  /* waits for 100 Continue before it sends its body */
    bool speaks_1; /* HTTP/1.1: knows interim answers */
    struct job *job;
    struct decoder *decoder; /* of a body that comes compressed; else NULL */
    struct route route;
    struct oauth_waiter waiter; /* in CHECKING */
    struct auth_answer *told;   /* what was said of its token */
    struct client client;       /* predictions: whom it counts for */
    struct peer *upload;        /* in BODY: its place among the client's uploads */
    int32_t priority_most;      /* that it may ask for, by its key */
    struct answer answer;
    enum job_form form;
    struct stream_text text; /* of a stream: the item that is going out */
    bool suspended;
    bool finished;    /* a stream, to its clean end */
    bool half_closed; /* the client ended its own side before the answer began */
    sd_event_source *probe;
};

/* ---- the client's socket while the connection is suspended ----
 *
 * A suspended connection is not read, so libmicrohttpd does not notice a client that leaves. Its
 * socket is watched here. An error or a hang-up (reset; both directions closed; a Unix socket's
 * peer gone) means that nobody waits. The end of the client's stream alone does not:
 * shutdown(SHUT_WR) after a request is legal, and over TCP it looks the same as close() until
 * something is sent. So something is sent: a second "100 Continue", which every HTTP/1.1 client
 * must put up with before its answer. A client that has closed answers with a reset, which is the
 * hang-up above; one that only half-closed goes on waiting. It is sent a little later than the end
 * of the stream came, so that answers which come soon go out without it. HTTP/1.0 knows no interim
 * answers; there a half-closed client is taken to be waiting.
 *
 * In the middle of an answer nothing harmless can be sent: there, who ends his side has left,
 * unless it was ended before the answer began.
 */

static void connection_unwatch(struct connection *connection)
{
    connection->watch = sd_event_source_disable_unref(connection->watch);
}

/* The watch stays for the connection's next request; not if it has told of an end already, which it
 * does once. */
static void request_unwatch(struct request *request)
{
    request->probe = sd_event_source_disable_unref(request->probe);
    if (request->half_closed)
        connection_unwatch(request->connection);
}

static void request_resume(struct request *request, enum request_state state)
{
    request_unwatch(request);
    oauth_forget(&request->http->oauth, &request->waiter);
    request->state = state;
    request->suspended = false;
    request->http->resumed = true;
    MHD_resume_connection(request->mhd);
}

static void request_gone(struct request *request)
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
    bool ended = events & EPOLLRDHUP;
    /* libmicrohttpd reads this end itself, or the next request finds it anew. */
    if (!request || !request->suspended) {
        connection_unwatch(connection);
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

static void request_suspend(struct request *request)
{
    struct connection *connection = request->connection;
    request->suspended = true;
    MHD_suspend_connection(request->mhd);
    if (!connection->watch &&
        sd_event_add_io(request->http->gateway->event, &connection->watch, connection->fd,
                        EPOLLRDHUP | EPOLLET, on_watch, connection) < 0)
        connection->watch = NULL; /* its client may leave unnoticed; the deadline ends it */
}

/* ---- refusing ---- */

static void request_upload_over(struct request *request)
{
    if (request->upload)
        peers_leave(&request->http->uploads, request->upload);
    request->upload = NULL;
}

static void request_drop_job(struct request *request)
{
    request_upload_over(request);
    decoder_close(request->decoder);
    request->decoder = NULL;
    if (request->job)
        job_drop(request->job);
    request->job = NULL;
}

/* The answer is known and the body is not all there. A short rest is read away; before a long one,
 * or one that the client has not begun to send, the answer is written past libmicrohttpd (it cannot
 * answer in the middle of a body) and the connection ends in the lingering closer. */
static enum MHD_Result request_answer_early(struct request *request)
{
    request_drop_job(request);
    request->state = REQUEST_PAGE;
    uint64_t rest = request->body_bytes == BODY_UNKNOWN ? 0
                                                        : request->body_bytes - request->body_seen;
    bool awaited = request->expects && request->body_seen == 0 && request->body_bytes > 0;
    if (rest <= DISCARD_MAX && !awaited)
        return MHD_YES;
    connection_refuse(request->connection, &request->answer, false);
    return MHD_NO;
}

static void set_timing(struct answer *answer, const struct job_times *times)
{
    snprintf(answer->timing, sizeof answer->timing,
             "receive;dur=%.3f, queue;dur=%.3f, forward;dur=%.3f, encode;dur=%.3f",
             times->receive_ms, times->queue_ms, times->forward_ms, times->encode_ms);
}

static enum MHD_Result request_refuse(struct request *request, const struct problem *problem)
{
    /* Without memory the status goes out without its sentence. */
    (void)answer_set_problem(&request->answer, problem);
    request->answer.retry_after_s = problem->retry_after_s;
    log_event(LOG_LEVEL_DEBUG, "request refused",
              log_text("request_id", request->answer.request_id),
              log_number("status", problem->status));
    set_timing(
        &request->answer,
        &(struct job_times){.receive_ms = (double)(queue_now_ns() - request->begun_ns) / 1e6});
    return request_answer_early(request);
}

static void request_refuse_slow(struct request *request, const char *reason)
{
    request_drop_job(request);
    request->state = REQUEST_GONE;
    metrics_refused(COUNTERS_REFUSED_SLOW);
    connection_refuse_text(request->connection, 408, reason, true);
}

static bool request_receives(const struct request *request)
{
    return request && request->state == REQUEST_BODY && !request->connection->refused &&
           !head_gate_idle(&request->connection->gate);
}

/* How slowly its body comes, where it is old enough to tell; UINT64_MAX: it is in order. Who takes
 * up more slots than the newcomer has less time. */
static uint64_t upload_rate(const struct request *request, uint32_t newcomers, uint64_t now_ns)
{
    uint64_t age_ms = (now_ns - request->begun_ns) / 1000000;
    bool heavy = request->upload && request->upload->count > newcomers + 1;
    if (age_ms < (heavy ? HURRIED_HEAVY_AFTER_MS : HURRIED_AFTER_MS))
        return UINT64_MAX;
    uint64_t rate = request->body_seen * 1000 / age_ms;
    return rate < HURRIED_BYTES_A_SECOND ? rate : UINT64_MAX;
}

/* Is a, rather than b, the one to give way? That of the client with most slots; among equals the
 * slowest. */
static bool gives_way(const struct request *a, uint64_t rate_a, const struct request *b,
                      uint64_t rate_b)
{
    uint32_t count_a = a->upload ? a->upload->count : 0;
    uint32_t count_b = b->upload ? b->upload->count : 0;
    return count_a != count_b ? count_a > count_b : rate_a < rate_b;
}

/* Slots that wait for bodies do no work. If that is what they are taken by, free one for this
 * client, unless all bodies come in order. */
static bool free_slowest(struct http *http, const struct client *newcomer,
                         const struct admit_load *load)
{
    if (load->receiving < http->gateway->seat.queue.slot_count / 4)
        return false;
    struct request *slowest = NULL;
    uint64_t now_ns = queue_now_ns();
    uint64_t least = UINT64_MAX;
    uint32_t newcomers = peers_count(&http->uploads, newcomer);
    for (struct connection *at = http->connections.first; at; at = at->next) {
        if (!request_receives(at->request))
            continue;
        uint64_t rate = upload_rate(at->request, newcomers, now_ns);
        if (rate != UINT64_MAX && (!slowest || gives_way(at->request, rate, slowest, least))) {
            least = rate;
            slowest = at->request;
        }
    }
    if (!slowest)
        return false;
    request_refuse_slow(slowest, "The body came too slowly while others waited for a slot");
    return true;
}

void request_sweep(struct request *request, uint64_t now_ns)
{
    if (request->state != REQUEST_BODY && request->state != REQUEST_PAGE)
        return;
    if (head_gate_idle(&request->connection->gate))
        return; /* the body is whole, the answer is on its way out */
    uint64_t allowed_ms = request->http->gateway->config.header_timeout_ms +
                          request->body_seen * 1000 / LEAST_BYTES_A_SECOND;
    if ((now_ns - request->begun_ns) / 1000000 <= allowed_ms)
        return;
    request_refuse_slow(request, "The body of the request took too long");
}

/* ---- pages ---- */

struct page {
    int status;
    const char *type;
    char *text; /* malloc'd; NULL: there is no memory for it */
    size_t size;
};

static void request_page(struct request *request, enum route_kind kind, struct page *page)
{
    struct gateway *gateway = request->http->gateway;
    bool ready = kind == ROUTE_HEALTH && !gateway->ending && models_ready(&gateway->models);
    *page = (struct page){.status = 200, .type = ANSWER_TYPE_TEXT};
    switch (kind) {
    case ROUTE_ROOT: page->text = strdup("unetserve running"); break;
    case ROUTE_HEALTH:
        page->text = strdup(ready ? "ok" : "not ready");
        page->status = ready ? 200 : 503;
        break;
    case ROUTE_METRICS:
        page->text = metrics_page(&gateway->models, &page->size);
        page->type = METRICS_TYPE;
        return;
    case ROUTE_DOCS:
        page->text = docs_page(request->answer.policy, sizeof request->answer.policy);
        page->type = ANSWER_TYPE_HTML;
        break;
    case ROUTE_OPENAPI:
        page->text = openapi_page(&request->http->openapi, &gateway->models,
                                  request->http->keys.count > 0);
        page->type = ANSWER_TYPE_JSON;
        break;
    case ROUTE_INFO:
    case ROUTE_MODEL:
        page->text = pages_info(&gateway->models);
        page->type = ANSWER_TYPE_JSON;
        break;
    }
    page->size = page->text ? strlen(page->text) : 0;
}

static enum MHD_Result request_show(struct request *request, enum route_kind kind)
{
    struct page page;
    request_page(request, kind, &page);
    if (!page.text) {
        struct problem problem;
        request->answer.policy[0] = '\0';
        problem_set(&problem, 503, "Out of memory, try again later");
        return request_refuse(request, &problem);
    }
    answer_set_body(&request->answer, page.status, page.type, page.text, page.size);
    return request_answer_early(request);
}

/* ---- predictions ---- */

static const char *header(const struct request *request, const char *name)
{
    return MHD_lookup_connection_value(request->mhd, MHD_HEADER_KIND, name);
}

static void on_job_done(void *opaque, const struct job_outcome *outcome)
{
    struct request *request = opaque;
    struct answer *answer = &request->answer;
    request->job = NULL;
    answer_set_body(answer, outcome->status, outcome->type, outcome->body, outcome->size);
    answer->retry_after_s = outcome->status == 503;
    set_timing(answer, &outcome->times);
    request_resume(request, REQUEST_ANSWER);
}

static void on_job_ready(void *opaque)
{
    request_resume(opaque, REQUEST_STREAM);
}

/* What the head asks for, but the raw body's shape. */
static int read_head(const struct request *request, struct job_order *order,
                     struct problem *problem)
{
    const struct unetserve_interface *interface = &order->view->interface;
    if (negotiate_format(interface, header(request, MHD_HTTP_HEADER_CONTENT_TYPE), &order->format,
                         problem) ||
        negotiate_form(interface, header(request, MHD_HTTP_HEADER_ACCEPT), &order->form, problem) ||
        negotiate_timeout(header(request, "X-Unetserve-Timeout-Ms"), &order->timeout_ms, problem) ||
        negotiate_priority(header(request, "X-Unetserve-Priority"), request->priority_most,
                           &order->priority, problem))
        return -1;
    return 0;
}

/* body_bytes: of the unpacked body. */
static int read_raw_shape(const struct request *request, uint64_t body_bytes,
                          struct unetserve_shape *shape, struct problem *problem)
{
    const char *dims = header(request, "X-Unetserve-Shape"),
               *dtype = header(request, "X-Unetserve-Dtype");
    uint64_t bytes;
    if (!dims || !dtype) {
        problem_set(problem, 400,
                    "application/octet-stream needs the headers X-Unetserve-Shape (as 12,256,256) "
                    "and X-Unetserve-Dtype (as uint16)");
        return -1;
    }
    if (body_parse_raw_headers(dims, dtype, shape, problem))
        return -1;
    if (body_bytes != BODY_UNKNOWN && unetserve_shape_bytes(shape, &bytes) == 0 &&
        bytes != body_bytes) {
        problem_set(problem, 422,
                    "The shape and type in the headers make %llu bytes, Content-Length says %llu",
                    (unsigned long long)bytes, (unsigned long long)body_bytes);
        return -1;
    }
    return 0;
}

static enum MHD_Result join_codings(void *opaque, enum MHD_ValueKind kind, const char *name,
                                    const char *value)
{
    (void)kind;
    char *text = opaque;
    size_t used = strlen(text);
    if (value && strcasecmp(name, MHD_HTTP_HEADER_CONTENT_ENCODING) == 0)
        snprintf(text + used, CODINGS_MAX - used, "%s%s", used ? ", " : "", value);
    return MHD_YES;
}

/* How long a compressed body is nobody knows before it is there. */
static int request_open_decoder(struct request *request, struct job_order *order,
                                struct problem *problem)
{
    char codings[CODINGS_MAX] = "";
    enum body_coding coding;
    MHD_get_connection_values(request->mhd, MHD_HEADER_KIND, join_codings, codings);
    if (strlen(codings) == CODINGS_MAX - 1)
        codings[0] = '?'; /* cut: it must not be taken for what is left of it */
    if (decoding_choose(codings, &coding, problem)) {
        request->answer.accept_encoding = DECODING_ACCEPTED;
        return -1;
    }
    if (coding == BODY_PLAIN)
        return 0;
    order->body_bytes = BODY_UNKNOWN;
    request->decoder = decoder_open(coding, request->http->gateway->config.max_body_bytes);
    if (!request->decoder)
        problem_set(problem, 503, "Out of memory, try again later");
    return request->decoder ? 0 : -1;
}

static int request_open_job(struct request *request, struct model_view *view,
                            struct problem *problem)
{
    struct unetserve_shape shape = {0};
    struct job_order order = {
        .view = view,
        .shape = &shape,
        .body_bytes = request->body_bytes,
        .request_id = request->answer.request_id,
        .begun_ns = request->begun_ns,
    };
    if (read_head(request, &order, problem) || request_open_decoder(request, &order, problem))
        return -1;
    if (order.format == BODY_RAW && read_raw_shape(request, order.body_bytes, &shape, problem))
        return -1;
    if (order.format == BODY_MULTIPART && header(request, "X-Unetserve-Shape") &&
        read_raw_shape(request, BODY_UNKNOWN, &shape, problem))
        return -1;
    order.content_type = header(request, MHD_HTTP_HEADER_CONTENT_TYPE);
    order.ready = on_job_ready;
    request->form = order.form;
    struct gateway *gateway = request->http->gateway;
    struct admit_load load;
    admit_look(&gateway->admit, view->model, order.priority, &load);
    if (admit_wait(&gateway->admit, view->model, &load, order.timeout_ms, problem))
        return -1;
    /* What is beyond the cap is for clients that have no upload yet: many from one address cannot
     * keep another's single one out, not even for the moment in which all of them are too new to be
     * called slow. */
    if (!admit_body(&gateway->admit, &load) &&
        peers_count(&request->http->uploads, &request->client) > 0 &&
        !free_slowest(request->http, &request->client, &load)) {
        metrics_turned_away(view->model, COUNTERS_REFUSED_RECEIVING);
        problem_set(problem, 503, "Too many requests are sending their bodies, try again later");
        return -1;
    }
    int refused = job_open(&gateway->jobs, &order, on_job_done, request, problem, &request->job);
    if (refused && problem->status == 503 && free_slowest(request->http, &request->client, &load))
        refused = job_open(&gateway->jobs, &order, on_job_done, request, problem, &request->job);
    if (refused)
        metrics_job_refused(view->model, problem->status);
    else
        request->upload = peers_enter(&request->http->uploads, &request->client, 0);
    return refused;
}

struct forwarded {
    const char *lines[HEAD_GATE_HEADERS_MAX];
    size_t count;
};

static enum MHD_Result collect_forwarded(void *opaque, enum MHD_ValueKind kind, const char *name,
                                         const char *value)
{
    (void)kind;
    struct forwarded *forwarded = opaque;
    if (value && strcasecmp(name, "X-Forwarded-For") == 0 &&
        forwarded->count < HEAD_GATE_HEADERS_MAX)
        forwarded->lines[forwarded->count++] = value;
    return MHD_YES;
}

/* Whose request this is, for limits. */
static struct client request_client(const struct request *request, const struct api_key *key)
{
    const struct http *http = request->http;
    const struct client *peer = &request->connection->peer;
    if (key)
        return client_of_key(key);
    if (!trusted_has(&http->trusted, peer))
        return *peer;
    struct forwarded forwarded = {.count = 0};
    MHD_get_connection_values(request->mhd, MHD_HEADER_KIND, collect_forwarded, &forwarded);
    return client_forwarded(&http->trusted, peer, forwarded.lines, forwarded.count);
}

static int request_admit(struct request *request, uint32_t model, struct problem *problem)
{
    struct gateway *gateway = request->http->gateway;
    if (request->body_bytes != BODY_UNKNOWN &&
        request->body_bytes > gateway->config.max_body_bytes) {
        metrics_refused(COUNTERS_REFUSED_SIZE);
        problem_set(problem, 413, "Payload too large");
        return -1;
    }
    struct model_view *view = models_view(&gateway->models, model);
    if (!view) {
        metrics_refused(COUNTERS_REFUSED_NOT_READY);
        problem_set(problem, 503, "The model is not ready yet, try again later");
        return -1;
    }
    int refused = request_open_job(request, view, problem);
    model_view_drop(view);
    return refused;
}

/* ---- streams ---- */

/* The connection ends without the last chunk. libmicrohttpd is done with it only at its next run.
 */
static ssize_t stream_abort(const struct request *request)
{
    request->http->resumed = true;
    return MHD_CONTENT_READER_END_WITH_ERROR;
}

static ssize_t stream_broken(const struct request *request)
{
    log_event(LOG_LEVEL_WARNING, "a stream broke off",
              log_text("request_id", request->answer.request_id));
    return stream_abort(request);
}

/* libmicrohttpd has room for a chunk. The next item if there is one, else the connection is
 * suspended until there is: to return 0 alone would make libmicrohttpd ask again and again. */
static ssize_t stream_read(void *opaque, uint64_t position, char *buffer, size_t size)
{
    (void)position;
    struct request *request = opaque;
    const char *item;
    size_t item_size;
    if (request->state != REQUEST_STREAM)
        return stream_abort(request);
    if (request->text.sent == request->text.size) {
        switch (job_take(request->job, &item, &item_size)) {
        case ITEMS_ONE:
            if (stream_text_set(&request->text, request->form == JOB_EVENTS, item, item_size))
                return stream_broken(request);
            break;
        case ITEMS_NOT_YET: request_suspend(request); return 0;
        case ITEMS_END: request->finished = true; return MHD_CONTENT_READER_END_OF_STREAM;
        case ITEMS_BROKEN: return stream_broken(request);
        }
    }
    size_t taken = stream_text_take(&request->text, buffer, size);
    metrics_streamed(taken);
    return (ssize_t)taken;
}

static enum MHD_Result stream_begin(struct request *request)
{
    struct answer *answer = &request->answer;
    unsigned stall_s = (request->http->gateway->config.send_timeout_ms + 999) / 1000;
    answer->status = 200;
    answer->type = request->form == JOB_EVENTS ? ANSWER_TYPE_EVENTS : ANSWER_TYPE_LINES;
    answer->close |= request->http->gateway->draining;
    set_timing(answer, &(struct job_times){.receive_ms = 0});
    if (MHD_set_connection_option(request->mhd, MHD_CONNECTION_OPTION_TIMEOUT, stall_s) != MHD_YES)
        return MHD_NO;
    return answer_queue_stream(answer, request->mhd, stream_read, request);
}

/* ---- libmicrohttpd's calls ---- */

static void read_framing(struct request *request)
{
    const char *length = header(request, MHD_HTTP_HEADER_CONTENT_LENGTH);
    const char *expect = header(request, MHD_HTTP_HEADER_EXPECT);
    /* The head gate has seen to it that these are sound. */
    if (header(request, MHD_HTTP_HEADER_TRANSFER_ENCODING))
        request->body_bytes = BODY_UNKNOWN;
    else
        request->body_bytes = length ? strtoull(length, NULL, 10) : 0;
    request->expects = expect && strcasecmp(expect, "100-continue") == 0;
}

static struct request *request_make(struct http *http, struct MHD_Connection *mhd,
                                    const char *version)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(
        mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct connection *connection = info ? info->socket_context : NULL;
    struct request *request = connection ? malloc(sizeof *request) : NULL;
    if (!request) {
        if (connection)
            connection_refuse_text(connection, 503, "Out of memory, try again later", false);
        return NULL;
    }
    *request = (struct request){
        .http = http,
        .connection = connection,
        .mhd = mhd,
        .begun_ns = queue_now_ns(),
        .speaks_1 = strcmp(version, MHD_HTTP_VERSION_1_1) == 0,
    };
    connection->request = request;
    metrics_request_begun();
    return request;
}

/* A target may be a whole URI, as clients write it for proxies: the path of that. */
static const char *path_of_target(const char *target)
{
    size_t scheme = strncasecmp(target, "http://", 7) == 0    ? 7
                    : strncasecmp(target, "https://", 8) == 0 ? 8
                                                              : 0;
    if (!scheme)
        return target;
    const char *path = strchr(target + scheme, '/');
    return path ? path : "/";
}

/* True when the request is a browser's question about another one. */
static bool request_is_preflight(struct request *request, const char *method)
{
    const char *origin = header(request, MHD_HTTP_HEADER_ORIGIN);
    request->connection->cors = &request->answer.cors;
    cors_grant(origin, &request->answer.cors);
    return cors_is_preflight(method, origin, header(request, "Access-Control-Request-Method"));
}

/* Browsers ask without a key, and it concerns no route more than another. */
static enum MHD_Result request_preflight(struct request *request)
{
    struct problem problem;
    if (cors_grant_preflight(header(request, MHD_HTTP_HEADER_ORIGIN),
                             header(request, "Access-Control-Request-Method"),
                             header(request, "Access-Control-Request-Headers"),
                             &request->answer.cors, &problem))
        return request_refuse(request, &problem);
    (void)answer_set_text(&request->answer, 200, ANSWER_TYPE_TEXT, "OK");
    return request_answer_early(request);
}

/* Let in by key; NULL: none is needed. */
static enum MHD_Result request_go_on(struct request *request, const struct api_key *key)
{
    struct problem problem;
    if (request->route.kind != ROUTE_MODEL)
        return request_show(request, request->route.kind);
    if (key)
        request->priority_most = key->priority;
    request->client = request_client(request, key);
    if (admit_rate(&request->http->gateway->admit, &request->client, key, &problem) ||
        request_admit(request, request->route.model, &problem))
        return request_refuse(request, &problem);
    request->state = REQUEST_BODY;
    return MHD_YES;
}

/* libmicrohttpd calls again as it did for the head, and request_let_in with it. */
static void on_token_told(void *opaque, const struct auth_answer *answer)
{
    struct request *request = opaque;
    request->told = malloc(sizeof *request->told);
    if (request->told)
        *request->told = *answer;
    request_resume(request, REQUEST_CHECKING);
}

/* By a key or a token; it may have to wait for what is said of the token. */
static enum MHD_Result request_let_in(struct request *request)
{
    struct http *http = request->http;
    struct client client = {.kind = CLIENT_UNKNOWN};
    struct door_keys door = {&http->keys, &http->oauth, &http->gateway->config};
    struct door_knock knock = {
        .given = {header(request, "X-API-Key"), header(request, MHD_HTTP_HEADER_AUTHORIZATION)},
        .model = request->route.kind == ROUTE_MODEL ? (int)request->route.model : -1,
        .told = request->told,
        .client = &client,
        .waiter = &request->waiter,
    };
    const struct api_key *key;
    struct problem problem;
    if (config_has_oauth(door.config))
        client = request_client(request, NULL);
    request->waiter.told = on_token_told;
    request->waiter.opaque = request;
    switch (door_try(&door, &knock, &key, &problem, &request->answer)) {
    case DOOR_OPEN: return request_go_on(request, key);
    case DOOR_CLOSED: return request_refuse(request, &problem);
    case DOOR_ASKS: break;
    }
    request->state = REQUEST_CHECKING;
    request_suspend(request);
    return MHD_YES;
}

static enum MHD_Result request_begin(struct request *request, const char *method,
                                     const char *target)
{
    const char *path = path_of_target(target);
    struct route route;
    struct problem problem;
    read_framing(request);
    negotiate_request_id(header(request, "X-Request-Id"), request->answer.request_id);
    request->connection->request_id = request->answer.request_id;
    request->answer.close = request->http->gateway->draining;
    if (request_is_preflight(request, method))
        return request_preflight(request);
    if (compress_choose(header(request, MHD_HTTP_HEADER_ACCEPT_ENCODING), &request->answer.coding,
                        &problem))
        return request_refuse(request, &problem);
    if (routes_find(&request->http->gateway->models, method, path, &route, &problem,
                    &request->answer.allow))
        return request_refuse(request, &problem);
    if (route.kind == ROUTE_MODEL)
        request->answer.model = route.model + 1;
    request->route = route;
    if (routes_need_no_key(route.kind))
        return request_go_on(request, NULL);
    return request_let_in(request);
}

static int take_unpacked(void *opaque, const void *bytes, size_t size, struct problem *problem)
{
    const struct request *request = opaque;
    return job_feed(request->job, bytes, size, problem);
}

/* *left: bytes that were too much for one call. The connection is suspended and resumed at once, so
 * that libmicrohttpd comes back with them, and others have their turn before. */
static int request_feed(struct request *request, const char *bytes, size_t size, size_t *left,
                        struct problem *problem)
{
    if (!request->decoder)
        return job_feed(request->job, bytes, size, problem);
    size_t used;
    if (decoder_feed(request->decoder, bytes, size, &used, take_unpacked, request, problem))
        return -1;
    if (used == size)
        return 0;
    *left = size - used;
    request->http->resumed = true;
    MHD_suspend_connection(request->mhd);
    MHD_resume_connection(request->mhd);
    return 0;
}

static enum MHD_Result request_body(struct request *request, const char *bytes, size_t size,
                                    size_t *left)
{
    struct problem problem;
    request->body_seen += size;
    if (request->state == REQUEST_PAGE) {
        request->discarded += size;
        if (request->discarded <= DISCARD_MAX)
            return MHD_YES;
        connection_refuse(request->connection, &request->answer, false);
        return MHD_NO;
    }
    if (request->state != REQUEST_BODY)
        return MHD_NO;
    if (request->body_seen > request->http->gateway->config.max_body_bytes) {
        problem_set(&problem, 413, "Payload too large");
    } else if (request_feed(request, bytes, size, left, &problem) == 0) {
        request->body_seen -= *left;
        return MHD_YES;
    }
    metrics_job_refused(request->answer.model - 1u, problem.status);
    return request_refuse(request, &problem);
}

/* What libmicrohttpd has no memory for goes past it. */
static enum MHD_Result request_answer(struct request *request)
{
    if (answer_queue(&request->answer, request->mhd) == MHD_YES)
        return MHD_YES;
    if (!request->answer.queued)
        connection_refuse(request->connection, &request->answer, false);
    return MHD_NO;
}

static enum MHD_Result request_submit(struct request *request)
{
    struct problem problem;
    request->body_bytes = request->body_seen;
    if ((request->decoder && decoder_finish(request->decoder, &problem)) ||
        job_submit(request->job, &problem)) {
        metrics_job_refused(request->answer.model - 1u, problem.status);
        enum MHD_Result result = request_refuse(request, &problem);
        return result == MHD_YES ? request_answer(request) : result;
    }
    request_upload_over(request);
    decoder_close(request->decoder);
    request->decoder = NULL;
    request->state = REQUEST_WAITING;
    request_suspend(request);
    return MHD_YES;
}

static enum MHD_Result request_whole(struct request *request)
{
    switch (request->state) {
    case REQUEST_BODY: return request_submit(request);
    case REQUEST_PAGE:
    case REQUEST_ANSWER:
        request->answer.close |= request->http->gateway->draining;
        return request_answer(request);
    case REQUEST_STREAM: return stream_begin(request);
    case REQUEST_CHECKING: return request_let_in(request);
    case REQUEST_WAITING: return MHD_YES;
    case REQUEST_GONE: break;
    }
    return MHD_NO;
}

enum MHD_Result request_handle(void *opaque, struct MHD_Connection *mhd, const char *url,
                               const char *method, const char *version, const char *upload,
                               size_t *upload_size, void **context)
{
    struct request *request = *context;
    if (!request) {
        request = request_make(opaque, mhd, version);
        *context = request;
        return request ? request_begin(request, method, url) : MHD_NO;
    }
    if (!*upload_size)
        return request_whole(request);
    size_t size = *upload_size;
    *upload_size = 0;
    return request_body(request, upload, size, upload_size);
}

void request_end(struct request *request)
{
    request_unwatch(request);
    request_drop_job(request);
    answer_free(&request->answer);
    free(request->told);
    stream_text_free(&request->text);
    if (request->finished) /* what follows on this connection is no stream */
        MHD_set_connection_option(request->mhd, MHD_CONNECTION_OPTION_TIMEOUT,
                                  request->http->idle_s);
    struct connection *connection = request->connection;
    metrics_request_ended(request->answer.model - 1u,
                          request->answer.queued || connection->refused);
    connection->request = NULL;
    connection->request_id = NULL;
    connection->cors = NULL;
    free(request);
    connection_request_done(connection);
}

struct answer *request_refusal(struct request *request)
{
    bool refused = request->state == REQUEST_PAGE && request->answer.status >= 400 &&
                   !request->answer.queued;
    return refused ? &request->answer : NULL;
}

void request_turn_away(struct request *request)
{
    struct answer *refusal = request_refusal(request);
    if (!refusal && !request_receives(request))
        return;
    request_drop_job(request);
    request->state = REQUEST_GONE;
    metrics_refused(COUNTERS_REFUSED_DRAINING);
    if (refusal)
        connection_refuse(request->connection, refusal, true);
    else
        connection_refuse_text(request->connection, 503,
                               "The server ends, and the body was not whole in time: send it again",
                               true);
}

void request_give_up(struct request *request)
{
    if (request->suspended)
        request_gone(request);
}
