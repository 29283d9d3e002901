/*
 * A DEALER socket and a request at a time. The tensor is copied into the message: after a time-out
 * ZeroMQ may still hold it, and the caller's memory is the caller's again by then.
 */
#include "unetserve/client.h"

#include "endpoint.h"
#include "unetserve/protocol.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#define REPLY_FRAMES_MAX 3
#define REPLY_BYTES_MAX  ((int64_t)1 << 31)

struct unetserve_client {
    void *context;
    void *socket;
    void *monitor; /* tells when the connection breaks: then no answer comes any more */
    char endpoint[ENDPOINT_MAX];
    uint64_t requests; /* made so far: the ids of this handle */
};

static int64_t clock_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- open and close ---- */

static void client_disconnect(struct unetserve_client *client)
{
    if (client->socket)
        zmq_close(client->socket);
    if (client->monitor)
        zmq_close(client->monitor);
    client->socket = NULL;
    client->monitor = NULL;
}

static bool client_set_options(struct unetserve_client *client)
{
    const int linger = 0;
    const int64_t largest = REPLY_BYTES_MAX;
    char monitored[64];
    snprintf(monitored, sizeof monitored, "inproc://monitor-%llx",
             (unsigned long long)(uintptr_t)client->socket);
    return zmq_setsockopt(client->socket, ZMQ_LINGER, &linger, sizeof linger) == 0 &&
           zmq_setsockopt(client->monitor, ZMQ_LINGER, &linger, sizeof linger) == 0 &&
           zmq_setsockopt(client->socket, ZMQ_MAXMSGSIZE, &largest, sizeof largest) == 0 &&
           zmq_socket_monitor(client->socket, monitored, ZMQ_EVENT_DISCONNECTED) == 0 &&
           zmq_connect(client->monitor, monitored) == 0;
}

static int client_connect(struct unetserve_client *client)
{
    client->socket = zmq_socket(client->context, ZMQ_DEALER);
    client->monitor = zmq_socket(client->context, ZMQ_PAIR);
    if (!client->socket || !client->monitor) {
        client_disconnect(client);
        return -ENOMEM;
    }
    if (!client_set_options(client) || zmq_connect(client->socket, client->endpoint) != 0) {
        client_disconnect(client);
        return -EINVAL;
    }
    return 0;
}

int unetserve_client_open(const char *endpoint, struct unetserve_client **out)
{
    struct unetserve_client *client = calloc(1, sizeof *client);
    if (!client)
        return -ENOMEM;
    int rc = 0;
    if (!endpoint)
        rc = endpoint_find(client->endpoint, sizeof client->endpoint);
    else if (strlen(endpoint) < sizeof client->endpoint)
        memcpy(client->endpoint, endpoint, strlen(endpoint) + 1);
    else
        rc = -EINVAL;
    if (rc < 0)
        goto fail;
    client->context = zmq_ctx_new();
    if (!client->context) {
        rc = -ENOMEM;
        goto fail;
    }
    rc = client_connect(client);
    if (rc < 0)
        goto fail;
    *out = client;
    return 0;
fail:
    unetserve_client_close(client);
    return rc;
}

void unetserve_client_close(struct unetserve_client *client)
{
    if (!client)
        return;
    client_disconnect(client);
    if (client->context)
        zmq_ctx_term(client->context);
    free(client);
}

void unetserve_answer_free(struct unetserve_answer *answer)
{
    free(answer->data);
    *answer = (struct unetserve_answer){.status = 0};
}

/* ---- waiting ---- */

/* Has the connection broken since this was last asked? Events have two frames. */
static bool client_was_cut(struct unetserve_client *client)
{
    bool cut = false;
    unsigned char event[64];
    while (zmq_recv(client->monitor, event, sizeof event, ZMQ_DONTWAIT) >= 0)
        cut = true;
    return cut;
}

/* 0 when events came, -ETIMEDOUT, -EIO. A signal does not end the wait: the deadline does. */
static int client_wait(struct unetserve_client *client, short events, int64_t deadline_ms)
{
    for (;;) {
        int64_t left_ms = deadline_ms - clock_now_ms();
        zmq_pollitem_t items[] = {{.socket = client->socket, .events = events},
                                  {.socket = client->monitor, .events = ZMQ_POLLIN}};
        int ready = zmq_poll(items, 2, left_ms > 0 ? (long)left_ms : 0);
        /* An answer that came before the end counts. */
        if (ready > 0 && items[0].revents)
            return 0;
        if (ready > 0 && client_was_cut(client))
            return -EIO;
        if (ready == 0 && left_ms <= 0)
            return -ETIMEDOUT;
        if (ready < 0 && errno != EINTR)
            return -EIO;
    }
}

