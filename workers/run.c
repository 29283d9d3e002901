#include "workers/run.h"
#include "unetserve/handover.h"
#include "unetserve/log.h"
#include "unetserve/loss.h"
#include "workers/fields.h"
#include "workers/flight.h"
#include "workers/job.h"
#include "workers/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What a model gets beside the run timeout to give back an item that nobody waits for. */
#define GIVE_BACK_NS UINT64_C(1000000000)

/* ---- taking jobs ---- */

/* Where a job stands in the broker's order. */
struct standing {
    int32_t priority;
    uint32_t slot;
    uint64_t accepted_ns;
};

static bool stands_before(const struct standing *x, const struct standing *y)
{
    if (x->priority != y->priority)
        return x->priority > y->priority;
    if (x->accepted_ns != y->accepted_ns)
        return x->accepted_ns < y->accepted_ns;
    return x->slot < y->slot;
}

static struct standing standing_of(const struct job *job)
{
    return (struct standing){job->priority, job->slot, job->accepted_ns};
}

static int compare_jobs(const void *a, const void *b)
{
    struct standing x = standing_of(a), y = standing_of(b);
    return stands_before(&x, &y) ? -1 : stands_before(&y, &x);
}

static bool is_mine(const struct worker *worker, const struct job *job)
{
    return job->model == worker->model && job->generation == worker->generation;
}

/* Jobs of this worker's model that are not leased to it: those that nobody has been given yet. */
struct line {
    uint64_t now_ns;
    uint32_t length;
    bool elsewhere;        /* one is leased to another worker */
    uint32_t open;         /* how many of them may be taken without the broker (handover.h) */
    struct standing first; /* of those */
    uint64_t word;         /* its */
};

static bool is_open(const struct worker *worker, uint32_t slot, uint64_t word, uint64_t now_ns)
{
    const struct queue_slot *from = &worker->seat->queue.slots[slot];
    uint64_t deadline_ns = atomic_load_explicit(&from->deadline_ns, memory_order_relaxed);
    return atomic_load_explicit(&from->model_generation, memory_order_relaxed) ==
               worker->generation &&
           !queue_word_faults(word) && !queue_word_kills(word) &&
           (deadline_ns == 0 || deadline_ns > now_ns);
}

/* The slot is in READY. */
static void line_add(const struct worker *worker, struct line *line, uint32_t slot, uint64_t word)
{
    const struct queue_slot *from = &worker->seat->queue.slots[slot];
    if (atomic_load_explicit(&from->model, memory_order_relaxed) != worker->model)
        return;
    line->length++;
    if (!is_open(worker, slot, word, line->now_ns))
        return;
    struct standing standing = {atomic_load_explicit(&from->priority, memory_order_relaxed), slot,
                                atomic_load_explicit(&from->accepted_ns, memory_order_relaxed)};
    if (line->open++ && !stands_before(&standing, &line->first))
        return;
    line->first = standing;
    line->word = word;
}

static bool is_for_my_model(const struct worker *worker, uint32_t slot)
{
    const struct queue_slot *from = &worker->seat->queue.slots[slot];
    return atomic_load_explicit(&from->model, memory_order_relaxed) == worker->model &&
           atomic_load_explicit(&from->model_generation, memory_order_relaxed) ==
               worker->generation;
}

/* What is leased to this worker, in the order to run it. A lease of another model's job (this index
 * had another process a moment ago) is left for the broker to take back. An orphan also takes what
 * waits for any worker of its model: the broker may have died since, and this one will not have a
 * successor. If it lives, one of the two swaps the word. */
