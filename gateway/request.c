#include "gateway/metrics.h"
#include "gateway/negotiate.h"
#include "gateway/request_parts.h"

#include "lib/config_oauth.h"

#include <stdlib.h>
#include <string.h>

static void read_framing(struct request *request)
{
    const char *length = request_header(request, MHD_HTTP_HEADER_CONTENT_LENGTH);
    const char *expect = request_header(request, MHD_HTTP_HEADER_EXPECT);
    /* The head gate has seen to it that these are sound. */
    if (request_header(request, MHD_HTTP_HEADER_TRANSFER_ENCODING))
        request->body_bytes = REQUEST_BODY_UNKNOWN;
    else
        request->body_bytes = length ? strtoull(length, NULL, 10) : 0;
    request->expects = expect && strcasecmp(expect, "100-continue") == 0;
}

size_t request_size(void)
{
    return sizeof(struct request);
}

static struct request *request_make(struct http *http, struct MHD_Connection *mhd,
                                    const char *version)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(
        mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct connection *connection = info ? info->socket_context : NULL;
    struct request *request = connection ? spare_take(&http->requests) : NULL;
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
    connection_moved(connection);
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
    const char *origin = request_header(request, MHD_HTTP_HEADER_ORIGIN);
    request->connection->cors = &request->answer.cors;
    cors_grant(origin, &request->answer.cors);
    return cors_is_preflight(method, origin,
                             request_header(request, "Access-Control-Request-Method"));
}

/* Browsers ask without a key, and it concerns no route more than another. */
static enum MHD_Result request_preflight(struct request *request)
{
    struct problem problem;
    if (cors_grant_preflight(request_header(request, MHD_HTTP_HEADER_ORIGIN),
                             request_header(request, "Access-Control-Request-Method"),
                             request_header(request, "Access-Control-Request-Headers"),
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
        .given = {request_header(request, "X-API-Key"),
                  request_header(request, MHD_HTTP_HEADER_AUTHORIZATION)},
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
    negotiate_request_id(request_header(request, "X-Request-Id"), request->answer.request_id);
    request->connection->request_id = request->answer.request_id;
    request->answer.close = request->http->gateway->draining;
    if (request_is_preflight(request, method))
        return request_preflight(request);
    if (compress_choose(request_header(request, MHD_HTTP_HEADER_ACCEPT_ENCODING),
                        &request->answer.coding, &problem))
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
        if (request->discarded <= REQUEST_DISCARD_MAX)
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

void request_has_answer(struct request *request)
{
    request->answering = true;
    request->http->answering++;
}

/* What libmicrohttpd has no memory for goes past it. */
static enum MHD_Result request_answer(struct request *request)
{
    if (answer_queue(&request->answer, request->mhd) == MHD_YES) {
        request_has_answer(request);
        return MHD_YES;
    }
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
    request_wait(request);
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
    case REQUEST_STREAM: return request_begin_stream(request);
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
    if (request && request->kept)
        return MHD_YES;
    if (!request) {
        request = request_make(opaque, mhd, version);
        *context = request;
        return request ? request_begin(request, method, url) : MHD_NO;
    }
    connection_moved(request->connection);
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
    connection_moved(connection);
    struct http *http = request->http;
    http->answering -= request->answering;
    spare_give(&http->requests, request);
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
    if (request->suspended || request->kept)
        request_gone(request);
}
