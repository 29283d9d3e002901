#include "gateway/jobs.h"

#include "gateway/metrics.h"
#include "gateway/outcome.h"

#include "unetserve/handover.h"
#include "unetserve/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MS_NS UINT64_C(1000000)

/* A slot that changes hands at each of them is not seen twice. */
#define GIVE_UP_ATTEMPTS 8

/* What a body of unknown size gets at first when its model does not say how large a tile usually
 * is. */
#define FIRST_INPUT_BYTES (64u << 10)

/* An upload that takes longer is nothing that a job would be held for: the largest window. */
#define UPLOAD_TOLD_NS (60000 * MS_NS)

enum job_state { JOB_RECEIVING, JOB_WAITING, JOB_STREAMING, JOB_ENDED, JOB_FORGOTTEN };

struct job {
    struct jobs *jobs;
    uint32_t position; /* in jobs->waiting */
    enum job_state state;
    struct model_view *view;
    enum job_form form;
    uint32_t slot;
    uint64_t word; /* in RECV: the slot's; later its generation only */
    uint64_t begun_ns, accepted_ns, deadline_ns, end_ns;
    uint64_t timeout_ms;
    int32_t priority;
    uint64_t body_bytes, body_seen; /* announced (UINT64_MAX: unknown), and fed so far */
    uint64_t moved_bytes;           /* of the input, from slot to slot */
    uint64_t shape_key;             /* queue_shape_key of the body; 0: not known yet */
    char request_id[QUEUE_ID_MAX];
    job_done *done;
    job_ready *ready;
    void *opaque;
    bool handed_over; /* to a worker, past the broker, who does not know of it yet */
    bool wanting;     /* the front has taken all there was */
    struct items items;
    struct body_reader reader;
};

void jobs_init(struct jobs *jobs, struct seat *seat, const struct config *config, baton_send *baton,
               void *baton_opaque)
{
    *jobs = (struct jobs){
        .seat = seat,
        .config = config,
        .baton = baton,
        .baton_opaque = baton_opaque,
        .spare = {.size = sizeof(struct job)},
    };
}

/* ---- memory and the list ---- */

static void job_list(struct job *job)
{
    struct jobs *jobs = job->jobs;
    job->position = jobs->waiting_count;
    jobs->waiting[jobs->waiting_count++] = job;
}

/* The last one takes its place: whoever walks the list does so from its end. */
static void job_unlist(struct job *job)
{
    struct jobs *jobs = job->jobs;
    struct job *last = jobs->waiting[--jobs->waiting_count];
    jobs->waiting[job->position] = last;
    last->position = job->position;
}

static void job_free(struct job *job)
{
    if (job->state == JOB_RECEIVING)
        job->jobs->receiving_count--;
    else if (job->state != JOB_ENDED)
        job_unlist(job);
    items_free(&job->items);
    body_reader_close(&job->reader);
    model_view_drop(job->view);
    spare_give(&job->jobs->spare, job);
}

void jobs_close(struct jobs *jobs)
{
    for (uint32_t i = jobs->waiting_count; i-- > 0;)
        job_free(jobs->waiting[i]);
    spare_free(&jobs->spare);
}

static bool job_move(struct job *job, uint64_t word, enum queue_state to, uint16_t owner,
                     uint64_t *moved)
{
    return queue_move(&job->jobs->seat->queue, QUEUE_GATEWAY, job->slot, word, to, owner, moved);
}

/* ---- sizes ---- */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What the usual tile takes as float32, which is what JSON becomes; 0 if the model does not say. */
static uint64_t usual_bytes(const struct unetserve_interface *interface)
{
    return (uint64_t)interface->channels * interface->tile * interface->tile * 4;
}

/* A label each pixel. */
static uint64_t label_bytes(const struct unetserve_interface *interface,
                            const struct unetserve_shape *shape)
{
    uint64_t elements = 0;
    if (interface->channels == 0 || unetserve_shape_elements(shape, &elements))
        return 0;
    return elements / interface->channels;
}

