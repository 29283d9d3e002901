/*
 * One job in a worker's hands: a private copy of what its slot says, checked before any of it is
 * used, and the moves of the slot's word that are the worker's to make.
 */
#ifndef JOB_H
#define JOB_H

#include "unetserve/model.h"
#include "unetserve/queue.h"

#include <stdbool.h>

struct fields;

struct job {
    uint32_t slot;
    uint32_t reply_to;
    uint64_t word; /* as this worker knows it last */
    uint32_t model;
    uint32_t generation; /* of the model */
    int32_t priority;
    uint32_t tiles;
    uint64_t accepted_ns;
    uint64_t deadline_ns;
    uint64_t started_ns;
    uint64_t encode_ns;
    uint64_t run_timeout_ns;
    struct ring ring;     /* the output area, for a stream */
    enum image_file file; /* the input is such a file, and these are its bytes */
    const void *file_bytes;
    size_t file_size;
    void *pixels;  /* malloc'd: what the file was expanded to; or NULL */
    void *scratch; /* malloc'd: a streaming item's output, which is not the slot's; or NULL */
    struct fields *fields;      /* what item.values points to, where fields are declared; or NULL */
    struct unetserve_item item; /* host_item is this struct, set by job_reset_item */
    char request_id[QUEUE_ID_MAX];
    uint32_t batch; /* jobs that ran together */
    bool alone;     /* somebody has died on it */
    bool sound;     /* rank, lengths and offsets fit the slot and the mapping */
    bool held;      /* by the worker, from its start to its outcome */
    bool pending;   /* the model answers it later */
    bool told;      /* and knows that nobody waits */
    uint64_t told_ns;
    uint64_t flight;        /* the number of its batch on the device, from 1 */
    _Atomic int completion; /* by the model, from any thread: 0 not yet, 1 done, or its error */
    bool given_up; /* the cancel flag was seen: the outcome is FAILED whatever the model made of it
                    */
};

/* Copy slot's fields, as they were while it had that word. An unsound job comes out with sound =
 * false and an empty input. */
void job_read(const struct queue *queue, uint32_t slot, uint64_t word, struct job *out);

/* Expand an image file, so that the input is a tensor like any other. 0 and status 200, or the file
 * is refused (without memory with 503): the item's status and output say so; -ECANCELED, or
 * -ENOSPC: no room for the refusal. */
int job_expand(struct job *job, const struct unetserve_host *host);

/* Does the input fit what the model takes? The gateway has checked that already; a worker does not
 * rely on it. */
bool job_fits(const struct job *job, const struct unetserve_interface *interface);

/* May both go through the network together: equal shapes, and nobody has died on either? */
bool job_batches_with(const struct job *a, const struct job *b);

/* Tiles of the first of those jobs, of which there is one at least, and of those that may run
 * together with it. */
uint64_t job_count_tiles(const struct job *jobs, size_t count);

/* LEASED -> RUN. False: it was taken away. */
bool job_start(struct queue *queue, uint16_t self, struct job *job);

/* The item as it was before the model saw it. */
void job_reset_item(struct job *job);

/* For a streaming model, after job_start: its output is memory apart, the slot's output area a
 * ring. 0 or -ENOMEM. */
int job_prepare_stream(struct queue *queue, struct job *job);

/* Has an item gone into the ring? */
bool job_has_streamed(const struct job *job);

/* Memory that goes with a job. */
void job_forget(struct job *job);

/* Has its client left, or its time run out? Once true, always true. */
bool job_cancelled(const struct queue *queue, struct job *job);

/* Did the model write an answer that can be passed on? False with a reason. */
bool job_answer_sound(const struct job *job, const struct unetserve_interface *interface,
                      const char **reason);

/* RUN -> DONE (STREAM -> DONE) with the item's status and output, RUN -> FAILED; then its gateway
 * is woken. Where the word has moved on, because the supervisor took this worker for dead, nothing
 * happens. */
void job_done(struct queue *queue, struct job *job);
void job_failed(struct queue *queue, struct job *job);

#endif
