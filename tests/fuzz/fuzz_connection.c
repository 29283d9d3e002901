/*
 * Bytes of one connection through everything that a gateway has: head gate, libmicrohttpd with its
 * chunked bodies, requests, body readers, slots. The first byte says how large the pieces are in
 * which the rest arrives; then the client half-closes and reads. Jobs are answered with their own
 * input by a worker that is played here. In the end the connection is gone, every slot is free
 * again, and what came back is HTTP.
 */
#include "gateway/http.h"
#include "gateway/metrics.h"

#include "unetserve/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define TURNS_MAX 20000
#define SLOTS     4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct gateway gateway;
static struct http http;
static uint16_t worker;
static struct sockaddr_un address = {.sun_family = AF_UNIX};

static void check(int condition)
{
    if (!condition)
        abort();
}

static void no_baton(void *opaque, const struct wire_baton *baton)
{
    (void)opaque, (void)baton;
}

static void publish_models(struct queue *queue)
{
    static const struct unetserve_interface interfaces[] = {
        {.name = "text",
         .version = "1",
         .input_kind = UNETSERVE_DOCUMENT,
         .output_kind = UNETSERVE_DOCUMENT,
         .size_multiple = 1,
         .max_batch = 1},
        {.name = "unet",
         .version = "1",
         .input_kind = UNETSERVE_TENSOR,
         .output_kind = UNETSERVE_TENSOR,
         .input_field = "image",
         .output_field = "output",
         .input_dtypes = 1u << UNETSERVE_U16 | 1u << UNETSERVE_F32,
         .channels = 1,
         .size_multiple = 1,
         .size_min = 1,
         .tile = 4,
         .max_batch = 2,
         .output_dtype = UNETSERVE_U8},
    };
    static const char *const routes[] = {"/predict", "/unet"};
    for (uint32_t i = 0; i < 2; i++) {
        gateway.config.models[i] = (struct config_model){
            .devices = "cpu", .timeout_ms = 600000, .run_timeout_ms = 600000};
        snprintf(gateway.config.models[i].route, sizeof gateway.config.models[i].route, "%s",
                 routes[i]);
        memcpy(gateway.config.models[i].name, interfaces[i].name, 5);
        check(queue_model_publish(queue, i, 1, worker, &interfaces[i]) == 0);
    }
    gateway.config.model_count = 2;
}

static void listen_here(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* An abstract name: nothing to remove. */
    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "unetserve-fuzz-%d", (int)getpid());
    check(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    check(listen(fd, 16) == 0 && dup2(fd, SEAT_FD_LISTEN) >= 0);
    if (fd != SEAT_FD_LISTEN)
        close(fd);
}

static void open_gateway(void)
{
    static const struct queue_geometry geometry = {
        .class_count = 1,
        .model_count = 2,
        .classes = {{.input_bytes = 4096, .output_bytes = 4096, .count = SLOTS}}};
    struct queue *queue = &gateway.seat.queue;
    log_init("fuzz", -1, LOG_FORMAT_TEXT, LOG_LEVEL_ERROR);
    check(queue_create(&geometry, queue) == 0);
    check(queue_process_enter(queue, QUEUE_GATEWAY, 0, &gateway.seat.index) == 0);
    check(queue_process_enter(queue, QUEUE_WORKER, 1, &worker) == 0);
    gateway.seat.role = QUEUE_GATEWAY;
    gateway.seat.event_fd = -1;
    config_init(&gateway.config);
    gateway.config.max_body_bytes = 65536;
    publish_models(queue);
    listen_here();
    metrics_open(&gateway.seat);
    models_init(&gateway.models, queue, &gateway.config);
    admit_init(&gateway.admit, queue, &gateway.config);
    jobs_init(&gateway.jobs, &gateway.seat, &gateway.config, no_baton, NULL);
    check(sd_event_new(&gateway.event) >= 0 && http_open(&http, &gateway) == 0);
}

