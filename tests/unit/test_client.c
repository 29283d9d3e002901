/* libunetserve against a server that this test plays itself: a ROUTER in a thread that follows a
 * script. */
#include "lib/client/endpoint.h"
#include "unetserve/client.h"
#include "unetserve/protocol.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

enum script {
    ANSWER,
    STALE_FIRST,
    GARBAGE,
    LYING_SHAPE,
    THREE_FRAMES,
    EMPTY_FRAME,
    REFUSE,
    SILENT,
    HANG_UP
};

struct stage {
    char endpoint[128];
    void *context;
    void *socket;
    pthread_t thread;
    enum script script;
    struct protocol_request request; /* what came */
    size_t tensor_bytes;
    unsigned char first_byte;
};

/* ---- the server's side ---- */

static void send_reply(struct stage *stage, zmq_msg_t *client, const char *id, uint32_t status,
                       const struct unetserve_shape *shape, const char *body, size_t bytes)
{
    struct protocol_reply reply = {.status = status, .shape = *shape, .queue_ms = 2.5};
    unsigned char head[PROTOCOL_HEAD_MAX];
    snprintf(reply.id, sizeof reply.id, "%s", id);
    long length = protocol_reply_write(&reply, head, sizeof head);
    zmq_send(stage->socket, zmq_msg_data(client), zmq_msg_size(client), ZMQ_SNDMORE);
    if (stage->script == EMPTY_FRAME)
        zmq_send(stage->socket, "", 0, ZMQ_SNDMORE);
    zmq_send(stage->socket, head, (size_t)length, ZMQ_SNDMORE);
    if (stage->script == THREE_FRAMES)
        zmq_send(stage->socket, "more", 4, ZMQ_SNDMORE);
    zmq_send(stage->socket, body, bytes, 0);
}

static void play(struct stage *stage, zmq_msg_t *client)
{
    struct unetserve_shape mask = {UNETSERVE_U8, 2, {2, 3}};
    const struct unetserve_shape none = {UNETSERVE_NONE, 0, {0}};
    const char *id = stage->request.id;
    switch (stage->script) {
    case SILENT: break;
    case HANG_UP: break;
    case GARBAGE:
        zmq_send(stage->socket, zmq_msg_data(client), zmq_msg_size(client), ZMQ_SNDMORE);
        zmq_send(stage->socket, "\xdd\xff\xff\xff\xff", 5, 0);
        break;
    case LYING_SHAPE:
        mask.dims[0] = (uint64_t)1 << 62;
        send_reply(stage, client, id, 200, &mask, "abcdef", 6);
        break;
    case REFUSE: send_reply(stage, client, id, 422, &none, "{\"detail\":\"no\"}", 15); break;
    case STALE_FIRST:
        send_reply(stage, client, "somebody-elses", 200, &mask, "xxxxxx", 6);
        send_reply(stage, client, "", 200, &mask, "yyyyyy", 6);
        send_reply(stage, client, id, 200, &mask, "abcdef", 6);
        break;
    default: send_reply(stage, client, id, 200, &mask, "abcdef", 6); break;
    }
}

/* One request, then its script. */
static void *serve(void *argument)
{
    struct stage *stage = argument;
    zmq_msg_t frames[3];
    char error[160];
    int count = 0;
    for (bool more = true; more && count < 3; count++) {
        zmq_msg_init(&frames[count]);
        if (zmq_msg_recv(&frames[count], stage->socket, 0) < 0)
            return NULL;
        more = zmq_msg_more(&frames[count]);
    }
    if (count >= 2 && protocol_request_read(zmq_msg_data(&frames[1]), zmq_msg_size(&frames[1]),
                                            &stage->request, error, sizeof error) == 0) {
        if (count == 3) {
            stage->tensor_bytes = zmq_msg_size(&frames[2]);
            if (stage->tensor_bytes > 0)
                stage->first_byte = *(unsigned char *)zmq_msg_data(&frames[2]);
        }
        play(stage, &frames[0]);
    }
    if (stage->script == HANG_UP) {
        zmq_close(stage->socket);
        stage->socket = NULL;
    }
    for (int i = 0; i < count; i++)
        zmq_msg_close(&frames[i]);
    return NULL;
}

