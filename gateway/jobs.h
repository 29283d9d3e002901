/*
 * Jobs: a request's way through a slot, whoever sent it (http.c, front_zmq.c). A job is
 *
 * - RECEIVING: slot in RECV; the body is decoded into its input area as it arrives
 * - WAITING: slot in READY..FAILED; accepted, ends by the answer or by its deadline
 * - STREAMING: slot in STREAM; its first item was there, the front takes them out as it can
 * - ENDED: the slot is free, the front takes the last items out
 * - FORGOTTEN: its front has gone away or has been answered 504; the job only waits to free its
 *   slot
 *
 * The front holds a job from job_open until its done function was called, or until it calls
 * job_drop. A streaming model's answer comes by `ready` and job_take instead of `done`; a job that
 * comes to nothing before its first item still ends by `done`. Deadlines: one for the queue, one
 * for everything; both end in 504.
 */
#ifndef GATEWAY_JOBS_H
#define GATEWAY_JOBS_H

#include "gateway/items.h"
#include "gateway/models.h"
#include "gateway/spare.h"

#include "unetserve/body_reader.h"
#include "unetserve/seat.h"
#include "unetserve/wire.h"

/* LINES, EVENTS: of a streaming model's answer, one JSON line an item, or server-sent events.
 * JSON_PNG: the PNG file in base64 in JSON, what JSON becomes for who asked in that way. */
enum job_form { JOB_TENSOR, JOB_JSON, JOB_NPY, JOB_PNG, JOB_LINES, JOB_EVENTS, JOB_JSON_PNG };

struct job;

struct job_times {
    double receive_ms, queue_ms, forward_ms, encode_ms;
};

struct job_outcome {
    int status;       /* as HTTP's */
    const char *type; /* of the body; static */
    void *body;       /* malloc'd; the done function takes it over */
    size_t size;
    struct unetserve_shape shape; /* JOB_TENSOR with status 200; rank 0 otherwise */
    struct job_times times;
};

/* Called from jobs_collect, jobs_check and jobs_give_up only; the job is no more the caller's when
 * it is called.
 */
typedef void job_done(void *opaque, const struct job_outcome *outcome);

/* Called from there too: job_take has something, for the first time or since it last had not. */
typedef void job_ready(void *opaque);

typedef void baton_send(void *opaque, const struct wire_baton *baton);

struct jobs {
    struct seat *seat;
    const struct config *config;
    baton_send *baton;
    void *baton_opaque;
    bool baton_due;
    uint16_t next_worker; /* process index: to be called for what has been submitted; 0: none */
    struct wire_baton next_baton;
    struct job *waiting[QUEUE_MAX_SLOTS]; /* WAITING and FORGOTTEN, in no order */
    uint32_t waiting_count;
    uint32_t receiving_count;
    struct spare spare; /* of struct job */
};

struct job_order {
    struct model_view *view; /* the job takes a reference of its own */
    enum body_format format;
    const char *content_type;            /* BODY_MULTIPART */
    const struct unetserve_shape *shape; /* BODY_RAW; BODY_MULTIPART, or of rank 0 */
    uint64_t body_bytes;                 /* that are announced; UINT64_MAX: unknown */
    enum job_form form;
    const char *request_id;
    uint64_t timeout_ms; /* how long the whole request is worth waiting for; 0: as configured */
    uint64_t begun_ns;   /* when the head came */
    int32_t priority;    /* higher first; 0 is usual */
    job_ready *ready;    /* streaming models only */
};

void jobs_init(struct jobs *jobs, struct seat *seat, const struct config *config, baton_send *baton,
               void *baton_opaque);

/* Forget everything that is left: process exit. Slots are left to the supervisor's standing rules.
 */
void jobs_close(struct jobs *jobs);

/* Reserve a slot and get ready to decode. 0 with *out, or -1 with *problem (413, 422, 503). */
int job_open(struct jobs *jobs, const struct job_order *order, job_done *done, void *opaque,
             struct problem *problem, struct job **out);

/* A piece of the body. 0, or -1 with *problem; then only job_drop may follow. */
int job_feed(struct job *job, const void *bytes, size_t size, struct problem *problem);

/* The body is whole: hand the job over. 0: `done` will be called. -1 with *problem; then only
 * job_drop may follow. */
int job_submit(struct job *job, struct problem *problem);

/* Tell workers and the broker of what has been submitted since the last call. */
void jobs_pass_on(struct jobs *jobs);

/* The next item of the answer, in memory that lives until the next call; at its end only job_drop
 * may follow. From the first `ready` on. */
enum items_next job_take(struct job *job, const char **bytes, size_t *size);

/* Nobody wants it any more, at any time before `done`. */
void job_drop(struct job *job);

/* Look for jobs that have come back. */
void jobs_collect(struct jobs *jobs);

/* The same, and deadlines. To be called every 50-100 ms while waiting_count is not 0. */
void jobs_check(struct jobs *jobs);

/* The process is about to end: what has come back is answered, the rest is told so with 503, or by
 * a stream's last item. */
void jobs_give_up(struct jobs *jobs);

#endif
