#include "gateway/front_zmq.h"

#include "gateway/metrics.h"
#include "gateway/negotiate.h"
#include "gateway/pages.h"

#include "lib/ipc_bind.h"
#include "unetserve/log.h"
#include "unetserve/protocol.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <zmq.h>

#define MESSAGES_A_TURN 32
#define MESSAGES_QUEUED 256
#define LAST_WORDS_MS   500 /* for answers on their way when the process ends */
#define IDENTITY_MAX    255
#define FRAMES_MAX      4 /* identity, empty, head, tensor */

/* Whom to answer. */
struct caller {
    struct front_zmq *front;
    unsigned char identity[IDENTITY_MAX];
    size_t identity_size;
    bool delimited; /* a REQ socket's empty frame, which it wants back */
    uint32_t model; /* 1 + the index of the model asked; 0: none */
    struct client client;
    char id[64];
};

/* One message as it came in. */
struct message {
    zmq_msg_t frames[FRAMES_MAX];
    int count;
    bool too_many;
};

/* ---- answering ---- */

static void free_body(void *body, void *hint)
{
    (void)hint;
    free(body);
}

static int send_piece(struct front_zmq *front, const void *bytes, size_t size, bool more)
{
    return zmq_send(front->router, bytes, size, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) < 0 ? -1
                                                                                             : 0;
}

/* Takes body over. A client that has left, or does not read, loses its answer: the ROUTER says so
 * at the first frame. */
static void reply_send(const struct caller *caller, const struct protocol_reply *reply, void *body,
                       size_t size)
{
    metrics_answered(caller->model - 1u, (int)reply->status, size);
    metrics_request_ended(caller->model - 1u, true);
    unsigned char head[PROTOCOL_HEAD_MAX];
    struct front_zmq *front = caller->front;
    long head_size = protocol_reply_write(reply, head, sizeof head);
    zmq_msg_t last;
    if (head_size < 0 || send_piece(front, caller->identity, caller->identity_size, true)) {
        log_event(LOG_LEVEL_DEBUG, "an answer found no client", log_text("request_id", caller->id));
        free(body);
        return;
    }
    if (caller->delimited)
        send_piece(front, "", 0, true);
    send_piece(front, head, (size_t)head_size, size > 0);
    if (size == 0) {
        free(body);
        return;
    }
    if (zmq_msg_init_data(&last, body, size, free_body, NULL)) {
        free(body);
        send_piece(front, "", 0, false);
        return;
    }
    if (zmq_msg_send(&last, front->router, ZMQ_DONTWAIT) < 0)
        zmq_msg_close(&last);
}

static void reply_problem(const struct caller *caller, const struct problem *problem)
{
    struct protocol_reply reply = {.status = (uint32_t)problem->status, .type = "application/json"};
    memcpy(reply.id, caller->id, sizeof reply.id);
    char *body = strdup(problem->body);
    reply_send(caller, &reply, body, body ? strlen(body) : 0);
}

static void reply_status(const struct caller *caller)
{
    struct protocol_reply reply = {.status = 200, .type = "application/json"};
    memcpy(reply.id, caller->id, sizeof reply.id);
    char *body = pages_status(&caller->front->gateway->models);
    if (!body)
        reply.status = 503;
    reply_send(caller, &reply, body, body ? strlen(body) : 0);
}

static void on_job_done(void *opaque, const struct job_outcome *outcome)
{
    struct caller *caller = opaque;
    struct protocol_reply reply = {
        .status = (uint32_t)outcome->status,
        .shape = outcome->shape,
        .receive_ms = outcome->times.receive_ms,
        .queue_ms = outcome->times.queue_ms,
        .forward_ms = outcome->times.forward_ms,
        .encode_ms = outcome->times.encode_ms,
    };
    memcpy(reply.id, caller->id, sizeof reply.id);
    snprintf(reply.type, sizeof reply.type, "%s", outcome->type);
    reply_send(caller, &reply, outcome->body, outcome->size);
    caller->front->waiting--;
    free(caller);
}

/* ---- asking ---- */

/* "a, b, c", as far as there is room. */
static void list_models(const struct models *models, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < models->config->model_count && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "",
                                 models->config->models[i].name);
}

static int find_model(const struct models *models, const char *name, struct problem *problem)
{
    if (!name[0] && models->config->model_count == 1)
        return 0;
    int model = name[0] ? models_find_name(models, name) : -1;
    if (model >= 0)
        return model;
    char names[200];
    list_models(models, names, sizeof names);
    if (name[0])
        problem_set(problem, 404, "There is no model %s, but: %s", name, names);
    else
        problem_set(problem, 404, "Several models are served, name one: %s", names);
    return -1;
}