static size_t collect_leased(const struct worker *worker, struct job *jobs, struct line *line)
{
    const struct queue *queue = &worker->seat->queue;
    size_t count = 0;
    *line = (struct line){.now_ns = queue_now_ns()};
    for (uint32_t slot = 0; slot < queue->slot_count && count < RUN_MAX_JOBS; slot++) {
        uint64_t word = queue_word(queue, slot);
        enum queue_state state = queue_word_state(word);
        if (state == QUEUE_READY && !worker->orphaned) {
            line_add(worker, line, slot, word);
        } else if (state == QUEUE_READY ||
                   (state == QUEUE_LEASED && queue_word_owner(word) == worker->seat->index)) {
            job_read(queue, slot, word, &jobs[count]);
            count += is_mine(worker, &jobs[count]);
        } else if (state == QUEUE_LEASED && !line->elsewhere) {
            line->elsewhere = is_for_my_model(worker, slot);
        }
    }
    if (count > 1)
        qsort(jobs, count, sizeof *jobs, compare_jobs);
    return count;
}

/* One more; when they are too many, the last in their order goes. */
static size_t keep_first(struct job *jobs, size_t count, const struct job *job)
{
    size_t last = count;
    if (count == RUN_MAX_JOBS) {
        last = 0;
        for (size_t i = 1; i < count; i++)
            if (compare_jobs(&jobs[last], &jobs[i]) < 0)
                last = i;
        if (compare_jobs(&jobs[last], job) < 0)
            return count;
    }
    jobs[last] = *job;
    return count == RUN_MAX_JOBS ? count : count + 1;
}

/* Those in the line that may run together with the first, which is there. */
static size_t collect_alike(const struct worker *worker, struct job *jobs, const struct line *line)
{
    const struct queue *queue = &worker->seat->queue;
    struct job job;
    size_t count = 1;
    for (uint32_t slot = 0; slot < queue->slot_count; slot++) {
        uint64_t word = queue_word(queue, slot);
        if (slot == line->first.slot || queue_word_state(word) != QUEUE_READY ||
            !is_open(worker, slot, word, line->now_ns))
            continue;
        job_read(queue, slot, word, &job);
        if (is_mine(worker, &job) && job_batches_with(&jobs[0], &job))
            count = keep_first(jobs, count, &job);
    }
    qsort(jobs, count, sizeof *jobs, compare_jobs);
    return count;
}

/* How many tiles may run together: what the model can, and of what nobody has put together for this
 * worker, what the broker would. */
static uint32_t batch_limit(const struct worker *worker, bool leased)
{
    const struct queue_model *rule = &worker->seat->queue.models[worker->model];
    uint32_t can = worker->interface.max_batch;
    uint32_t would = atomic_load_explicit(&rule->max_batch, memory_order_relaxed);
    uint32_t limit = leased || can < would ? can : would;
    return limit ? limit : 1;
}

/* Nothing is leased to this worker: what it may take without the broker (handover.h says when).
 * Returns how many. */
static size_t collect_line(const struct worker *worker, bool only, struct job *jobs,
                           const struct line *line)
{
    const struct queue *queue = &worker->seat->queue;
    if (!only && (line->open != 1 || line->length != 1 || worker_pending(worker) ||
                  !handover_may_take(queue, worker->seat->index)))
        return 0;
    job_read(queue, line->first.slot, line->word, &jobs[0]);
    bool batches = only && line->open > 1 && batch_limit(worker, false) > 1;
    return batches ? collect_alike(worker, jobs, line) : 1;
}

/* ---- jobs in hand ---- */

static size_t pending_limit(const struct worker *worker)
{
    uint32_t limit = worker->interface.max_pending;
    return limit > 0 && limit < WORKER_MAX_JOBS ? limit : WORKER_MAX_JOBS;
}

/* How many jobs may be started now, with that one first. One on which somebody has died runs alone.
 */
static size_t room_for(const struct worker *worker, const struct job *first)
{
    size_t pending = 0;
    for (size_t i = 0; i < WORKER_MAX_JOBS; i++) {
        if (!worker->jobs[i].pending)
            continue;
        if (worker->jobs[i].alone || first->alone)
            return 0;
        pending++;
    }
    size_t limit = pending_limit(worker);
    return pending < limit ? limit - pending : 0;
}