/* A first guess at the input: exact where the head tells, else what the usual tile takes; body_grow
 * moves to a larger slot when it was too small, and does so before the data of an npy file, whose
 * header tells. */
static uint64_t guess_input(const struct job_order *order, uint64_t largest)
{
    bool known = order->body_bytes != UINT64_MAX;
    uint64_t usual = usual_bytes(&order->view->interface), bytes = 0;
    uint64_t first = usual ? usual : FIRST_INPUT_BYTES;
    switch (order->format) {
    case BODY_JSON: /* a number takes two bytes at least, and becomes four */
        return known ? least(first, order->body_bytes * 2) : first;
    case BODY_NPY: /* 64 bytes is the least that a header takes; float64 is halved as it is read */
        bytes = known && order->body_bytes > 64 ? order->body_bytes - 64 : 0;
        return bytes / 2 > largest ? bytes / 2 : least(first, known ? bytes : first);
    case BODY_RAW:
        if (unetserve_shape_bytes(order->shape, &bytes))
            return UINT64_MAX;
        return order->shape->dtype == UNETSERVE_F64 ? bytes / 2 : bytes;
    case BODY_FILE:
    case BODY_MULTIPART: return known ? order->body_bytes : first;
    case BODY_URLENCODED:
    case BODY_DOCUMENT: return known ? order->body_bytes : FIRST_INPUT_BYTES;
    }
    return first;
}

/* Room for a document that is answered: at least so much. */
static uint64_t answer_bytes(const struct jobs *jobs, const struct model_view *view)
{
    uint64_t most = jobs->config->models[view->model].max_response_bytes;
    return view->interface.output_kind == UNETSERVE_DOCUMENT && most ? most : 1;
}

/* Labels for that input. The least that they can take, since it is not known yet how large an
 * element is; job_submit makes it right. */
static uint64_t guess_output(const struct jobs *jobs, const struct job_order *order,
                             uint64_t input_bytes)
{
    const struct unetserve_interface *interface = &order->view->interface;
    if (interface->output_kind != UNETSERVE_TENSOR || interface->channels == 0)
        return answer_bytes(jobs, order->view);
    if (order->format == BODY_RAW)
        return label_bytes(interface, order->shape);
    return input_bytes / ((uint64_t)interface->channels * 4);
}

static int reserve(struct jobs *jobs, uint64_t input_bytes, uint64_t output_bytes, uint32_t *slot,
                   uint64_t *word, struct problem *problem)
{
    struct queue *queue = &jobs->seat->queue;
    int error = queue_reserve(queue, jobs->seat->index, input_bytes, output_bytes, slot, word);
    if (error == -E2BIG)
        problem_set(problem, 413,
                    "Payload too large: it needs %llu bytes decoded, the largest slot holds %llu",
                    (unsigned long long)input_bytes,
                    (unsigned long long)queue_largest_input(queue));
    else if (error)
        problem_set(problem, 503, "All slots are taken, try again later");
    return error ? -1 : 0;
}

/* Which model's job, of which generation: told from RECV on, since a reload keeps the workers of a
 * generation until no slot asks for it. */
static void pin(const struct job *job)
{
    struct queue_slot *slot = &job->jobs->seat->queue.slots[job->slot];
    atomic_store_explicit(&slot->model, job->view->model, memory_order_relaxed);
    atomic_store_explicit(&slot->model_generation, job->view->generation, memory_order_relaxed);
    atomic_store_explicit(&slot->upload_ends_ns, 0, memory_order_relaxed);
}

/* Move a job in RECV to a slot that is large enough, with the first `used` bytes of its input. The
 * new slot is pinned before the old one is given back: at each moment one of them tells a reload
 * whose job this is. */
static int job_move_slot(struct job *job, size_t used, uint64_t input_bytes, uint64_t output_bytes,
                         struct problem *problem)
{
    struct queue *queue = &job->jobs->seat->queue;
    uint32_t slot, old_slot = job->slot;
    uint64_t word, old_word = job->word;
    if (reserve(job->jobs, input_bytes, output_bytes, &slot, &word, problem))
        return -1;
    memcpy(queue_input(queue, slot), queue_input(queue, old_slot), used);
    job->moved_bytes += used;
    job->slot = slot;
    job->word = word;
    pin(job);
    queue_move(queue, QUEUE_GATEWAY, old_slot, old_word, QUEUE_FREE, 0, NULL);
    return 0;
}

