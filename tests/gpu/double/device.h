/*
 * What the double's driver (fake_cuda.c) is made of: device memory that knows who wrote and read
 * each of its bytes, streams of operations, and our kernels.
 *
 * Everything that touches device memory is done by a party: a stream, the driver's own stream for
 * copies that the host waits for, or the host. A moment says how many operations of each party lie
 * before something, by streams' order, events and waits of the host. Two uses of one place, not
 * both reads, of which neither lies before the other are a race, in whatever order they ran here.
 */
#ifndef DEVICE_H
#define DEVICE_H

#include "double.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MOST_STREAMS 8
#define HOST         MOST_STREAMS
#define OWN_STREAM   (MOST_STREAMS + 1)
#define PARTIES      (MOST_STREAMS + 2)

struct moment {
    uint32_t before[PARTIES]; /* numbers of operations */
};

/* Who touches memory: its own number is before[party]. */
struct actor {
    const char *what; /* for messages */
    int party;
    struct moment moment;
};

void moment_join(struct moment *moment, const struct moment *other);

/* What the host has waited for, or done, so far. */
extern struct moment host_moment;

/* What the driver has put on its own stream. */
extern struct moment own_moment;

/* ---- device_memory.c ---- */

/* Between two guard pages; NaN in every type. NULL: there is not so much (GPUDOUBLE_MEMORY). */
void *memory_create(size_t bytes, bool host);

/* Whoever has used it must lie before the host's moment. */
void memory_destroy(void *data, bool host);

bool memory_holds(const void *data, size_t bytes, bool host);

/* Bytes that a device has, and of those that are not allocated. */
size_t memory_total(void);
size_t memory_free_bytes(void);

/* Device memory is in reach only while the device works. */
void memory_open(bool open);

/* Check and note a use of device memory. SPOIL: a write of nobody knows what. */
enum use { READ, WRITE, SPOIL };
void memory_use(const struct actor *actor, const void *data, size_t bytes, enum use use);

/* The same, for whoever works now; a kernel may also reach its stack. */
void memory_work(const struct actor *actor); /* NULL: nobody does */
void memory_touch(const void *data, size_t bytes, bool written);
void memory_work_use(const void *data, size_t bytes, enum use use);

/* The process's own memory, page-locked. False: some of it is locked already. */
bool locked_add(void *data, size_t bytes, bool read_only);
void locked_remove(void *data);
size_t locked_bytes(void);

/* One range holds all of it: no device takes two for one. */
bool locked_holds(const void *data, size_t bytes, bool written);

/* A copy uses memory of the host until the host knows that it is done. */
void host_use(const struct actor *actor, const void *data, size_t bytes);

/* Say what was allocated or locked and is still there. */
void memory_check_left(void);

/* ---- device_streams.c ---- */

enum kind { COPY, SET, KERNEL, WORK, RECORD, PAUSE };

struct operation {
    struct operation *next;
    enum kind kind;
    void *to;
    const void *from;
    size_t bytes;
    int value;
    uint64_t mark; /* of what a copy from the host finds there */
    const struct device_function *function;
    uint32_t threads;
    struct double_work work;
    struct event *event;
    uint64_t ticket;
    struct actor actor;
};

struct queue {
    struct operation *first;
    struct operation **end;
};

struct stream {
    bool used;
    bool capturing;
    uint64_t clock_ns; /* time of what it has run */
    struct moment moment;
    struct queue queue;
    struct queue captured;
};

struct event {
    bool alive;
    uint64_t recorded;
    uint64_t completed;
    struct stream *stream;
    struct moment moment; /* of its last record */
    bool timed;
    uint64_t time_ns; /* of its stream, when it came to it */
};

/* A graph, or an executable one. They stay, so that who uses one that is gone is seen. */
struct graph {
    bool alive;
    struct queue queue;
};

struct stream *stream_create(void);
void stream_destroy(struct stream *stream);
struct stream *stream_of(void *stream);
struct event *event_of(void *event);
struct graph *graph_of(void *graph);

void queue_append(struct queue *queue, const struct operation *from);
void queue_clear(struct queue *queue);

/* Put it on a stream; what it touches is noted when it runs. */
void stream_submit(struct stream *stream, const struct operation *operation);

/* Run until the stream is empty, or (not NULL) `event` has come that far. */
void stream_run(struct stream *stream, const struct event *event);
void streams_run_all(void);
size_t streams_used(void);

/* ---- device_kernels.cc ---- */

struct device_function {
    const char *name;
    size_t args_bytes;
    void (*run)(const void *args, uint32_t thread, uint32_t threads);
    bool loaded; /* its first launch has been */
};

extern struct device_function device_functions[]; /* the last one has no name */

/* What a copy of these bytes is known by. */
uint64_t double_mark(const void *data, size_t bytes);

/* ---- device_half.c ---- */

float double_from_half(uint16_t bits);
uint16_t double_to_half(float value);

/* ---- fake_calls.c ---- */

EXPORT double_tally_fn double_tally;

#ifdef __cplusplus
}
#endif

#endif