/* Keep a copy at a place that does not move: the model has pointers to its item. */
static struct job *hold(struct worker *worker, const struct job *job)
{
    for (size_t i = 0; i < WORKER_MAX_JOBS; i++) {
        if (worker->jobs[i].held)
            continue;
        worker->jobs[i] = *job;
        worker->jobs[i].held = true;
        return &worker->jobs[i];
    }
    return NULL; /* never: room_for counts them */
}

/* What slots say must not wrap. */
static uint32_t add_tiles(uint32_t a, uint32_t b)
{
    return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

static void let_go(struct worker *worker, struct job *job)
{
    struct queue_process *process = &worker->seat->queue.processes[worker->seat->index];
    job_forget(job);
    job->pending = job->held = false;
    atomic_fetch_add(&process->jobs, 1);
}

/* How many tiles of jobs[0]'s shape to run together. A model that likes fewer than there may be
 * tells: the others have their turn next, and whoever has waited longest is answered first. */
static uint32_t choose_batch(const struct worker *worker, uint32_t most, const struct job *jobs,
                             size_t count)
{
    if (!worker->ops->together || most == 1)
        return most;
    uint64_t tiles = job_count_tiles(jobs, count);
    uint32_t waiting = tiles > UINT32_MAX ? UINT32_MAX : (uint32_t)tiles;
    bool settled = false;
    uint32_t liked = worker->ops->together(worker->instance, &jobs[0].item.input_shape, waiting,
                                           &settled);
    liked = liked == 0 ? 1 : liked < most ? liked : most;
    atomic_store(&worker->seat->queue.processes[worker->seat->index].batch, settled ? liked : 0);
    return liked;
}

/* Move one batch of them to RUN. Returns its length. */
static size_t take_batch(struct worker *worker, uint32_t most, struct job *jobs, size_t count,
                         struct job **taken)
{
    struct queue *queue = &worker->seat->queue;
    uint32_t max_tiles = 1;
    uint32_t tiles = 0;
    size_t room = 0;
    size_t started = 0;
    for (size_t i = 0; i < count; i++) {
        if (started == 0) { /* those before it were taken back */
            room = room_for(worker, &jobs[i]);
            max_tiles = room ? choose_batch(worker, most, jobs + i, count - i) : 1;
        }
        if (started >= room)
            break;
        if (started > 0 && (!job_batches_with(taken[0], &jobs[i]) || tiles >= max_tiles ||
                            jobs[i].tiles > max_tiles - tiles))
            continue;
        if (!job_start(queue, worker->seat->index, &jobs[i]))
            continue;
        tiles = add_tiles(tiles, jobs[i].tiles);
        taken[started++] = hold(worker, &jobs[i]);
    }
    for (size_t i = 0; i < started; i++) {
        taken[i]->batch = (uint32_t)started;
        log_event(LOG_LEVEL_DEBUG, "job started", log_text("model", worker_model_name(worker)),
                  log_text("request_id", taken[i]->request_id), log_number("slot", taken[i]->slot),
                  log_number("batch", (int64_t)started));
    }
    return started;
}

/* ---- running them ---- */

static void log_job(enum log_level level, const char *message, const struct worker *worker,
                    const struct job *job, const char *reason)
{
    log_event(level, message, log_text("model", worker_model_name(worker)),
              log_text("request_id", job->request_id), log_number("slot", job->slot),
              log_text("reason", reason));
}

static void fail(struct worker *worker, struct job *job, const char *reason)
{
    log_job(job->given_up ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR, "job failed", worker, job, reason);
    job_failed(&worker->seat->queue, job);
    let_go(worker, job);
}

/* What the model left in the output of a streaming item: the last item, or a refusal, which is one
 * too if the stream has begun. */
static int finish_stream(struct worker *worker, struct job *job)
{
    struct unetserve_item *item = &job->item;
    if (!job->scratch || item->output_bytes == 0 || (item->status != 200 && !job_has_streamed(job)))
        return 0;
    job->pending = false; /* it may wait for room here: nobody else will */
    int error = stream_emit(worker, job, item->output, item->output_bytes);
    item->output_bytes = 0;
    return error;
}

/* The model has said all that it will about this job. */
static void settle(struct worker *worker, struct job *job)
{
    const char *reason;
    int error = 0;
    if (job_cancelled(&worker->seat->queue, job)) {
        fail(worker, job, "cancelled");
    } else if (!job_answer_sound(job, &worker->interface, &reason)) {
        fail(worker, job, reason);
    } else if ((error = finish_stream(worker, job)) < 0) {
        fail(worker, job, error == -ECANCELED ? "cancelled" : strerror(-error));
    } else {
        job_done(&worker->seat->queue, job);
        let_go(worker, job);
    }
}

/* The image file, or the declared fields, then the model's own hook. */
static int decode_item(struct worker *worker, struct job *job)
{
    int error = job_expand(job, &worker->host);
    if (!error && worker->interface.request_field_count &&
        !(worker->interface.flags & UNETSERVE_READS_ITSELF))
        error = fields_read(&worker->interface, &job->item, &job->fields);
    if (!error && job->item.status == 200 && worker->ops->decode_request)
        error = worker->ops->decode_request(worker->instance, &job->item);
    return error;
}

/* Ready for predict? If not, the job has its outcome already. */
static bool decode(struct worker *worker, struct job *job)
{
    fields_free(job->fields);
    job->fields = NULL;
    job_reset_item(job);
    int error = decode_item(worker, job);
    if (error < 0) {
        fail(worker, job, strerror(-error));
        return false;
    }
    if (job->item.status != 200) {
        settle(worker, job);
        return false;
    }
    return true;
}

static bool admit(struct worker *worker, struct job *job)
{
    struct queue *queue = &worker->seat->queue;
    /* By the start that the slot tells, so that its gateway comes to the same verdict. */
    if (job->deadline_ns && job->started_ns >= job->deadline_ns)
        job->given_up = true;
    if (job_cancelled(queue, job)) {
        fail(worker, job, "cancelled or too late");
        return false;
    }
    if (!job_fits(job, &worker->interface)) {
        fail(worker, job, "its slot holds no input that this model takes");
        return false;
    }
    bool streams = worker->interface.flags & UNETSERVE_STREAMS;
    if (streams && !job->scratch && job_prepare_stream(queue, job)) {
        fail(worker, job, "out of memory");
        return false;
    }
    return decode(worker, job);
}

/* Give the model the chance to free what it keeps for an item that came to nothing. */
static void release(struct worker *worker, struct job *job)
{
    if (!worker->ops->encode_response)
        return;
    job->item.status = 500;
    worker->ops->encode_response(worker->instance, &job->item);
}

static void encode(struct worker *worker, struct job *job)
{
    if (worker->ops->encode_response) {
        uint64_t begin_ns = queue_now_ns();
        int error = worker->ops->encode_response(worker->instance, &job->item);
        job->encode_ns = queue_now_ns() - begin_ns;
        if (error < 0) {
            fail(worker, job, strerror(-error));
            return;
        }
    }
    settle(worker, job);
}

/* Before it runs: a batch that its worker dies of counts too. */
static void count_batch(struct counters_model *counts, struct unetserve_item *const *items,
                        size_t count)
{
    uint64_t tiles = 0;
    for (size_t i = 0; i < count; i++)
        tiles += items[i]->input_shape.rank == 4 ? items[i]->input_shape.dims[0] : 1;
    counters_observe(&counts->batch, counters_batch_bounds, tiles);
}

static void lose_device(struct worker *worker)
{
    worker->device_lost = true;
    log_event(LOG_LEVEL_ERROR, "the model's device has failed, the worker ends",
              log_text("model", worker_model_name(worker)),
              log_text("reason", loss_name(worker->loss)));
}

/* The model keeps them and says later what became of each. */
static void keep_pending(struct worker *worker, struct job *const *jobs, size_t count)
{
    worker->flights++;
    for (size_t i = 0; i < count; i++) {
        jobs[i]->flight = worker->flights;
        jobs[i]->pending = true;
    }
}

/* batch, predict, unbatch: the first failure counts, but what batch made is given back to unbatch.
 */
static int call_model(struct worker *worker, struct unetserve_item *const *items, size_t count)
{
    const struct unetserve_model_ops *ops = worker->ops;
    int error = ops->batch ? ops->batch(worker->instance, items, count) : 0;
    if (error >= 0)
        error = ops->predict(worker->instance, items, count);
    if (!ops->unbatch)
        return error;
    int taken_apart = ops->unbatch(worker->instance, items, count);
    return error != 0 ? error : taken_apart;
}

static int call_predict(struct worker *worker, struct unetserve_item *const *items, size_t count)
{
    count_batch(&seat_counters(worker->seat)->models[worker->model], items, count);
    uint64_t begin_ns = worker->busy_from_ns ? worker->busy_from_ns : queue_now_ns();
    seat_tick(worker->seat);
    int error = call_model(worker, items, count);
    seat_tick(worker->seat);
    bool on_device = worker->interface.flags & UNETSERVE_ON_DEVICE;
    flight_count_busy(worker, begin_ns,
                      worker->busy_from_ns || (on_device && error == UNETSERVE_PENDING));
    if (error == -EIO)
        lose_device(worker);
    return error;
}

static void predict_alone(struct worker *worker, struct job *job)
{
    struct unetserve_item *item = &job->item;
    int error = call_predict(worker, &item, 1);
    if (error == UNETSERVE_PENDING) {
        keep_pending(worker, &job, 1);
        return;
    }
    if (error >= 0) {
        encode(worker, job);
        return;
    }
    if (worker->device_lost)
        return;
    release(worker, job);
    fail(worker, job, strerror(-error));
}

/* A batch failed as a whole: each of its jobs gets a run of its own, from the beginning, so that
 * only the one to blame fails. */
static void predict_one_by_one(struct worker *worker, struct job *const *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++)
        release(worker, jobs[i]);
    for (size_t i = 0; i < count && !worker->device_lost; i++) {
        jobs[i]->batch = 1;
        if (job_has_streamed(jobs[i]))
            fail(worker, jobs[i], "its batch failed after its first item");
        else if (admit(worker, jobs[i]))
            predict_alone(worker, jobs[i]);
    }
}