static void *job_grow(void *opaque, size_t used, size_t needed, size_t *capacity,
                      struct problem *problem)
{
    struct job *job = opaque;
    struct queue *queue = &job->jobs->seat->queue;
    if (used > queue_input_capacity(queue, job->slot))
        return NULL;
    if (job_move_slot(job, used, needed, answer_bytes(job->jobs, job->view), problem))
        return NULL;
    *capacity = queue_input_capacity(queue, job->slot);
    return queue_input(queue, job->slot);
}

/* ---- receiving ---- */

static struct job *job_make(struct jobs *jobs, const struct job_order *order, job_done *done,
                            void *opaque)
{
    struct job *job = spare_take(&jobs->spare);
    if (!job)
        return NULL;
    *job = (struct job){
        .jobs = jobs,
        .state = JOB_RECEIVING,
        .view = model_view_keep(order->view),
        .form = order->form,
        .begun_ns = order->begun_ns,
        .timeout_ms = order->timeout_ms,
        .priority = order->priority,
        .body_bytes = order->body_bytes,
        .done = done,
        .ready = order->ready,
        .opaque = opaque,
    };
    strncpy(job->request_id, order->request_id, sizeof job->request_id - 1);
    jobs->receiving_count++;
    return job;
}

int job_open(struct jobs *jobs, const struct job_order *order, job_done *done, void *opaque,
             struct problem *problem, struct job **out)
{
    const struct unetserve_interface *interface = &order->view->interface;
    if (order->format == BODY_RAW && body_check_shape(interface, order->shape, problem))
        return -1;
    uint64_t input_bytes = guess_input(order, queue_largest_input(&jobs->seat->queue));
    uint64_t output_bytes = guess_output(jobs, order, input_bytes);
    struct job *job = job_make(jobs, order, done, opaque);
    if (!job) {
        problem_set(problem, 503, "Out of memory, try again later");
        return -1;
    }
    if (reserve(jobs, input_bytes ? input_bytes : 1, output_bytes, &job->slot, &job->word,
                problem)) {
        job_free(job);
        return -1;
    }
    pin(job);
    struct queue *queue = &jobs->seat->queue;
    if (body_reader_init(&job->reader, &job->view->interface, order->format, order->shape,
                         queue_input(queue, job->slot), queue_input_capacity(queue, job->slot),
                         job_grow, job, problem) ||
        ((order->format == BODY_MULTIPART || order->format == BODY_URLENCODED) &&
         body_reader_begin_form(&job->reader, order->content_type, problem))) {
        job_drop(job);
        return -1;
    }
    *out = job;
    return 0;
}

/* When will the body be whole, if it goes on as it did? The broker may hold a job of the same shape
 * for it. Nothing is told of a body without a length, nor of one that came in one piece: it is
 * whole before anybody could look. */
static void tell_upload(struct job *job)
{
    struct queue_slot *slot = &job->jobs->seat->queue.slots[job->slot];
    struct unetserve_shape shape;
    if (job->body_bytes == UINT64_MAX || job->body_seen >= job->body_bytes)
        return;
    if (job->shape_key == 0 && body_reader_shape(&job->reader, &shape))
        job->shape_key = queue_shape_key(&shape);
    uint64_t now_ns = queue_now_ns();
    double rest_ns = (double)(now_ns - job->begun_ns) * (double)(job->body_bytes - job->body_seen) /
                     (double)job->body_seen;
    uint64_t ends_ns = rest_ns < (double)UPLOAD_TOLD_NS ? now_ns + (uint64_t)rest_ns : 0;
    atomic_store_explicit(&slot->upload_shape, job->shape_key, memory_order_relaxed);
    atomic_store_explicit(&slot->upload_ends_ns, ends_ns, memory_order_relaxed);
}

