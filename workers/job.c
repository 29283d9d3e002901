#include "workers/job.h"
#include "unetserve/problem.h"
#include "unetserve/seat.h"
#include "workers/fields.h"
#include "workers/image_library.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A refusal, or an item that the worker writes from values. */
#define JOB_SCRATCH_MAX ((size_t)64 << 10)

static bool shape_sound(const struct unetserve_shape *shape, uint64_t bytes)
{
    if (shape->rank == 0)
        return true; /* a document: any length */
    uint64_t expected;
    return shape->rank <= UNETSERVE_MAX_DIMS && unetserve_shape_bytes(shape, &expected) == 0 &&
           expected == bytes;
}

static uint32_t count_tiles(const struct unetserve_shape *shape)
{
    if (shape->rank != 4 || shape->dims[0] == 0)
        return 1;
    return shape->dims[0] > UINT32_MAX ? UINT32_MAX : (uint32_t)shape->dims[0];
}

/* Its slot would hold the pixels too. */
static bool file_sound(const struct job *job, uint64_t capacity)
{
    const struct unetserve_shape *shape = &job->item.input_shape;
    uint64_t pixels;
    return job->file <= IMAGE_FILE_PNG && shape->rank == 3 &&
           unetserve_shape_bytes(shape, &pixels) == 0 && pixels <= capacity;
}

static void read_areas(const struct queue *queue, uint32_t slot, struct job *job)
{
    const struct queue_slot *from = &queue->slots[slot];
    uint64_t capacity = queue_input_capacity(queue, slot);
    job->item.input_bytes = from->input_bytes;
    job->item.input_shape = from->input_shape;
    job->file = (enum image_file)from->input_file;
    job->sound = job->item.input_bytes <= capacity &&
                 (job->file ? file_sound(job, capacity)
                            : shape_sound(&job->item.input_shape, job->item.input_bytes));
    if (!job->sound) {
        job->item.input_bytes = 0;
        job->item.input_shape = (struct unetserve_shape){0};
        return;
    }
    job->item.input = queue_input(queue, slot);
    job->file_bytes = job->item.input;
    job->file_size = job->item.input_bytes;
    job->item.output = queue_output(queue, slot);
    job->item.output_capacity = queue_output_capacity(queue, slot);
}

void job_read(const struct queue *queue, uint32_t slot, uint64_t word, struct job *out)
{
    const struct queue_slot *from = &queue->slots[slot];
    *out = (struct job){
        .slot = slot,
        .word = word,
        .reply_to = atomic_load(&from->reply_to),
        .model = atomic_load(&from->model),
        .generation = atomic_load(&from->model_generation),
        .priority = atomic_load(&from->priority),
        .accepted_ns = atomic_load(&from->accepted_ns),
        .deadline_ns = atomic_load(&from->deadline_ns),
        .run_timeout_ns = atomic_load(&from->run_timeout_ns),
        .alone = queue_word_faults(word) || queue_word_kills(word),
    };
    memcpy(out->request_id, from->request_id, sizeof out->request_id);
    out->request_id[sizeof out->request_id - 1] = '\0';
    read_areas(queue, slot, out);
    out->alone = out->alone || !out->sound;
    out->tiles = count_tiles(&out->item.input_shape);
}

static bool size_fits(uint64_t size, const struct unetserve_interface *interface)
{
    uint32_t multiple = interface->size_multiple ? interface->size_multiple : 1;
    return size > 0 && size >= interface->size_min && size % multiple == 0 &&
           (interface->size_max == 0 || size <= interface->size_max);
}

bool job_fits(const struct job *job, const struct unetserve_interface *interface)
{
    const struct unetserve_shape *shape = &job->item.input_shape;
    if (!job->sound)
        return false;
    if (interface->input_kind == UNETSERVE_DOCUMENT)
        return shape->rank == 0;
    if (shape->rank != 3 && shape->rank != 4)
        return false;
    const uint64_t *image = shape->dims + (shape->rank - 3);
    return shape->dtype < 32 && (interface->input_dtypes >> shape->dtype & 1) &&
           (shape->rank == 3 || shape->dims[0] > 0) && image[0] == interface->channels &&
           size_fits(image[1], interface) && size_fits(image[2], interface);
}