/* ---- sending ---- */

static int message_fill(zmq_msg_t *message, const void *bytes, size_t size)
{
    if (zmq_msg_init_size(message, size) != 0)
        return -ENOMEM;
    if (size > 0)
        memcpy(zmq_msg_data(message), bytes, size);
    return 0;
}

/* Both frames, or none: ZeroMQ takes a first frame back when the next finds no room. -EAGAIN: no
 * room now. */
static int client_try_send(struct unetserve_client *client, const void *head, size_t head_bytes,
                           const struct unetserve_tensor *input)
{
    zmq_msg_t first;
    zmq_msg_t second;
    if (message_fill(&first, head, head_bytes) < 0)
        return -ENOMEM;
    if (message_fill(&second, input ? input->data : NULL, input ? input->bytes : 0) < 0) {
        zmq_msg_close(&first);
        return -ENOMEM;
    }
    int rc = 0;
    if (zmq_msg_send(&first, client->socket, ZMQ_DONTWAIT | (input ? ZMQ_SNDMORE : 0)) < 0 ||
        (input && zmq_msg_send(&second, client->socket, ZMQ_DONTWAIT) < 0))
        rc = errno == EAGAIN ? -EAGAIN : -EIO;
    /* A message that was sent is empty by now; closing it is then nothing. */
    zmq_msg_close(&first);
    zmq_msg_close(&second);
    return rc;
}

static int client_send(struct unetserve_client *client, const struct protocol_request *request,
                       const struct unetserve_tensor *input, int64_t deadline_ms)
{
    unsigned char head[PROTOCOL_HEAD_MAX];
    long head_bytes = protocol_request_write(request, head, sizeof head);
    if (head_bytes < 0)
        return -EINVAL;
    for (;;) {
        int rc = client_wait(client, ZMQ_POLLOUT, deadline_ms);
        if (rc == 0)
            rc = client_try_send(client, head, (size_t)head_bytes, input);
        if (rc != -EAGAIN)
            return rc;
    }
}

/* ---- receiving ---- */

struct reply_frames {
    zmq_msg_t frames[REPLY_FRAMES_MAX];
    unsigned count;
    bool too_many;
};

static void reply_frames_close(struct reply_frames *reply)
{
    for (unsigned i = 0; i < reply->count; i++)
        zmq_msg_close(&reply->frames[i]);
    reply->count = 0;
}

/* One whole message; frames that no reply has are read and dropped. -EAGAIN: none there. */
static int client_receive(struct unetserve_client *client, struct reply_frames *reply)
{
    *reply = (struct reply_frames){.count = 0};
    for (bool more = true; more;) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, client->socket, ZMQ_DONTWAIT) < 0) {
            int rc = errno == EAGAIN || errno == EINTR ? -EAGAIN : -EIO;
            zmq_msg_close(&frame);
            reply_frames_close(reply);
            return rc;
        }
        more = zmq_msg_more(&frame);
        if (reply->count == REPLY_FRAMES_MAX) {
            reply->too_many = true;
            zmq_msg_close(&frame);
        } else {
            zmq_msg_init(&reply->frames[reply->count]);
            zmq_msg_move(&reply->frames[reply->count++], &frame);
        }
    }
    return 0;
}

static int answer_fill(const struct protocol_reply *head, const void *body, size_t bytes,
                       struct unetserve_answer *out)
{
    uint64_t shape_bytes = bytes;
    if (head->shape.rank > 0 &&
        (unetserve_shape_bytes(&head->shape, &shape_bytes) < 0 || shape_bytes != bytes))
        return -EBADMSG;
    char *data = malloc(bytes + 1);
    if (!data)
        return -ENOMEM;
    if (bytes > 0)
        memcpy(data, body, bytes);
    data[bytes] = 0;
    struct unetserve_answer answer = {
        .status = (int)head->status,
        .shape = head->shape,
        .data = data,
        .bytes = bytes,
        .receive_ms = head->receive_ms,
        .queue_ms = head->queue_ms,
        .forward_ms = head->forward_ms,
        .encode_ms = head->encode_ms,
    };
    memcpy(answer.request_id, head->id, sizeof answer.request_id);
    *out = answer;
    return 0;
}