int job_feed(struct job *job, const void *bytes, size_t size, struct problem *problem)
{
    if (size == 0)
        return 0;
    job->body_seen += size;
    if (body_reader_feed(&job->reader, bytes, size, problem))
        return -1;
    tell_upload(job);
    return 0;
}

static void set_deadlines(struct job *job)
{
    const struct config_model *model = &job->jobs->config->models[job->view->model];
    job->accepted_ns = queue_now_ns();
    job->deadline_ns = job->accepted_ns + model->timeout_ms * MS_NS;
    job->end_ns = job->deadline_ns + model->run_timeout_ms * MS_NS;
    if (!job->timeout_ms)
        return;
    uint64_t worth_until_ns = job->begun_ns + job->timeout_ms * MS_NS;
    job->deadline_ns = least(job->deadline_ns, worth_until_ns);
    job->end_ns = least(job->end_ns, worth_until_ns);
}

static void fill_slot(struct job *job, const struct unetserve_shape *shape, size_t input_bytes)
{
    struct queue_slot *slot = &job->jobs->seat->queue.slots[job->slot];
    const struct config_model *model = &job->jobs->config->models[job->view->model];
    atomic_store_explicit(&slot->reply_to, job->jobs->seat->index, memory_order_relaxed);
    atomic_store_explicit(&slot->priority, job->priority, memory_order_relaxed);
    atomic_store_explicit(&slot->accepted_ns, job->accepted_ns, memory_order_relaxed);
    atomic_store_explicit(&slot->deadline_ns, job->deadline_ns, memory_order_relaxed);
    atomic_store_explicit(&slot->run_timeout_ns, model->run_timeout_ms * MS_NS,
                          memory_order_relaxed);
    atomic_store_explicit(&slot->started_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->finished_ns, 0, memory_order_relaxed);
    slot->input_bytes = input_bytes;
    slot->input_shape = *shape;
    slot->input_file = body_reader_file(&job->reader);
    slot->encode_ns = 0;
    ring_clear(&slot->ring);
    memcpy(slot->request_id, job->request_id, sizeof slot->request_id);
}

/* One for all: the broker looks at every slot anyway. */
static void pass_baton(const struct job *job, uint64_t word)
{
    job->jobs->baton_due = true;
    job->jobs->next_baton = (struct wire_baton){
        .slot = job->slot, .model = job->view->model, .word = word};
}

static void call_worker(struct jobs *jobs)
{
    if (jobs->next_worker)
        seat_call(&jobs->seat->queue, jobs->next_worker);
    jobs->next_worker = 0;
}

/* To a worker, if it can take it itself, else to the broker. */
static void hand_over(struct job *job)
{
    struct jobs *jobs = job->jobs;
    uint16_t worker = handover_find(&jobs->seat->queue, job->slot);
    job->handed_over = worker != 0;
    if (!worker) {
        pass_baton(job, job->word);
        return;
    }
    if (jobs->next_worker != worker)
        call_worker(jobs);
    jobs->next_worker = worker;
}

/* A worker is called for all at once: where jobs are short it would be through with the first, and
 * asleep again, before the second is there. */
void jobs_pass_on(struct jobs *jobs)
{
    call_worker(jobs);
    if (jobs->baton_due)
        jobs->baton(jobs->baton_opaque, &jobs->next_baton);
    jobs->baton_due = false;
}

/* A slot that holds the labels too; and of an image file the pixels that a worker makes of it, so
 * that what workers expand is bounded as the queue is. */
static int make_room(struct job *job, const struct unetserve_shape *shape, uint64_t input_bytes,
                     struct problem *problem)
{
    const struct queue *queue = &job->jobs->seat->queue;
    uint64_t labels = job->view->interface.output_kind == UNETSERVE_TENSOR
                          ? label_bytes(&job->view->interface, shape)
                          : answer_bytes(job->jobs, job->view);
    uint64_t needed = input_bytes, pixels;
    if (body_reader_file(&job->reader)) {
        if (unetserve_shape_bytes(shape, &pixels))
            pixels = UINT64_MAX;
        needed = needed > pixels ? needed : pixels;
    }
    if (labels <= queue_output_capacity(queue, job->slot) &&
        needed <= queue_input_capacity(queue, job->slot))
        return 0;
    return job_move_slot(job, input_bytes, needed, labels, problem);
}