static void stage_open(struct stage *stage, enum script script)
{
    *stage = (struct stage){.script = script};
    stage->context = zmq_ctx_new();
    stage->socket = zmq_socket(stage->context, ZMQ_ROUTER);
    int linger = 1000;
    int patience_ms = 10000;
    zmq_setsockopt(stage->socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(stage->socket, ZMQ_RCVTIMEO, &patience_ms, sizeof patience_ms);
    assert_int_equal(zmq_bind(stage->socket, "tcp://127.0.0.1:*"), 0);
    size_t size = sizeof stage->endpoint;
    assert_int_equal(zmq_getsockopt(stage->socket, ZMQ_LAST_ENDPOINT, stage->endpoint, &size), 0);
    assert_int_equal(pthread_create(&stage->thread, NULL, serve, stage), 0);
}

static void stage_close(struct stage *stage)
{
    pthread_join(stage->thread, NULL);
    if (stage->socket)
        zmq_close(stage->socket);
    zmq_ctx_term(stage->context);
}

/* ---- the client's side ---- */

static int ask(enum script script, int timeout_ms, struct stage *stage,
               struct unetserve_answer *answer)
{
    static const unsigned char pixels[2 * 2 * 3 * 2] = {77};
    const struct unetserve_tensor tile = {{UNETSERVE_U16, 3, {2, 2, 3}}, pixels, sizeof pixels};
    struct unetserve_client *client;
    stage_open(stage, script);
    assert_int_equal(unetserve_client_open(stage->endpoint, &client), 0);
    int rc = unetserve_client_predict(client, "m", &tile, timeout_ms, answer);
    stage_close(stage);
    unetserve_client_close(client);
    return rc;
}

static void assert_mask(struct unetserve_answer *answer)
{
    assert_int_equal(answer->status, 200);
    assert_int_equal(answer->bytes, 6);
    assert_memory_equal(answer->data, "abcdef", 6);
    assert_int_equal(answer->shape.rank, 2);
    assert_true(answer->queue_ms == 2.5);
    unetserve_answer_free(answer);
    assert_null(answer->data);
}

static void predict_sends_and_takes(void **state)
{
    (void)state;
    struct stage stage;
    struct unetserve_answer answer;
    assert_int_equal(ask(ANSWER, 10000, &stage, &answer), 0);
    assert_string_equal(answer.request_id, stage.request.id);
    assert_mask(&answer);
    assert_string_equal(stage.request.model, "m");
    assert_int_equal(stage.request.shape.dtype, UNETSERVE_U16);
    assert_int_equal(stage.request.shape.dims[2], 3);
    assert_int_equal(stage.request.timeout_ms, 10000);
    assert_int_equal(stage.tensor_bytes, 24);
    assert_int_equal(stage.first_byte, 77);
}

static void answers_of_others_are_dropped(void **state)
{
    (void)state;
    struct stage stage;
    struct unetserve_answer answer;
    assert_int_equal(ask(STALE_FIRST, 10000, &stage, &answer), 0);
    assert_mask(&answer);
}

static void echoed_empty_frame_is_taken(void **state)
{
    (void)state;
    struct stage stage;
    struct unetserve_answer answer;
    assert_int_equal(ask(EMPTY_FRAME, 10000, &stage, &answer), 0);
    assert_mask(&answer);
}

static void refusal_is_an_answer(void **state)
{
    (void)state;
    struct stage stage;
    struct unetserve_answer answer;
    assert_int_equal(ask(REFUSE, 10000, &stage, &answer), 0);
    assert_int_equal(answer.status, 422);
    assert_string_equal(answer.data, "{\"detail\":\"no\"}");
    unetserve_answer_free(&answer);
}

static void senseless_answers_are_told(void **state)
{
    (void)state;
    const enum script scripts[] = {GARBAGE, LYING_SHAPE, THREE_FRAMES};
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        struct stage stage;
        struct unetserve_answer answer = {.status = -1};
        assert_int_equal(ask(scripts[i], 10000, &stage, &answer), -EBADMSG);
        assert_int_equal(answer.status, -1);
    }
}

static void silence_times_out(void **state)
{
    (void)state;
    struct stage stage;
    struct unetserve_answer answer;
    assert_int_equal(ask(SILENT, 200, &stage, &answer), -ETIMEDOUT);
}

/* A request that can have no answer any more does not wait for it. */
static void broken_connection_is_told(void **state)
{
    (void)state;
    static const unsigned char pixel = 0;
    const struct unetserve_tensor tile = {{UNETSERVE_U8, 3, {1, 1, 1}}, &pixel, 1};
    struct unetserve_client *client;
    struct unetserve_answer answer;
    struct stage stage;
    stage_open(&stage, HANG_UP);
    assert_int_equal(unetserve_client_open(stage.endpoint, &client), 0);
    assert_int_equal(unetserve_client_predict(client, NULL, &tile, 600000, &answer), -EIO);
    stage_close(&stage);
    unetserve_client_close(client);
}

