/*
 * Bytes of one connection through everything that a gateway has: head gate, libmicrohttpd with its
 * chunked bodies, requests, body readers, slots. The first byte says how large the pieces are in
 * which the rest arrives, and whether the client reads meanwhile, or late; after the last piece it
 * half-closes. Jobs are answered with their own
 * input by a worker that is played here. In the end the connection is gone, and not because of the
 * sweep over all connections, which never comes here; every slot is free again, and what came back
 * is HTTP.
 */
#include "gateway/http.h"
#include "gateway/metrics.h"
#include "tests/image_interface.h"

#include "unetserve/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define IDLE_TURNS_MAX                                                                             \
    20000 /* without a byte going either way; a gateway that is right needs few */
#define SLOTS 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct gateway gateway;
static struct http http;
static uint16_t worker;
static sd_event_source *woken;
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
        {.name = "unet", IMAGE_INTERFACE, .channels = 1, .size_min = 1, .tile = 4, .max_batch = 2},
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

/* As the gateway is woken by a worker: within the loop, which goes on to what comes after a turn.
 */
static int on_woken(sd_event_source *source, void *opaque)
{
    (void)source, (void)opaque;
    jobs_collect(&gateway.jobs);
    return 0;
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
    check(sd_event_add_defer(gateway.event, &woken, on_woken, NULL) >= 0);
    check(sd_event_source_set_enabled(woken, SD_EVENT_OFF) >= 0);
    http.sweeping = true; /* so that no sweep is begun */
}

/* A document comes back as it is, an image as labels that are 0. True: a job has been done. */
static bool work(struct queue *queue, uint32_t at)
{
    struct queue_slot *slot = &queue->slots[at];
    uint64_t word = queue_word(queue, at);
    if (queue_word_state(word) != QUEUE_READY)
        return false;
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
    return true;
}

/* As gateway.c's, but for the number of steps: here each piece comes after one. */
static void turn(void)
{
    int handled = sd_event_run(gateway.event, 0);
    check(handled >= 0);
    if (handled > 0) {
        gateway.front.go_on(gateway.front.opaque);
        gateway.front.turn_over(gateway.front.opaque);
    }
    bool done = false;
    for (uint32_t i = 0; i < gateway.seat.queue.slot_count; i++)
        done |= work(&gateway.seat.queue, i);
    if (done)
        check(sd_event_source_set_enabled(woken, SD_EVENT_ONESHOT) >= 0);
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

/* Sends the next piece, or ends the stream after the last one. */
static void send_piece(int fd, const uint8_t *data, size_t size, size_t piece, size_t *sent)
{
    size_t length = size - *sent < piece ? size - *sent : piece;
    ssize_t got = send(fd, data + *sent, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    *sent = got >= 0 ? *sent + (size_t)got : errno == EAGAIN ? *sent : size;
    if (*sent == size)
        shutdown(fd, SHUT_WR);
}

/* True: a client that reads late goes on waiting. What it reads makes room in the socket, and so an
 * event: libmicrohttpd must not need that to find that nothing more comes. */
static bool is_late(int idle, bool *begun)
{
    const struct connection *connection = http.connections.first;
    *begun = *begun || connection;
    if (idle < IDLE_TURNS_MAX / 2 && (connection || !*begun))
        return true;
    check(!connection || !connection_idle(connection));
    return false;
}

static void converse(int fd, const uint8_t *data, size_t size, size_t piece, bool late)
{
    char start[5] = "";
    size_t sent = 0, seen = 0;
    bool begun = false, over = false;
    for (int idle = 0; idle < IDLE_TURNS_MAX; idle++) {
        size_t before = sent + seen;
        if (sent < size)
            send_piece(fd, data, size, piece, &sent);
        turn();
        late = late && is_late(idle, &begun);
        over = over || (!late && take_answers(fd, start, &seen));
        if (over && http.connections.count == 0 && http.lingerer.count == 0)
            break;
        if (sent + seen != before)
            idle = 0;
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
    size_t piece = data[0] & 0x7f;
    converse(fd, data + 1, size - 1, piece ? piece : size, data[0] & 0x80);
    close(fd);
    const struct queue *queue = &gateway.seat.queue;
    for (uint32_t i = 0; i < queue->slot_count; i++)
        check(queue_word_state(queue_word(queue, i)) == QUEUE_FREE);
    check(gateway.jobs.waiting_count == 0 && gateway.jobs.receiving_count == 0);
    return 0;
}