int job_submit(struct job *job, struct problem *problem)
{
    struct unetserve_shape shape;
    size_t input_bytes;
    if (body_reader_finish(&job->reader, &shape, &input_bytes, problem))
        return -1;
    if (job->form == JOB_PNG && shape.rank == 4) {
        problem_set(problem, 406,
                    "image/png holds one mask: ask for application/json or application/x-npy for a "
                    "batch");
        return -1;
    }
    if (job->form == JOB_JSON && shape.rank == 3 && body_reader_in_kind(&job->reader))
        job->form = JOB_JSON_PNG;
    if (make_room(job, &shape, input_bytes, problem))
        return -1;
    if (job->jobs->waiting_count == QUEUE_MAX_SLOTS) {
        problem_set(problem, 503, "All slots are taken, try again later");
        return -1;
    }
    set_deadlines(job);
    fill_slot(job, &shape, input_bytes);
    body_reader_close(&job->reader);
    uint64_t word;
    if (!job_move(job, job->word, QUEUE_READY, 0, &word)) {
        /* Only a supervisor that takes this process for dead moves a slot out of RECV. */
        problem_set(problem, 503, "The request lost its slot, try again");
        return -1;
    }
    metrics_accepted(job->view->model);
    metrics_body(job->body_seen, job->moved_bytes + body_reader_copied(&job->reader));
    job->word = word;
    job->jobs->receiving_count--;
    job->state = JOB_WAITING;
    job_list(job);
    hand_over(job);
    return 0;
}

/* ---- coming back ---- */

static bool same_generation(const struct job *job, uint64_t word)
{
    return queue_word_generation(word) == queue_word_generation(job->word);
}

static bool job_streams(const struct job *job)
{
    return job->view->interface.flags & UNETSERVE_STREAMS;
}

/* Nobody waits for this job: free its slot if it is in our hands to do so, else ask for it back and
 * keep the job until then. True when the job is gone. */
static bool job_release(struct job *job)
{
    struct queue *queue = &job->jobs->seat->queue;
    if (job->state == JOB_ENDED) {
        job_free(job);
        return true;
    }
    for (;;) {
        uint64_t word = queue_word(queue, job->slot);
        enum queue_state state = queue_word_state(word);
        bool gone = !same_generation(job, word) || state == QUEUE_FREE;
        bool ours = state == QUEUE_RECV || state == QUEUE_READY || state == QUEUE_DONE ||
                    state == QUEUE_FAILED || state == QUEUE_SEND;
        if (!gone && ours && !job_move(job, word, QUEUE_FREE, 0, NULL))
            continue;
        if (gone || ours) {
            job_free(job);
            return true;
        }
        queue_cancel(queue, job->slot, queue_word_generation(word));
        job->state = JOB_FORGOTTEN;
        return false;
    }
}

void job_drop(struct job *job)
{
    job->done = NULL;
    job->ready = NULL;
    job_release(job);
}

/* A line for each request that failed, or took more than half of the time that it may wait: its id
 * is in the lines of the broker, the worker and the supervisor too. All others at the level debug.
 */
static void job_tell(const struct job *job, const struct job_outcome *outcome)
{
    const struct config_model *model = &job->jobs->config->models[job->view->model];
    uint64_t took_ns = queue_now_ns() - job->begun_ns;
    bool failed = outcome->status >= 500, slow = took_ns > model->timeout_ms * MS_NS / 2;
    log_event(failed ? LOG_LEVEL_WARNING
              : slow ? LOG_LEVEL_INFO
                     : LOG_LEVEL_DEBUG,
              failed ? "request failed"
              : slow ? "request was slow"
                     : "request answered",
              log_text("request_id", job->request_id), log_text("model", model->name),
              log_number("slot", job->slot), log_number("status", outcome->status),
              log_real("took_ms", (double)took_ns / 1e6),
              log_real("queue_ms", outcome->times.queue_ms),
              log_real("forward_ms", outcome->times.forward_ms));
}

