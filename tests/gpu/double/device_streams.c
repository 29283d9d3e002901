/* The double's streams: queues of operations that run when somebody waits for them (device.h). */
#include "device.h"

#include <stdlib.h>
#include <string.h>

static struct stream streams[MOST_STREAMS];

/* ---- what there is ---- */

struct stream *stream_create(void)
{
    for (size_t i = 0; i < MOST_STREAMS; i++) {
        if (!streams[i].used) {
            /* Numbers go on where an earlier stream of that place left off. */
            uint32_t number = streams[i].moment.before[i];
            streams[i] = (struct stream){.used = true, .moment = host_moment};
            streams[i].moment.before[i] = number;
            return &streams[i];
        }
    }
    double_abort("too many streams");
}

void stream_destroy(struct stream *stream)
{
    stream_run(stream, NULL);
    stream->used = false;
}

struct stream *stream_of(void *stream)
{
    struct stream *found = (struct stream *)stream;
    if (found < streams || found >= streams + MOST_STREAMS || !found->used) {
        double_abort("a stream that there is not");
    }
    return found;
}

size_t streams_used(void)
{
    size_t count = 0;
    for (size_t i = 0; i < MOST_STREAMS; i++) {
        count += streams[i].used;
    }
    return count;
}

struct event *event_of(void *event)
{
    struct event *found = (struct event *)event;
    if (found == NULL || !found->alive) {
        double_abort("an event that there is not");
    }
    return found;
}

struct graph *graph_of(void *graph)
{
    struct graph *found = (struct graph *)graph;
    if (found == NULL || !found->alive) {
        double_abort("a graph that there is not");
    }
    return found;
}

/* ---- queues ---- */

void queue_append(struct queue *queue, const struct operation *from)
{
    struct operation *made = (struct operation *)malloc(sizeof *made);
    if (made == NULL) {
        double_abort("no memory");
    }
    *made = *from;
    made->next = NULL;
    if (from->work.argument != NULL) {
        made->work.argument = malloc(from->work.bytes);
        if (made->work.argument == NULL) {
            double_abort("no memory");
        }
        memcpy(made->work.argument, from->work.argument, from->work.bytes);
    }
    if (queue->first == NULL) {
        queue->end = &queue->first;
    }
    *queue->end = made;
    queue->end = &made->next;
}

static void operation_free(struct operation *operation)
{
    free(operation->work.argument);
    free(operation);
}

void queue_clear(struct queue *queue)
{
    while (queue->first != NULL) {
        struct operation *operation = queue->first;
        queue->first = operation->next;
        operation_free(operation);
    }
}

/* ---- order ---- */

static const char *name_of(const struct operation *operation)
{
    static const char *const names[] = {
        [COPY] = "a copy",        [SET] = "a memset",    [KERNEL] = "a kernel",
        [WORK] = "a convolution", [RECORD] = "an event", [PAUSE] = "a wait",
    };
    return operation->kind == KERNEL ? operation->function->name : names[operation->kind];
}

/* What has no place in the order yet, since it is only captured, gets one when it is launched. */
static void put_in_order(struct stream *stream, struct operation *operation)
{
    int party = (int)(stream - streams);
    moment_join(&stream->moment, &host_moment);
    if (operation->kind == PAUSE) {
        moment_join(&stream->moment, &operation->event->moment);
    }
    stream->moment.before[party]++;
    if (operation->kind == RECORD) {
        operation->event->moment = stream->moment;
    }
    operation->actor = (struct actor){name_of(operation), party, stream->moment};
    if (operation->kind == COPY) {
        bool to_host = memory_holds(operation->from, operation->bytes, false);
        host_use(&operation->actor, to_host ? operation->to : operation->from, operation->bytes);
    }
}

void stream_submit(struct stream *stream, const struct operation *operation)
{
    struct operation placed = *operation;
    if (stream->capturing) {
        queue_append(&stream->captured, &placed);
        return;
    }
    put_in_order(stream, &placed);
    queue_append(&stream->queue, &placed);
}

/* ---- running ---- */

static void copy(const struct operation *operation)
{
    const struct actor *actor = &operation->actor;
    if (memory_holds(operation->to, operation->bytes, false)) {
        memory_use(actor, operation->to, operation->bytes, WRITE);
        if (double_mark(operation->from, operation->bytes) != operation->mark) {
            double_abort("memory was written that a copy to the device had yet to read");
        }
    } else {
        memory_use(actor, operation->from, operation->bytes, READ);
    }
    memcpy(operation->to, operation->from, operation->bytes);
}

/* Threads run in any order: streams that come late have theirs backwards. */
static void run_kernel(const struct operation *operation, bool backwards)
{
    memory_work(&operation->actor);
    for (uint32_t i = 0; i < operation->threads; i++) {
        uint32_t thread = backwards ? operation->threads - 1 - i : i;
        operation->function->run(operation->work.argument, thread, operation->threads);
    }
    memory_work(NULL);
}

static void perform(const struct operation *operation, bool late)
{
    switch (operation->kind) {
    case COPY: copy(operation); break;
    case SET:
        memory_use(&operation->actor, operation->to, operation->bytes, WRITE);
        memset(operation->to, operation->value, operation->bytes);
        break;
    case KERNEL: run_kernel(operation, late); break;
    case WORK:
        memory_work(&operation->actor);
        operation->work.run(operation->work.argument);
        memory_work(NULL);
        break;
    case RECORD: operation->event->completed = operation->ticket; break;
    case PAUSE: break;
    }
}

static bool can_step(const struct stream *stream)
{
    const struct operation *operation = stream->queue.first;
    return operation != NULL &&
           (operation->kind != PAUSE || operation->event->completed >= operation->ticket);
}

/* Could a device have copied here while it computes there? */
static void note_overlap(const struct stream *copying)
{
    for (size_t i = 0; i < MOST_STREAMS; i++) {
        const struct operation *other = streams[i].queue.first;
        if (&streams[i] != copying && other != NULL &&
            (other->kind == KERNEL || other->kind == WORK)) {
            double_tally(DOUBLE_OVERLAP);
            return;
        }
    }
}

/* Run a stream's next operation. False: there is none, or it waits. */
static bool stream_step(struct stream *stream, bool late)
{
    struct operation *operation = stream->queue.first;
    if (!can_step(stream)) {
        return false;
    }
    if (operation->kind == COPY) {
        note_overlap(stream);
    }
    stream->queue.first = operation->next;
    perform(operation, late);
    stream->clock_ns += operation->kind == WORK ? operation->work.takes_ns : 1000;
    if (operation->kind == RECORD) {
        operation->event->time_ns = stream->clock_ns;
    }
    operation_free(operation);
    return true;
}

void stream_run(struct stream *stream, const struct event *event)
{
    const char *order = getenv("GPUDOUBLE_ORDER");
    bool late = order != NULL && strcmp(order, "late") == 0;
    memory_open(true);
    while (event != NULL ? event->completed < event->recorded : stream->queue.first != NULL) {
        bool moved = false;
        for (size_t i = 0; i < MOST_STREAMS; i++) {
            if (!late || (&streams[i] == stream)) {
                moved |= stream_step(&streams[i], late);
            }
        }
        for (size_t i = 0; i < MOST_STREAMS && !moved; i++) {
            moved = stream_step(&streams[i], late);
        }
        if (!moved) {
            double_abort("streams wait for each other, or for an event that nobody records");
        }
    }
    memory_open(false);
}

void streams_run_all(void)
{
    for (size_t i = 0; i < MOST_STREAMS; i++) {
        if (streams[i].used) {
            stream_run(&streams[i], NULL);
        }
    }
}