static void predict_together(struct worker *worker, struct job *const *jobs, size_t count)
{
    struct unetserve_item *items[RUN_MAX_JOBS];
    for (size_t i = 0; i < count; i++)
        items[i] = &jobs[i]->item;
    int error = call_predict(worker, items, count);
    if (worker->device_lost)
        return;
    if (error == UNETSERVE_PENDING) {
        keep_pending(worker, jobs, count);
        return;
    }
    if (error < 0) {
        log_event(LOG_LEVEL_WARNING, "a batch failed, its jobs run one by one",
                  log_text("model", worker_model_name(worker)), log_number("jobs", (int64_t)count),
                  log_text("error", strerror(-error)));
        predict_one_by_one(worker, jobs, count);
        return;
    }
    for (size_t i = 0; i < count; i++)
        encode(worker, jobs[i]);
}

static void run_batch(struct worker *worker, struct job *const *jobs, size_t count)
{
    struct job *admitted[RUN_MAX_JOBS];
    size_t admitted_count = 0;
    for (size_t i = 0; i < count; i++)
        if (admit(worker, jobs[i]))
            admitted[admitted_count++] = jobs[i];
    if (admitted_count == 1)
        predict_alone(worker, admitted[0]);
    else if (admitted_count > 1)
        predict_together(worker, admitted, admitted_count);
}