/* Nobody there: the request waits its time, and the handle is good for the next one. */
static void handle_survives_a_time_out(void **state)
{
    (void)state;
    const unsigned char pixel = 0;
    const struct unetserve_tensor tile = {{UNETSERVE_U8, 3, {1, 1, 1}}, &pixel, 1};
    struct unetserve_client *client;
    struct unetserve_answer answer;
    char endpoint[] = "ipc:///tmp/unetserve-test-XXXXXX";
    int fd = mkstemp(endpoint + strlen("ipc://"));
    assert_true(fd >= 0);
    close(fd);
    unlink(endpoint + strlen("ipc://"));
    assert_int_equal(unetserve_client_open(endpoint, &client), 0);
    assert_int_equal(unetserve_client_predict(client, NULL, &tile, 50, &answer), -ETIMEDOUT);

    struct stage stage;
    stage_open(&stage, ANSWER);
    assert_int_equal(zmq_unbind(stage.socket, stage.endpoint), 0);
    assert_int_equal(zmq_bind(stage.socket, endpoint), 0);
    assert_int_equal(unetserve_client_predict(client, NULL, &tile, 10000, &answer), 0);
    /* The server saw the second request, not the one that was given up. */
    assert_int_equal(stage.request.timeout_ms, 10000);
    assert_mask(&answer);
    stage_close(&stage);
    unetserve_client_close(client);
    unlink(endpoint + strlen("ipc://"));
}

static void wrong_input_is_refused_here(void **state)
{
    (void)state;
    const unsigned char pixels[4] = {0};
    struct unetserve_tensor tile = {{UNETSERVE_U8, 3, {1, 2, 2}}, pixels, 3};
    struct unetserve_client *client;
    struct unetserve_answer answer;
    assert_int_equal(unetserve_client_open("tcp://127.0.0.1:9", &client), 0);
    assert_int_equal(unetserve_client_predict(client, NULL, &tile, 10, &answer), -EINVAL);
    tile.bytes = 4;
    tile.shape.dims[0] = UINT64_MAX;
    assert_int_equal(unetserve_client_predict(client, NULL, &tile, 10, &answer), -EINVAL);
    tile.shape.dims[0] = 1;
    assert_int_equal(unetserve_client_predict(client, NULL, &tile, -1, &answer), -EINVAL);
    unetserve_client_close(client);
    assert_int_equal(unetserve_client_open("no such thing", &client), -EINVAL);
}

/* ---- finding one ---- */

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static void endpoint_is_the_only_live_one(void **state)
{
    (void)state;
    char root[] = "/tmp/unetserve-find-XXXXXX";
    char path[2][128];
    char text[ENDPOINT_MAX];
    assert_non_null(mkdtemp(root));
    setenv("XDG_RUNTIME_DIR", root, 1);
    unsetenv("UNETSERVE_ENDPOINT");
    char directory[64];
    snprintf(directory, sizeof directory, "%s/unetserve", root);
    assert_int_equal(mkdir(directory, 0700), 0);
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/unetserve/%d", root, i);
        assert_int_equal(mkdir(path[i], 0700), 0);
        snprintf(path[i], sizeof path[i], "%s/unetserve/%d/client.ipc", root, i);
    }
    int first = listen_at(path[0]);
    int second = listen_at(path[1]);
    assert_int_equal(endpoint_find(text, sizeof text), -EBUSY);
    assert_non_null(strstr(text, path[0]));
    assert_non_null(strstr(text, path[1]));
    /* Its file stays, but nobody listens any more. */
    close(first);
    char expected[160];
    snprintf(expected, sizeof expected, "ipc://%s", path[1]);
    assert_int_equal(endpoint_find(text, sizeof text), 0);
    assert_string_equal(text, expected);
    setenv("UNETSERVE_ENDPOINT", "tcp://127.0.0.1:1", 1);
    assert_int_equal(endpoint_find(text, sizeof text), 0);
    assert_string_equal(text, "tcp://127.0.0.1:1");
    unsetenv("UNETSERVE_ENDPOINT");
    close(second);
    for (int i = 0; i < 2; i++) {
        unlink(path[i]);
        *strrchr(path[i], '/') = 0;
        rmdir(path[i]);
    }
    rmdir(directory);
    rmdir(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(predict_sends_and_takes),
        cmocka_unit_test(answers_of_others_are_dropped),
        cmocka_unit_test(echoed_empty_frame_is_taken),
        cmocka_unit_test(refusal_is_an_answer),
        cmocka_unit_test(senseless_answers_are_told),
        cmocka_unit_test(silence_times_out),
        cmocka_unit_test(broken_connection_is_told),
        cmocka_unit_test(handle_survives_a_time_out),
        cmocka_unit_test(wrong_input_is_refused_here),
        cmocka_unit_test(endpoint_is_the_only_live_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