static void job_answer(struct job *job, struct job_outcome *outcome)
{
    job_done *done = job->done;
    void *opaque = job->opaque;
    job->done = NULL;
    metrics_job(job->view->model, job->begun_ns, outcome);
    job_tell(job, outcome);
    job_release(job);
    done(opaque, outcome);
}

static struct job_times job_times(const struct job *job, const struct queue_slot *slot)
{
    uint64_t started = atomic_load_explicit(&slot->started_ns, memory_order_relaxed);
    uint64_t finished = atomic_load_explicit(&slot->finished_ns, memory_order_relaxed);
    struct job_times times = {.receive_ms = (double)(job->accepted_ns - job->begun_ns) / 1e6};
    if (started >= job->accepted_ns && finished >= started) {
        uint64_t encode = least(slot->encode_ns, finished - started);
        times.queue_ms = (double)(started - job->accepted_ns) / 1e6;
        times.forward_ms = (double)(finished - started - encode) / 1e6;
        times.encode_ms = (double)encode / 1e6;
    }
    return times;
}

/* A worker that comes to a job after its deadline gives it back unstarted. */
static bool started_too_late(const struct job *job, const struct queue_slot *slot)
{
    return atomic_load_explicit(&slot->started_ns, memory_order_relaxed) >= job->deadline_ns;
}

/* ---- streams ---- */

static void job_tell_ready(struct job *job)
{
    if (!job->wanting)
        return;
    job->wanting = false;
    job->ready(job->opaque);
}

/* The slot is in RUN. With the first item there, the job is the front's to stream and must not run
 * again: first the move, then the byte. */
static void job_begin_stream(struct job *job, uint64_t word)
{
    struct queue *queue = &job->jobs->seat->queue;
    struct queue_slot *slot = &queue->slots[job->slot];
    if (atomic_load_explicit(&slot->ring.produced, memory_order_acquire) == 0 ||
        !job_move(job, word, QUEUE_STREAM, queue_word_owner(word), NULL))
        return;
    items_begin(&job->items, &slot->ring, queue_output(queue, job->slot),
                queue_output_capacity(queue, job->slot));
    job->state = JOB_STREAMING;
    job->wanting = true;
    job_tell_ready(job);
}

/* The slot was moved to SEND from where word says: keep what the front has not taken, and give it
 * back. */
static void job_end_stream(struct job *job, uint64_t word, uint64_t sending)
{
    struct queue *queue = &job->jobs->seat->queue;
    struct queue_slot *slot = &queue->slots[job->slot];
    struct job_outcome outcome = {.status = 200, .times = job_times(job, slot)};
    if (job->state == JOB_WAITING) {
        items_begin(&job->items, &slot->ring, queue_output(queue, job->slot),
                    queue_output_capacity(queue, job->slot));
        job->wanting = true;
    }
    if (job->items.live)
        items_finish(&job->items);
    if (queue_word_state(word) == QUEUE_FAILED && !job->items.broken)
        items_break(&job->items, "The model broke off", false);
    else if (slot->status != 200 && !job->items.broken)
        items_break(&job->items, NULL, false);
    metrics_job(job->view->model, job->begun_ns, &outcome);
    job_tell(job, &outcome);
    job_move(job, sending, QUEUE_FREE, 0, NULL);
    job_unlist(job);
    job->state = JOB_ENDED;
    job_tell_ready(job);
}

/* It breaks off while its worker may still be at it. */
static void job_break_stream(struct job *job, const char *sentence)
{
    items_break(&job->items, sentence, true);
    queue_cancel(&job->jobs->seat->queue, job->slot, queue_word_generation(job->word));
    job_tell_ready(job);
}