/* ---- answered later ---- */

static void finish_pending(struct worker *worker, struct job *job, int completion)
{
    job->pending = false;
    if (completion == -EIO) {
        lose_device(worker);
    } else if (completion < 0) {
        release(worker, job);
        fail(worker, job, strerror(-completion));
    } else {
        encode(worker, job);
    }
}

/* Nobody waits for it any more: the model is told, and has as long to give it back as it had to
 * answer. */
static void check_given_up(struct worker *worker, struct job *job)
{
    if (!job_cancelled(&worker->seat->queue, job))
        return;
    uint64_t now_ns = queue_now_ns();
    if (!job->told) {
        job->told = true;
        job->told_ns = now_ns;
        if (worker->ops->cancel)
            worker->ops->cancel(worker->instance, &job->item);
    } else if (now_ns - job->told_ns > job->run_timeout_ns + GIVE_BACK_NS) {
        worker->device_lost = true;
        log_job(LOG_LEVEL_ERROR,
                "the model does not give back what nobody waits for, the worker ends", worker, job,
                "cancelled");
    }
}

/* Returns how many came to an end. */
static unsigned look_at_pending(struct worker *worker)
{
    unsigned finished = 0;
    for (size_t i = 0; i < WORKER_MAX_JOBS && !worker->device_lost; i++) {
        struct job *job = &worker->jobs[i];
        if (!job->pending)
            continue;
        check_given_up(worker, job);
        int completion = atomic_load_explicit(&job->completion, memory_order_acquire);
        if (completion == 0 || worker->device_lost)
            continue;
        finish_pending(worker, job, completion);
        finished++;
    }
    return finished;
}