static int make_order(const struct protocol_request *request, struct model_view *view,
                      zmq_msg_t *tensor, struct job_order *order, struct problem *problem)
{
    static const enum job_form forms[] = {
        [PROTOCOL_TENSOR] = JOB_TENSOR,
        [PROTOCOL_JSON] = JOB_JSON,
        [PROTOCOL_NPY] = JOB_NPY,
        [PROTOCOL_PNG] = JOB_PNG,
    };
    *order = (struct job_order){
        .view = view,
        .format = view->interface.input_kind == UNETSERVE_TENSOR ? BODY_RAW : BODY_DOCUMENT,
        .shape = &request->shape,
        .body_bytes = zmq_msg_size(tensor),
        .form = forms[request->accept],
        .request_id = request->id,
        .timeout_ms = request->timeout_ms < NEGOTIATE_TIMEOUT_MAX_MS ? request->timeout_ms
                                                                     : NEGOTIATE_TIMEOUT_MAX_MS,
        .begun_ns = queue_now_ns(),
    };
    uint64_t bytes;
    if (order->format != BODY_RAW)
        return 0;
    if (request->shape.rank == 0) {
        problem_set(problem, 400, "A tensor needs its dtype and shape in the head");
        return -1;
    }
    if (unetserve_shape_bytes(&request->shape, &bytes)) {
        char what[160];
        problem_set(problem, 413, "%s is too large",
                    unetserve_shape_format(&request->shape, what, sizeof what));
        return -1;
    }
    if (bytes != order->body_bytes) {
        problem_set(problem, 422,
                    "The shape and type in the head make %llu bytes, the tensor has %llu",
                    (unsigned long long)bytes, (unsigned long long)order->body_bytes);
        return -1;
    }
    return 0;
}

/* caller is the job's from 0 on. */
static int start_job(struct caller *caller, const struct protocol_request *request,
                     struct model_view *view, zmq_msg_t *tensor, struct problem *problem)
{
    struct jobs *jobs = &caller->front->gateway->jobs;
    struct job_order order;
    struct job *job;
    if (zmq_msg_size(tensor) > jobs->config->max_body_bytes) {
        metrics_refused(COUNTERS_REFUSED_SIZE);
        problem_set(problem, 413, "Payload too large");
        return -1;
    }
    if (make_order(request, view, tensor, &order, problem))
        return -1;
    struct admit *admit = &caller->front->gateway->admit;
    struct admit_load load;
    admit_look(admit, view->model, order.priority, &load);
    if (admit_wait(admit, view->model, &load, order.timeout_ms, problem))
        return -1;
    if (job_open(jobs, &order, on_job_done, caller, problem, &job)) {
        metrics_job_refused(view->model, problem->status);
        return -1;
    }
    if (job_feed(job, zmq_msg_data(tensor), zmq_msg_size(tensor), problem) ||
        job_submit(job, problem)) {
        metrics_job_refused(view->model, problem->status);
        job_drop(job);
        return -1;
    }
    caller->front->waiting++;
    return 0;
}

static int predict(struct caller *caller, const struct protocol_request *request, zmq_msg_t *tensor,
                   struct problem *problem)
{
    struct models *models = &caller->front->gateway->models;
    int model = find_model(models, request->model, problem);
    if (model < 0)
        return -1;
    caller->model = (uint32_t)model + 1;
    if (admit_rate(&caller->front->gateway->admit, &caller->client, NULL, problem))
        return -1;
    struct model_view *view = models_view(models, (uint32_t)model);
    if (!view) {
        metrics_refused(COUNTERS_REFUSED_NOT_READY);
        problem_set(problem, 503, "The model is not ready yet, try again later");
        return -1;
    }
    if (view->interface.flags & UNETSERVE_STREAMS) {
        problem_set(problem, 406, "The model %s streams its answers, which is for HTTP: ask there",
                    models->config->models[model].name);
        model_view_drop(view);
        return -1;
    }
    struct caller *kept = malloc(sizeof *kept);
    int refused = -1;
    if (kept) {
        *kept = *caller;
        refused = start_job(kept, request, view, tensor, problem);
    } else {
        problem_set(problem, 503, "Out of memory, try again later");
    }
    if (refused)
        free(kept);
    model_view_drop(view);
    return refused;
}

static void handle(struct caller *caller, zmq_msg_t *head, zmq_msg_t *tensor)
{
    struct protocol_request request;
    struct problem problem = {0};
    char error[256] = "";
    if (protocol_request_read(zmq_msg_data(head), zmq_msg_size(head), &request, error,
                              sizeof error)) {
        problem_set(&problem, 400, "Not a request: %s", error);
        reply_problem(caller, &problem);
        return;
    }
    negotiate_request_id(request.id, caller->id);
    memcpy(request.id, caller->id, sizeof request.id);
    if (request.op == PROTOCOL_STATUS) {
        reply_status(caller);
        return;
    }
    if (caller->front->gateway->draining) {
        metrics_refused(COUNTERS_REFUSED_DRAINING);
        problem_set(&problem, 503, "The server is shutting down");
    } else if (!tensor)
        problem_set(&problem, 400, "A predict request has a second frame, the tensor");
    else
        predict(caller, &request, tensor, &problem);
    if (problem.status)
        reply_problem(caller, &problem);
}

/* ---- receiving ---- */

