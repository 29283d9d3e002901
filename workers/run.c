#include "workers/run.h"
#include "unetserve/log.h"
#include "workers/fields.h"
#include "workers/job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- taking jobs ---- */

static int compare_jobs(const void *a, const void *b)
{
    const struct job *x = a;
    const struct job *y = b;
    if (x->priority != y->priority)
        return x->priority > y->priority ? -1 : 1;
    if (x->accepted_ns != y->accepted_ns)
        return x->accepted_ns < y->accepted_ns ? -1 : 1;
    return (x->slot > y->slot) - (x->slot < y->slot);
}

static bool is_mine(const struct worker *worker, const struct job *job)
{
    return job->model == worker->model && job->generation == worker->generation;
}

/* What is leased to this worker, in the order to run it. A lease of another model's job (this index
 * had another process a moment ago) is left for the broker to take back. */
static size_t collect_leased(const struct worker *worker, struct job *jobs, bool *waiting)
{
    const struct queue *queue = &worker->seat->queue;
    size_t count = 0;
    *waiting = false;
    for (uint32_t slot = 0; slot < queue->slot_count && count < RUN_MAX_JOBS; slot++) {
        uint64_t word = queue_word(queue, slot);
        enum queue_state state = queue_word_state(word);
        if (state == QUEUE_READY) {
            *waiting = *waiting || atomic_load(&queue->slots[slot].model) == worker->model;
        } else if (state == QUEUE_LEASED && queue_word_owner(word) == worker->seat->index) {
            job_read(queue, slot, word, &jobs[count]);
            count += is_mine(worker, &jobs[count]);
        }
    }
    if (count > 1)
        qsort(jobs, count, sizeof *jobs, compare_jobs);
    return count;
}

/* Move one batch of them to RUN and to the front of jobs. Returns its length. */
static size_t take_batch(const struct worker *worker, struct job *jobs, size_t count)
{
    struct queue *queue = &worker->seat->queue;
    uint32_t max_tiles = worker->interface.max_batch ? worker->interface.max_batch : 1;
    uint32_t tiles = 0;
    size_t taken = 0;
    for (size_t i = 0; i < count; i++) {
        if (taken > 0 && (!job_batches_with(&jobs[0], &jobs[i]) || tiles >= max_tiles ||
                          jobs[i].tiles > max_tiles - tiles))
            continue;
        if (!job_start(queue, worker->seat->index, &jobs[i]))
            continue;
        tiles = jobs[i].tiles > UINT32_MAX - tiles ? UINT32_MAX : tiles + jobs[i].tiles;
        jobs[taken++] = jobs[i];
    }
    for (size_t i = 0; i < taken; i++) {
        jobs[i].batch = (uint32_t)taken;
        log_event(LOG_LEVEL_DEBUG, "job started", log_text("model", worker_model_name(worker)),
                  log_text("request_id", jobs[i].request_id), log_number("slot", jobs[i].slot),
                  log_number("batch", (int64_t)taken));
    }
    return taken;
}

/* ---- running them ---- */

static void log_job(enum log_level level, const char *message, const struct worker *worker,
                    const struct job *job, const char *reason)
{
    log_event(level, message, log_text("model", worker_model_name(worker)),
              log_text("request_id", job->request_id), log_number("slot", job->slot),
              log_text("reason", reason));
}

static void forget_fields(struct job *job)
{
    fields_free(job->fields);
    job->fields = NULL;
    job->item.values = NULL;
}

static void fail(struct worker *worker, struct job *job, const char *reason)
{
    forget_fields(job);
    log_job(job->given_up ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR, "job failed", worker, job, reason);
    job_failed(&worker->seat->queue, job);
}

/* The model has said all that it will about this job. */
static void settle(struct worker *worker, struct job *job)
{
    const char *reason;
    if (job_cancelled(&worker->seat->queue, job))
        fail(worker, job, "cancelled");
    else if (!job_answer_sound(job, &worker->interface, &reason))
        fail(worker, job, reason);
    else {
        forget_fields(job);
        job_done(&worker->seat->queue, job);
    }
}

/* The declared fields, then the model's own hook. */
static int decode_item(struct worker *worker, struct job *job)
{
    int error = 0;
    if (worker->interface.request_field_count)
        error = fields_read(&worker->interface, &job->item, &job->fields);
    if (!error && job->item.status == 200 && worker->ops->decode_request)
        error = worker->ops->decode_request(worker->instance, &job->item);
    return error;
}

/* Ready for predict? If not, the job has its outcome already. */
static bool decode(struct worker *worker, struct job *job)
{
    forget_fields(job);
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
    return error < 0 ? error : taken_apart;
}

static int call_predict(struct worker *worker, struct unetserve_item *const *items, size_t count)
{
    struct queue_process *process = &worker->seat->queue.processes[worker->seat->index];
    struct counters_model *counts = &seat_counters(worker->seat)->models[worker->model];
    count_batch(counts, items, count);
    uint64_t begin_ns = queue_now_ns();
    seat_tick(worker->seat);
    int error = call_model(worker, items, count);
    seat_tick(worker->seat);
    uint64_t busy_ns = queue_now_ns() - begin_ns;
    atomic_fetch_add(&process->busy_ns, busy_ns);
    counter_add(&counts->busy_ns, busy_ns);
    if (error == -EIO) {
        worker->device_lost = true;
        log_event(LOG_LEVEL_ERROR, "the model's device has failed, the worker ends",
                  log_text("model", worker_model_name(worker)));
    }
    return error;
}

static void predict_alone(struct worker *worker, struct job *job)
{
    struct unetserve_item *item = &job->item;
    int error = call_predict(worker, &item, 1);
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
        if (admit(worker, jobs[i]))
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

static void run_batch(struct worker *worker, struct job *jobs, size_t count)
{
    struct job *admitted[RUN_MAX_JOBS];
    size_t admitted_count = 0;
    for (size_t i = 0; i < count; i++)
        if (admit(worker, &jobs[i]))
            admitted[admitted_count++] = &jobs[i];
    if (admitted_count == 1)
        predict_alone(worker, admitted[0]);
    else if (admitted_count > 1)
        predict_together(worker, admitted, admitted_count);
}

struct run_result run_next(struct worker *worker)
{
    struct job jobs[RUN_MAX_JOBS];
    struct queue *queue = &worker->seat->queue;
    struct run_result result = {0};
    size_t leased = collect_leased(worker, jobs, &result.waiting);
    size_t taken = take_batch(worker, jobs, leased);
    result.jobs = (unsigned)taken;
    /* Now that these have left LEASED, there is room for the next batch to wait here while they
     * run. */
    if (result.waiting)
        seat_wake_role(queue, QUEUE_BROKER);
    if (taken == 0)
        return result;
    run_batch(worker, jobs, taken);
    if (!worker->device_lost)
        atomic_fetch_add(&queue->processes[worker->seat->index].jobs, taken);
    return result;
}