/* This worker has nothing to do. Another one may be stuck with what waits at it: that the broker
 * takes back. When to look again, since it is too early yet; 0: need not be. */
static uint64_t offer_help(const struct worker *worker, uint64_t now_ns)
{
    const struct queue *queue = &worker->seat->queue;
    uint64_t stuck_ns = handover_find_stuck(queue, worker->seat->index, now_ns);
    if (stuck_ns == 0 || stuck_ns > now_ns)
        return stuck_ns;
    seat_wake_role(queue, QUEUE_BROKER);
    return 0;
}

/* Start a batch of what is leased. Returns how many jobs. */
static unsigned run_leased(struct worker *worker, struct run_result *result)
{
    struct job jobs[RUN_MAX_JOBS];
    struct job *taken[RUN_MAX_JOBS];
    struct line line;
    size_t given = collect_leased(worker, jobs, &line);
    bool only = line.open && handover_is_only(&worker->seat->queue, worker->seat->index);
    size_t found = given || !line.open ? 0 : collect_line(worker, only, jobs, &line);
    uint32_t most = batch_limit(worker, given > 0);
    bool may = flight_may_begin(worker, most, jobs, given + found);
    size_t count = take_batch(worker, most, jobs, may ? given + found : 0, taken);
    if (found)
        counter_add(&seat_counters(worker->seat)->models[worker->model].handed_over, count);
    result->waiting = line.length > (only ? line.open : found);
    /* Now that these have left LEASED, there is room for the next batch to wait here while they
     * run. */
    if (result->waiting)
        seat_wake_role(&worker->seat->queue, QUEUE_BROKER);
    else if (line.elsewhere && given == 0 && count == 0 && worker_pending(worker) == 0)
        result->look_ns = offer_help(worker, line.now_ns);
    if (count > 0)
        run_batch(worker, taken, count);
    return (unsigned)count;
}

struct run_result run_next(struct worker *worker)
{
    struct run_result result = {0};
    bool on_device = worker->interface.flags & UNETSERVE_ON_DEVICE;
    /* A device gets its next batch before the answers of the last are handed out. */
    if (on_device)
        result.jobs = run_leased(worker, &result);
    result.jobs += look_at_pending(worker);
    if (!on_device && !worker->device_lost)
        result.jobs += run_leased(worker, &result);
    flight_count_device(worker);
    return result;
}