enum items_next job_take(struct job *job, const char **bytes, size_t *size)
{
    bool wake;
    bool was_live = job->items.live;
    enum items_next next = items_take(&job->items, bytes, size, &wake);
    struct queue *queue = &job->jobs->seat->queue;
    if (wake && job->state == JOB_STREAMING)
        seat_wake(queue, queue_word_owner(queue_word(queue, job->slot)));
    /* What came made no sense: whoever makes it may stop. */
    if (was_live && !job->items.live)
        queue_cancel(queue, job->slot, queue_word_generation(job->word));
    job->wanting = next == ITEMS_NOT_YET;
    return next;
}

/* Is the answer one that is streamed? Not a refusal before the first item, nor a failure that no
 * byte went before. */
static bool job_has_stream(const struct job *job, const struct queue_slot *slot, bool failed)
{
    if (job->state == JOB_STREAMING)
        return true;
    return job_streams(job) && !failed &&
           (slot->status == 200 ||
            atomic_load_explicit(&slot->ring.produced, memory_order_relaxed) > 0);
}

/* The slot is in DONE or FAILED: take it, copy the answer out, give it back, tell the front. */
static void job_take_answer(struct job *job, uint64_t word)
{
    struct queue *queue = &job->jobs->seat->queue;
    const struct queue_slot *slot = &queue->slots[job->slot];
    bool failed = queue_word_state(word) == QUEUE_FAILED;
    uint64_t sending;
    if (!job_move(job, word, QUEUE_SEND, job->jobs->seat->index, &sending))
        return; /* the next look sees what became of it */
    if (job_has_stream(job, slot, failed)) {
        job_end_stream(job, word, sending);
        return;
    }
    struct job_outcome outcome = {.times = job_times(job, slot)};
    if (failed && started_too_late(job, slot))
        outcome_say(&outcome, 504, "Request timed out");
    else if (failed)
        outcome_fail(&outcome, queue_word_faults(word), queue_word_kills(word));
    else
        outcome_encode(&outcome, &job->view->interface, job->form, queue, job->slot);
    job_answer(job, &outcome);
}

static void job_lost(struct job *job)
{
    log_event(LOG_LEVEL_ERROR, "a job lost its slot", log_number("slot", job->slot),
              log_text("request_id", job->request_id));
    if (job->state == JOB_STREAMING) {
        items_break(&job->items, "The request lost its slot", true);
        job_unlist(job);
        job->state = JOB_ENDED;
        job_tell_ready(job);
        return;
    }
    struct job_outcome outcome = {.times = {0}};
    outcome_say(&outcome, 503, "The request lost its slot, try again");
    job_answer(job, &outcome);
}

/* The slot is in READY, and the model that it is pinned to has gone: all of its workers died during
 * a reload. Nobody else will come for it. */
static void job_refuse_outdated(struct job *job, uint64_t word)
{
    struct job_outcome outcome = {.times = {0}};
    if (!job_move(job, word, QUEUE_FREE, 0, NULL))
        return;
    outcome_say(&outcome, 503,
                "The model was replaced while this request waited, and no worker of the one before "
                "is left: send it again");
    job_answer(job, &outcome);
}

static void job_look(struct job *job)
{
    uint64_t word = queue_word(&job->jobs->seat->queue, job->slot);
    enum queue_state state = queue_word_state(word);
    if (job->state == JOB_FORGOTTEN) {
        if (!same_generation(job, word) || state == QUEUE_READY || state == QUEUE_DONE ||
            state == QUEUE_FAILED)
            job_release(job);
        return;
    }
    if (!same_generation(job, word))
        job_lost(job);
    else if (state == QUEUE_DONE || state == QUEUE_FAILED)
        job_take_answer(job, word);
    else if (state == QUEUE_READY &&
             queue_generation_is_over(&job->jobs->seat->queue, job->view->model,
                                      job->view->generation))
        job_refuse_outdated(job, word);
    else if (job->state == JOB_STREAMING && items_ready(&job->items))
        job_tell_ready(job);
    else if (job->state == JOB_WAITING && state == QUEUE_RUN && job_streams(job))
        job_begin_stream(job, word);
}

void jobs_collect(struct jobs *jobs)
{
    for (uint32_t i = jobs->waiting_count; i-- > 0;)
        job_look(jobs->waiting[i]);
}

/* ---- deadlines ---- */