/* False when there is no message. Frames beyond those that a request has are read and dropped. */
static bool message_receive(void *router, struct message *message)
{
    *message = (struct message){.count = 0};
    for (bool more = true; more;) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, router, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&frame);
            return message->count > 0;
        }
        more = zmq_msg_more(&frame);
        metrics_received(zmq_msg_size(&frame));
        if (message->count < FRAMES_MAX) {
            zmq_msg_init(&message->frames[message->count]);
            zmq_msg_move(&message->frames[message->count++], &frame);
        } else {
            message->too_many = true;
        }
        zmq_msg_close(&frame);
    }
    return true;
}

static void message_close(struct message *message)
{
    for (int i = 0; i < message->count; i++)
        zmq_msg_close(&message->frames[i]);
}

static void message_handle(struct front_zmq *front, struct message *message)
{
    struct caller caller = {.front = front, .identity_size = zmq_msg_size(&message->frames[0])};
    bool delimited = message->count > 1 && zmq_msg_size(&message->frames[1]) == 0;
    int head = delimited ? 2 : 1;
    if (caller.identity_size > IDENTITY_MAX || message->count <= head)
        return; /* nothing that could be answered */
    memcpy(caller.identity, zmq_msg_data(&message->frames[0]), caller.identity_size);
    caller.delimited = delimited;
    caller.client = client_of_peer_address(zmq_msg_gets(&message->frames[head], "Peer-Address"));
    metrics_request_begun();
    if (message->too_many || message->count > head + 2) {
        struct problem problem;
        problem_set(&problem, 400, "A request has two frames, its head and the tensor");
        reply_problem(&caller, &problem);
        return;
    }
    bool tensor = message->count == head + 2;
    handle(&caller, &message->frames[head], tensor ? &message->frames[head + 1] : NULL);
}

static void receive_some(struct front_zmq *front)
{
    for (int i = 0; i < MESSAGES_A_TURN; i++) {
        struct message message;
        if (!message_receive(front->router, &message))
            return;
        message_handle(front, &message);
        message_close(&message);
    }
}

static int on_readable(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)source;
    (void)fd;
    (void)events;
    receive_some(opaque);
    return 0;
}

static int on_again(sd_event_source *source, void *opaque)
{
    (void)source;
    receive_some(opaque);
    return 0;
}

/* ZMQ_FD is an edge: after a partial drain, or a send that took in what had arrived, it stays
 * silent although messages wait. So ZMQ_EVENTS, which is the truth, is asked after each turn. */
static void turn_over(void *opaque)
{
    struct front_zmq *front = opaque;
    int events = 0;
    size_t size = sizeof events;
    if (zmq_getsockopt(front->router, ZMQ_EVENTS, &events, &size) == 0 && (events & ZMQ_POLLIN))
        sd_event_source_set_enabled(front->again, SD_EVENT_ONESHOT);
}

/* ---- life ---- */

static void drain(void *opaque)
{
    (void)opaque; /* handle refuses from here on */
}

static bool drained(void *opaque)
{
    struct front_zmq *front = opaque;
    return front->waiting == 0;
}

static int set(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value);
}

static int bind_router(struct front_zmq *front)
{
    const struct config *config = &front->gateway->config;
    int64_t largest = (int64_t)config->max_body_bytes + PROTOCOL_HEAD_MAX;
    front->router = zmq_socket(front->gateway->batons.context, ZMQ_ROUTER);
    if (!front->router || set(front->router, ZMQ_ROUTER_MANDATORY, 1) ||
        set(front->router, ZMQ_LINGER, 0) || set(front->router, ZMQ_RCVHWM, MESSAGES_QUEUED) ||
        set(front->router, ZMQ_SNDHWM, MESSAGES_QUEUED) ||
        zmq_setsockopt(front->router, ZMQ_MAXMSGSIZE, &largest, sizeof largest))
        return -errno;
    return ipc_bind(front->router, config->run_dir, WIRE_CLIENT_ADDRESS);
}

static int add_sources(struct front_zmq *front)
{
    sd_event *event = front->gateway->event;
    int fd = -1;
    size_t size = sizeof fd;
    if (zmq_getsockopt(front->router, ZMQ_FD, &fd, &size))
        return -errno;
    int error = sd_event_add_io(event, &front->readable, fd, EPOLLIN, on_readable, front);
    if (error >= 0)
        error = sd_event_add_defer(event, &front->again, on_again,
                                   front); /* runs once now: what came before */
    return error < 0 ? error : 0;
}

int front_zmq_open(struct front_zmq *front, struct gateway *gateway)
{
    *front = (struct front_zmq){.gateway = gateway};
    int error = bind_router(front);
    if (!error)
        error = add_sources(front);
    if (error) {
        log_event(LOG_LEVEL_ERROR, "cannot start the ZeroMQ front",
                  log_text("run_dir", gateway->config.run_dir),
                  log_text("error", strerror(-error)));
        return error;
    }
    gateway->front = (struct front){
        .opaque = front, .drain = drain, .drained = drained, .turn_over = turn_over};
    return 0;
}

void front_zmq_close(struct front_zmq *front)
{
    sd_event_source_disable_unref(front->readable);
    sd_event_source_disable_unref(front->again);
    if (!front->router)
        return;
    (void)set(front->router, ZMQ_LINGER, LAST_WORDS_MS);
    zmq_close(front->router);
}