/* Is this message the answer to id? -EAGAIN: it belongs to a request that was given up before. */
static int reply_accept(struct reply_frames *reply, const char *id, struct unetserve_answer *out)
{
    /* A server may echo an empty frame that a client on the way added. */
    unsigned first = reply->count > 0 && zmq_msg_size(&reply->frames[0]) == 0 ? 1 : 0;
    unsigned frames = reply->count - first;
    if (reply->too_many || frames < 1 || frames > 2)
        return -EBADMSG;
    zmq_msg_t *head_frame = &reply->frames[first];
    struct protocol_reply head;
    char error[160];
    if (protocol_reply_read(zmq_msg_data(head_frame), zmq_msg_size(head_frame), &head, error,
                            sizeof error) < 0)
        return -EBADMSG;
    if (strcmp(head.id, id) != 0)
        return -EAGAIN;
    zmq_msg_t *body = frames == 2 ? &reply->frames[first + 1] : NULL;
    return answer_fill(&head, body ? zmq_msg_data(body) : NULL, body ? zmq_msg_size(body) : 0, out);
}

static int client_await(struct unetserve_client *client, const char *id, int64_t deadline_ms,
                        struct unetserve_answer *out)
{
    for (;;) {
        int rc = client_wait(client, ZMQ_POLLIN, deadline_ms);
        if (rc < 0)
            return rc;
        struct reply_frames reply;
        rc = client_receive(client, &reply);
        if (rc == 0) {
            rc = reply_accept(&reply, id, out);
            reply_frames_close(&reply);
        }
        /* Messages of others may keep coming: they do not prolong the wait. */
        if (rc != -EAGAIN)
            return rc;
        if (clock_now_ms() >= deadline_ms)
            return -ETIMEDOUT;
    }
}

/* ---- requests ---- */

/* After a failure the socket is replaced: a request that no server has taken yet is dropped with
 * the old one, and does not reach a server that comes up later. */
static int client_ask(struct unetserve_client *client, struct protocol_request *request,
                      const struct unetserve_tensor *input, int timeout_ms,
                      struct unetserve_answer *answer)
{
    if (timeout_ms < 0)
        return -EINVAL;
    int rc = client->socket ? 0 : client_connect(client);
    if (rc < 0)
        return -EIO;
    /* A server that was replaced between two requests is no matter. */
    (void)client_was_cut(client);
    int64_t deadline_ms = clock_now_ms() + timeout_ms;
    snprintf(request->id, sizeof request->id, "c%ld-%llx-%llu", (long)getpid(),
             (unsigned long long)(uintptr_t)client, (unsigned long long)++client->requests);
    rc = client_send(client, request, input, deadline_ms);
    if (rc == 0)
        rc = client_await(client, request->id, deadline_ms, answer);
    if (rc < 0 && rc != -EINVAL)
        client_disconnect(client);
    return rc;
}

static bool tensor_is_whole(const struct unetserve_tensor *input)
{
    uint64_t bytes;
    /* rank 0: a document, for models that take one */
    if (input->shape.rank == 0)
        return input->data || input->bytes == 0;
    return unetserve_shape_bytes(&input->shape, &bytes) == 0 && bytes == input->bytes &&
           (input->data || bytes == 0);
}

int unetserve_client_predict(struct unetserve_client *client, const char *model,
                             const struct unetserve_tensor *input, int timeout_ms,
                             struct unetserve_answer *answer)
{
    struct protocol_request request = {.op = PROTOCOL_PREDICT, .accept = PROTOCOL_TENSOR};
    if (!tensor_is_whole(input) || (model && strlen(model) >= sizeof request.model))
        return -EINVAL;
    if (model)
        memcpy(request.model, model, strlen(model) + 1);
    request.shape = input->shape;
    request.timeout_ms = timeout_ms > 0 ? (uint64_t)timeout_ms : 0;
    return client_ask(client, &request, input, timeout_ms, answer);
}

int unetserve_client_status(struct unetserve_client *client, int timeout_ms,
                            struct unetserve_answer *answer)
{
    struct protocol_request request = {.op = PROTOCOL_STATUS, .accept = PROTOCOL_JSON};
    return client_ask(client, &request, NULL, timeout_ms, answer);
}