bool job_batches_with(const struct job *a, const struct job *b)
{
    const struct unetserve_shape *x = &a->item.input_shape;
    const struct unetserve_shape *y = &b->item.input_shape;
    if (a->alone || b->alone || x->rank != y->rank)
        return false;
    if (x->rank == 0)
        return true; /* documents: whatever type their shapes happen to say */
    return x->dtype == y->dtype && memcmp(x->dims, y->dims, x->rank * sizeof x->dims[0]) == 0;
}

uint64_t job_count_tiles(const struct job *jobs, size_t count)
{
    uint64_t tiles = jobs[0].tiles;
    for (size_t i = 1; i < count; i++)
        tiles += job_batches_with(&jobs[0], &jobs[i]) ? jobs[i].tiles : 0;
    return tiles;
}

bool job_start(struct queue *queue, uint16_t self, struct job *job)
{
    job->started_ns = queue_now_ns();
    if (!queue_move(queue, QUEUE_WORKER, job->slot, job->word, QUEUE_RUN, self, &job->word))
        return false;
    /* After the move: a lease may be taken back, and then the slot is another's. Whoever sees RUN
     * before this store reads 0, which the gateway wrote in RECV and the supervisor writes before a
     * second run. */
    atomic_store(&queue->slots[job->slot].started_ns, job->started_ns);
    return true;
}

void job_reset_item(struct job *job)
{
    struct unetserve_item *item = &job->item;
    item->request_id = job->request_id;
    item->host_item = job;
    atomic_store(&job->completion, 0);
    item->user = NULL;
    item->status = 200;
    item->output_bytes = 0;
    item->output_shape = (struct unetserve_shape){0};
}

/* ---- image files ---- */

struct expanding {
    const struct unetserve_host *host;
    const struct unetserve_item *item;
};

static bool go_on(void *opaque)
{
    const struct expanding *expanding = opaque;
    expanding->host->tick(expanding->host);
    return !expanding->host->cancelled(expanding->host, expanding->item);
}

static int refuse_file(struct unetserve_item *item, const struct problem *problem)
{
    size_t size = strlen(problem->body);
    if (size > item->output_capacity)
        return -ENOSPC;
    memcpy(item->output, problem->body, size);
    item->output_bytes = size;
    item->status = (uint32_t)problem->status;
    return 0;
}

int job_expand(struct job *job, const struct unetserve_host *host)
{
    uint64_t bytes = 0;
    if (!job->file || job->pixels)
        return 0;
    (void)unetserve_shape_bytes(&job->item.input_shape, &bytes);
    void *pixels = malloc(bytes ? bytes : 1);
    struct problem problem;
    struct expanding expanding = {host, &job->item};
    struct images_order order = {.file = job->file,
                                 .bytes = job->file_bytes,
                                 .size = job->file_size,
                                 .shape = &job->item.input_shape,
                                 .go_on = go_on,
                                 .opaque = &expanding};
    int error = pixels ? image_library_expand(&order, pixels, &problem) : -ENOMEM;
    if (error == -ENOMEM)
        problem_set(&problem, 503, "Out of memory, try again later");
    if (error) {
        free(pixels);
        return error == -ECANCELED ? error : refuse_file(&job->item, &problem);
    }
    job->pixels = pixels;
    job->item.input = pixels;
    job->item.input_bytes = bytes;
    return 0;
}

/* ---- streams ---- */