/* A document comes back as it is, an image as labels that are 0. */
static void work(struct queue *queue, uint32_t at)
{
    struct queue_slot *slot = &queue->slots[at];
    uint64_t word = queue_word(queue, at);
    if (queue_word_state(word) != QUEUE_READY)
        return;
    check(queue_move(queue, QUEUE_BROKER, at, word, QUEUE_LEASED, worker, &word));
    check(queue_move(queue, QUEUE_WORKER, at, word, QUEUE_RUN, worker, &word));
    check(slot->input_bytes <= queue_input_capacity(queue, at));
    const struct unetserve_shape *shape = &slot->input_shape;
    slot->status = 200;
    slot->output_shape = (struct unetserve_shape){0};
    if (atomic_load(&slot->model) == 0) {
        memcpy(queue_output(queue, at), queue_input(queue, at), slot->input_bytes);
        slot->output_bytes = slot->input_bytes;
    } else {
        check(shape->rank == 3 || shape->rank == 4);
        bool batch = shape->rank == 4;
        const uint64_t *sides = &shape->dims[batch ? 2 : 1];
        slot->output_shape = (struct unetserve_shape){UNETSERVE_U8, batch ? 3 : 2, {0}};
        slot->output_shape.dims[0] = batch ? shape->dims[0] : sides[0];
        slot->output_shape.dims[1] = batch ? sides[0] : sides[1];
        slot->output_shape.dims[2] = batch ? sides[1] : 0;
        check(unetserve_shape_bytes(&slot->output_shape, &slot->output_bytes) == 0);
        check(slot->output_bytes <= queue_output_capacity(queue, at));
        memset(queue_output(queue, at), 0, slot->output_bytes);
    }
    check(queue_move(queue, QUEUE_WORKER, at, word, QUEUE_DONE, 0, NULL));
}

static void turn(void)
{
    check(sd_event_run(gateway.event, 0) >= 0);
    for (uint32_t i = 0; i < gateway.seat.queue.slot_count; i++)
        work(&gateway.seat.queue, i);
    jobs_check(&gateway.jobs);
}

/* Takes what has come. True when the stream has ended. */
static bool take_answers(int fd, char start[5], size_t *seen)
{
    char bytes[4096];
    for (;;) {
        ssize_t got = recvfrom(fd, bytes, sizeof bytes, MSG_DONTWAIT, NULL, NULL);
        if (got <= 0)
            return got == 0 || (errno != EAGAIN && errno != EINTR);
        for (ssize_t i = 0; i < got && *seen + (size_t)i < 5; i++)
            start[*seen + (size_t)i] = bytes[i];
        *seen += (size_t)got;
    }
}

static void converse(int fd, const uint8_t *data, size_t size, size_t piece)
{
    char start[5] = "";
    size_t sent = 0, seen = 0;
    bool over = false;
    for (int i = 0; i < TURNS_MAX; i++) {
        if (sent < size) {
            size_t length = size - sent < piece ? size - sent : piece;
            ssize_t got = send(fd, data + sent, length, MSG_DONTWAIT | MSG_NOSIGNAL);
            sent = got >= 0 ? sent + (size_t)got : errno == EAGAIN ? sent : size;
            if (sent == size)
                shutdown(fd, SHUT_WR);
        }
        turn();
        over = over || take_answers(fd, start, &seen);
        if (over && http.connections.count == 0 && http.lingerer.count == 0)
            break;
    }
    check(over && http.connections.count == 0 && http.lingerer.count == 0);
    check(seen == 0 || (seen >= 5 && memcmp(start, "HTTP/", 5) == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!gateway.event)
        open_gateway();
    if (size < 2)
        return 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    check(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    converse(fd, data + 1, size - 1, data[0] ? data[0] : size);
    close(fd);
    const struct queue *queue = &gateway.seat.queue;
    for (uint32_t i = 0; i < queue->slot_count; i++)
        check(queue_word_state(queue_word(queue, i)) == QUEUE_FREE);
    check(gateway.jobs.waiting_count == 0 && gateway.jobs.receiving_count == 0);
    return 0;
}
