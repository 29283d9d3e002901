/*
 * Predictions: what the head asks for, whether it may, and what came of the job.
 */
#include "gateway/metrics.h"
#include "gateway/negotiate.h"
#include "gateway/request_parts.h"

#include <stdio.h>
#include <string.h>

/* Of all Content-Encoding fields as much is looked at. */
#define CODINGS_MAX 128

const char *request_header(const struct request *request, const char *name)
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
    request_set_timing(answer, &outcome->times);
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
    if (negotiate_format(interface, request_header(request, MHD_HTTP_HEADER_CONTENT_TYPE),
                         &order->format, problem) ||
        negotiate_form(interface, request_header(request, MHD_HTTP_HEADER_ACCEPT), &order->form,
                       problem) ||
        negotiate_timeout(request_header(request, "X-Unetserve-Timeout-Ms"), &order->timeout_ms,
                          problem) ||
        negotiate_priority(request_header(request, "X-Unetserve-Priority"), request->priority_most,
                           &order->priority, problem))
        return -1;
    return 0;
}

/* body_bytes: of the unpacked body. */
static int read_raw_shape(const struct request *request, uint64_t body_bytes,
                          struct unetserve_shape *shape, struct problem *problem)
{
    const char *dims = request_header(request, "X-Unetserve-Shape"),
               *dtype = request_header(request, "X-Unetserve-Dtype");
    uint64_t bytes;
    if (!dims || !dtype) {
        problem_set(problem, 400,
                    "application/octet-stream needs the headers X-Unetserve-Shape (as 12,256,256) "
                    "and X-Unetserve-Dtype (as uint16)");
        return -1;
    }
    if (body_parse_raw_headers(dims, dtype, shape, problem))
        return -1;
    if (body_bytes != REQUEST_BODY_UNKNOWN && unetserve_shape_bytes(shape, &bytes) == 0 &&
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
    order->body_bytes = REQUEST_BODY_UNKNOWN;
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
    if (order.format == BODY_MULTIPART && request_header(request, "X-Unetserve-Shape") &&
        read_raw_shape(request, REQUEST_BODY_UNKNOWN, &shape, problem))
        return -1;
    order.content_type = request_header(request, MHD_HTTP_HEADER_CONTENT_TYPE);
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
        !request_free_slowest(request->http, &request->client, &load)) {
        metrics_turned_away(view->model, COUNTERS_REFUSED_RECEIVING);
        problem_set(problem, 503, "Too many requests are sending their bodies, try again later");
        return -1;
    }
    int refused = job_open(&gateway->jobs, &order, on_job_done, request, problem, &request->job);
    if (refused && problem->status == 503 &&
        request_free_slowest(request->http, &request->client, &load))
        refused = job_open(&gateway->jobs, &order, on_job_done, request, problem, &request->job);
    if (refused)
        metrics_job_refused(view->model, problem->status);
    else
        (void)peers_enter(&request->http->uploads, &request->client, 0, &request->upload);
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
struct client request_client(const struct request *request, const struct api_key *key)
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

int request_admit(struct request *request, uint32_t model, struct problem *problem)
{
    struct gateway *gateway = request->http->gateway;
    if (request->body_bytes != REQUEST_BODY_UNKNOWN &&
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