int job_prepare_stream(struct queue *queue, struct job *job)
{
    struct queue_slot *slot = &queue->slots[job->slot];
    size_t size = job->item.output_capacity < JOB_SCRATCH_MAX ? job->item.output_capacity
                                                              : JOB_SCRATCH_MAX;
    job->scratch = malloc(size ? size : 1);
    if (!job->scratch)
        return -ENOMEM;
    job->ring = (struct ring){
        .counts = &slot->ring, .bytes = job->item.output, .capacity = job->item.output_capacity};
    job->item.output = job->scratch;
    job->item.output_capacity = size;
    return 0;
}

bool job_has_streamed(const struct job *job)
{
    return job->ring.own > 0;
}

void job_forget(struct job *job)
{
    fields_free(job->fields);
    free(job->scratch);
    free(job->pixels);
    job->fields = NULL;
    job->scratch = NULL;
    job->pixels = NULL;
}

bool job_cancelled(const struct queue *queue, struct job *job)
{
    job->given_up = job->given_up ||
                    queue_cancelled(queue, job->slot, queue_word_generation(job->word));
    return job->given_up;
}

static bool tensor_sound(const struct unetserve_item *item,
                         const struct unetserve_interface *interface)
{
    uint64_t expected;
    return item->output_shape.rank > 0 && item->output_shape.dtype == interface->output_dtype &&
           unetserve_shape_bytes(&item->output_shape, &expected) == 0 &&
           expected == item->output_bytes;
}

bool job_answer_sound(const struct job *job, const struct unetserve_interface *interface,
                      const char **reason)
{
    const struct unetserve_item *item = &job->item;
    *reason = NULL;
    if (item->output_bytes > item->output_capacity)
        *reason = "the model wrote more than the output area holds";
    else if (item->status != 200 && (item->status < 400 || item->status > 599))
        *reason = "the model set a status that is neither 200 nor 400 to 599";
    else if (item->status != 200 && item->output_bytes == 0)
        *reason = "the model refused without a document";
    else if (item->status == 200 && interface->output_kind == UNETSERVE_TENSOR &&
             !tensor_sound(item, interface))
        *reason = "the model's output is no tensor of the declared type";
    return *reason == NULL;
}

/* The move out of RUN; if its gateway has begun to stream, out of STREAM. */
static void finish(struct queue *queue, struct job *job, enum queue_state to)
{
    atomic_store(&queue->slots[job->slot].finished_ns, queue_now_ns());
    bool moved = queue_move(queue, QUEUE_WORKER, job->slot, job->word, to, 0, NULL);
    if (!moved) {
        uint64_t now = queue_word(queue, job->slot);
        uint64_t state_mask = 0xff;
        bool streams = queue_word_state(now) == QUEUE_STREAM &&
                       (now & ~state_mask) == (job->word & ~state_mask);
        moved = streams && queue_move(queue, QUEUE_WORKER, job->slot, now, to, 0, NULL);
    }
    if (moved)
        seat_call(queue, job->reply_to);
}

void job_done(struct queue *queue, struct job *job)
{
    struct queue_slot *slot = &queue->slots[job->slot];
    assert(queue_word_state(job->word) == QUEUE_RUN);
    slot->status = job->item.status;
    slot->output_bytes = job->item.output_bytes;
    /* A stream's refusal, before any item: nothing else is in the output area. */
    if (job->scratch && job->item.output_bytes) {
        assert(!job_has_streamed(job) && job->item.output_bytes <= job->ring.capacity);
        memcpy(job->ring.bytes, job->item.output, job->item.output_bytes);
    }
    slot->output_shape = job->item.status == 200 ? job->item.output_shape
                                                 : (struct unetserve_shape){0};
    slot->encode_ns = job->encode_ns;
    slot->batch = job->batch;
    finish(queue, job, QUEUE_DONE);
}

void job_failed(struct queue *queue, struct job *job)
{
    assert(queue_word_state(job->word) == QUEUE_RUN);
    queue->slots[job->slot].batch = job->batch;
    finish(queue, job, QUEUE_FAILED);
}