/* Has a job in that state waited long enough? */
static bool job_overdue(const struct job *job, uint64_t word, uint64_t now_ns)
{
    if (now_ns >= job->end_ns)
        return true;
    const struct queue_slot *slot = &job->jobs->seat->queue.slots[job->slot];
    uint64_t started;
    switch (queue_word_state(word)) {
    case QUEUE_READY:
    case QUEUE_LEASED: return now_ns >= job->deadline_ns;
    case QUEUE_RUN:
    case QUEUE_STREAM:
        started = atomic_load_explicit(&slot->started_ns, memory_order_relaxed);
        return started >= job->accepted_ns && now_ns > started &&
               now_ns - started >=
                   atomic_load_explicit(&slot->run_timeout_ns, memory_order_relaxed);
    default: return false;
    }
}

/* Of a job that ends now, unanswered: the time since it was accepted is the queue's until a worker
 * has begun, and then the run's. */
static struct job_times times_cut_off(const struct job *job, uint64_t word)
{
    const struct queue_slot *slot = &job->jobs->seat->queue.slots[job->slot];
    uint64_t started = atomic_load_explicit(&slot->started_ns, memory_order_relaxed);
    uint64_t now = queue_now_ns();
    bool runs = queue_word_state(word) == QUEUE_RUN && started >= job->accepted_ns && now > started;
    uint64_t left_queue = runs ? started : now;
    return (struct job_times){.receive_ms = (double)(job->accepted_ns - job->begun_ns) / 1e6,
                              .queue_ms = (double)(left_queue - job->accepted_ns) / 1e6,
                              .forward_ms = (double)(now - left_queue) / 1e6};
}

/* It ends here, whatever its worker does. False: it has moved on meanwhile, and is to be looked at
 * again. */
static bool job_cut_off(struct job *job, uint64_t word, int status, const char *sentence)
{
    if (job->state == JOB_STREAMING) {
        if (job->items.live)
            job_break_stream(job, sentence);
        return true;
    }
    /* First the slot, then the answer: a job that starts at this very moment keeps its own. */
    if (queue_word_state(word) == QUEUE_READY && !job_move(job, word, QUEUE_FREE, 0, NULL))
        return false;
    struct job_outcome outcome = {.times = times_cut_off(job, word)};
    outcome_say(&outcome, status, sentence);
    job_answer(job, &outcome);
    return true;
}

static void job_check(struct job *job, uint64_t now_ns)
{
    if (job->state == JOB_FORGOTTEN)
        return;
    uint64_t word = queue_word(&job->jobs->seat->queue, job->slot);
    enum queue_state state = queue_word_state(word);
    if (state != QUEUE_DONE && state != QUEUE_FAILED && job_overdue(job, word, now_ns))
        (void)job_cut_off(job, word, 504, "Request timed out");
}

static void job_give_up(struct job *job)
{
    for (int attempt = 0; attempt < GIVE_UP_ATTEMPTS && job->state != JOB_FORGOTTEN; attempt++)
        if (job_cut_off(job, queue_word(&job->jobs->seat->queue, job->slot), 503,
                        "The server ends, and this request was not done in time: send it again"))
            return;
}

void jobs_give_up(struct jobs *jobs)
{
    jobs_collect(jobs);
    for (uint32_t i = jobs->waiting_count; i-- > 0;)
        job_give_up(jobs->waiting[i]);
}

/* The worker that it went to has not taken it: it is stuck, or was faster at something else. */
static void check_handed_over(struct job *job)
{
    uint64_t word = queue_word(&job->jobs->seat->queue, job->slot);
    if (job->handed_over && same_generation(job, word) && queue_word_state(word) == QUEUE_READY)
        pass_baton(job, word);
    job->handed_over = false;
}

void jobs_check(struct jobs *jobs)
{
    jobs_collect(jobs);
    uint64_t now_ns = queue_now_ns();
    for (uint32_t i = jobs->waiting_count; i-- > 0;) {
        check_handed_over(jobs->waiting[i]);
        job_check(jobs->waiting[i], now_ns);
    }
}
