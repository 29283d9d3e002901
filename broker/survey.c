#include "broker/survey.h"
#include "broker/placement.h"
#include "unetserve/log.h"
#include "unetserve/seat.h"

#include <stdlib.h>
#include <string.h>

#define NOWHERE UINT16_MAX

struct survey {
    struct placement_job *jobs;       /* slot_count */
    struct placement_job *leased;     /* slot_count */
    struct placement_lease *leases;   /* slot_count */
    struct placement_upload *uploads; /* slot_count */
    size_t job_count;
    size_t leased_count;
    size_t upload_count;
    struct placement_worker workers[QUEUE_MAX_PROCESSES];
    size_t worker_count;
    uint16_t place[QUEUE_MAX_PROCESSES]; /* process index -> place in workers, or NOWHERE */
    bool
        keeps[QUEUE_MAX_PROCESSES]; /* process index: may hold leases (not draining or condemned) */
    bool wake[QUEUE_MAX_PROCESSES];
    struct placement_rule rules[QUEUE_MAX_MODELS];
    struct survey_result result;
};

struct survey *survey_create(const struct queue *queue)
{
    struct survey *survey = calloc(1, sizeof *survey);
    if (!survey)
        return NULL;
    survey->jobs = calloc(queue->slot_count, sizeof *survey->jobs);
    survey->leased = calloc(queue->slot_count, sizeof *survey->leased);
    survey->leases = calloc(queue->slot_count, sizeof *survey->leases);
    survey->uploads = calloc(queue->slot_count, sizeof *survey->uploads);
    if (!survey->jobs || !survey->leased || !survey->leases || !survey->uploads) {
        survey_free(survey);
        return NULL;
    }
    return survey;
}

void survey_free(struct survey *survey)
{
    if (!survey)
        return;
    free(survey->jobs);
    free(survey->leased);
    free(survey->leases);
    free(survey->uploads);
    free(survey);
}

static void read_worker(struct survey *survey, const struct queue *queue, uint16_t index)
{
    struct queue_process *process = &queue->processes[index];
    uint32_t model = atomic_load(&process->model);
    survey->place[index] = NOWHERE;
    survey->keeps[index] = false;
    survey->wake[index] = false;
    if (!queue_process_is(queue, index, QUEUE_WORKER) || model >= QUEUE_MAX_MODELS)
        return;
    bool keeps = atomic_load(&process->life) == QUEUE_LIVE && !atomic_load(&process->draining);
    survey->keeps[index] = keeps;
    survey->place[index] = (uint16_t)survey->worker_count;
    survey->workers[survey->worker_count++] = (struct placement_worker){
        .index = index,
        .model = model,
        .generation = atomic_load(&process->model_generation),
        .usable = keeps && atomic_load(&process->ready),
        .max_batch = atomic_load(&process->batch),
    };
}

static void read_processes(struct survey *survey, const struct queue *queue)
{
    survey->worker_count = 0;
    survey->place[0] = NOWHERE;
    survey->keeps[0] = false;
    for (uint16_t index = 1; index < QUEUE_MAX_PROCESSES; index++)
        read_worker(survey, queue, index);
}

static void read_rules(struct survey *survey, const struct queue *queue)
{
    memset(survey->rules, 0, sizeof survey->rules);
    for (uint32_t i = 0; i < queue->geometry->model_count && i < QUEUE_MAX_MODELS; i++) {
        struct queue_model *model = &queue->models[i];
        survey->rules[i] = (struct placement_rule){
            .max_batch = atomic_load(&model->max_batch),
            .always = atomic_load(&model->batch_always),
            .window_ns = atomic_load(&model->batch_timeout_us) * UINT64_C(1000),
        };
    }
}

/* A private copy of what a slot in READY or LEASED asks for. A model number out of range fits no
 * worker; it is cut to one that can be used as an index and told apart by a generation that no
 * worker has. */
static struct placement_job read_job(const struct queue *queue, uint32_t slot, uint64_t word)
{
    struct queue_slot *from = &queue->slots[slot];
    struct placement_job job = {
        .slot = slot,
        .word = word,
        .model = atomic_load(&from->model),
        .generation = atomic_load(&from->model_generation),
        .priority = atomic_load(&from->priority),
        .accepted_ns = atomic_load(&from->accepted_ns),
        .deadline_ns = atomic_load(&from->deadline_ns),
        .alone = queue_word_faults(word) || queue_word_kills(word),
        .shape = from->input_shape,
    };
    if (job.model >= QUEUE_MAX_MODELS) {
        job.model = 0;
        job.generation = 0;
    }
    job.tiles = placement_tiles(&job.shape);
    return job;
}

static struct placement_worker *find_worker(struct survey *survey, uint16_t index)
{
    if (index >= QUEUE_MAX_PROCESSES || survey->place[index] == NOWHERE)
        return NULL;
    return &survey->workers[survey->place[index]];
}

/* A lease stays where it is if its worker can be expected to run it: there, not draining or
 * condemned, and of the job's model (an index may have gone to another process between a broker's
 * look and its move). */
static void read_leased(struct survey *survey, struct queue *queue, uint32_t slot, uint64_t word)
{
    struct placement_job job = read_job(queue, slot, word);
    struct placement_worker *worker = find_worker(survey, queue_word_owner(word));
    if (worker && survey->keeps[worker->index] && worker->model == job.model &&
        worker->generation == job.generation) {
        placement_add_lease(worker, &job.shape, job.tiles, job.alone);
        job.holder = survey->place[worker->index];
        survey->leased[survey->leased_count++] = job;
        return;
    }
    if (queue_move(queue, QUEUE_BROKER, slot, word, QUEUE_READY, 0, &job.word)) {
        survey->result.taken_back++;
        survey->jobs[survey->job_count++] = job;
    }
}

/* A body that is coming in. Its slot may be another's by the time that all of this is read: then
 * somebody waits for it in vain, for as long as it would have taken. */
static void read_receiving(struct survey *survey, const struct queue *queue, uint32_t slot)
{
    struct queue_slot *from = &queue->slots[slot];
    uint64_t ends_ns = atomic_load_explicit(&from->upload_ends_ns, memory_order_relaxed);
    if (ends_ns == 0)
        return;
    survey->uploads[survey->upload_count++] = (struct placement_upload){
        .model = atomic_load_explicit(&from->model, memory_order_relaxed),
        .generation = atomic_load_explicit(&from->model_generation, memory_order_relaxed),
        .shape_key = atomic_load_explicit(&from->upload_shape, memory_order_relaxed),
        .ends_ns = ends_ns,
    };
}

static void read_running(struct survey *survey, const struct queue *queue, uint32_t slot,
                         uint64_t word)
{
    const struct queue_slot *from = &queue->slots[slot];
    struct placement_worker *worker = find_worker(survey, queue_word_owner(word));
    if (!worker)
        return;
    uint32_t tiles = placement_tiles(&(struct unetserve_shape){
        .rank = from->input_shape.rank,
        .dims = {from->input_shape.dims[0]},
    });
    if (worker->running_tiles <= UINT32_MAX - tiles)
        worker->running_tiles += tiles;
    /* Its worker stores it right after the move to RUN: until then it has just begun. */
    uint64_t begun_ns = atomic_load_explicit(&from->started_ns, memory_order_relaxed);
    if (begun_ns == 0)
        begun_ns = UINT64_MAX;
    if (begun_ns > worker->begun_ns)
        worker->begun_ns = begun_ns;
}

static void read_slot(struct survey *survey, struct queue *queue, uint32_t slot)
{
    uint64_t word = queue_word(queue, slot);
    enum queue_state state = queue_word_state(word);
    if (state != QUEUE_FREE)
        survey->result.busy = true;
    switch (state) {
    case QUEUE_RECV: read_receiving(survey, queue, slot); break;
    case QUEUE_READY: survey->jobs[survey->job_count++] = read_job(queue, slot, word); break;
    case QUEUE_LEASED: read_leased(survey, queue, slot, word); break;
    case QUEUE_RUN:
    case QUEUE_STREAM: read_running(survey, queue, slot, word); break;
    default: break;
    }
}

static void lease_tell(const struct queue *queue, const struct placement_lease *lease)
{
    char request_id[QUEUE_ID_MAX];
    queue_request_id(queue, lease->slot, request_id);
    log_event(LOG_LEVEL_DEBUG, "job leased", log_text("request_id", request_id),
              log_number("slot", lease->slot), log_number("worker", lease->worker));
}

/* By way of READY, in which its gateway may withdraw it and a worker may take it. */
static void take_over(struct survey *survey, struct queue *queue, size_t move_count)
{
    for (size_t i = 0; i < move_count; i++) {
        const struct placement_lease *lease = &survey->leases[i];
        uint64_t word;
        if (!queue_move(queue, QUEUE_BROKER, lease->slot, lease->word, QUEUE_READY, 0, &word))
            continue; /* its worker runs it after all */
        survey->result.taken_back++;
        if (!queue_move(queue, QUEUE_BROKER, lease->slot, word, QUEUE_LEASED, lease->worker, NULL))
            continue;
        lease_tell(queue, lease);
        survey->result.leased++;
        survey->wake[lease->worker] = true;
    }
}

static void carry_out(struct survey *survey, struct queue *queue, size_t lease_count)
{
    for (size_t i = 0; i < lease_count; i++) {
        const struct placement_lease *lease = &survey->leases[i];
        if (!queue_move(queue, QUEUE_BROKER, lease->slot, lease->word, QUEUE_LEASED, lease->worker,
                        NULL))
            continue; /* its gateway has withdrawn it */
        lease_tell(queue, lease);
        survey->result.leased++;
        survey->wake[lease->worker] = true;
    }
}

static void wake_workers(const struct survey *survey, const struct queue *queue)
{
    for (size_t i = 0; i < survey->worker_count; i++)
        if (survey->wake[survey->workers[i].index])
            seat_wake(queue, survey->workers[i].index);
}

struct survey_result survey_look(struct survey *survey, struct queue *queue, bool remind)
{
    survey->result = (struct survey_result){0};
    survey->job_count = 0;
    survey->leased_count = 0;
    survey->upload_count = 0;
    read_processes(survey, queue);
    read_rules(survey, queue);
    for (uint32_t slot = 0; slot < queue->slot_count; slot++)
        read_slot(survey, queue, slot);
    for (size_t i = 0; remind && i < survey->worker_count; i++) {
        const struct placement_worker *worker = &survey->workers[i];
        survey->wake[worker->index] = worker->leased_jobs && !worker->running_tiles;
    }
    const struct placement_scene scene = {
        .jobs = survey->jobs,
        .job_count = survey->job_count,
        .leased = survey->leased,
        .leased_count = survey->leased_count,
        .workers = survey->workers,
        .worker_count = survey->worker_count,
        .uploads = survey->uploads,
        .upload_count = survey->upload_count,
        .rules = survey->rules,
        .now_ns = queue_now_ns(),
    };
    size_t leases = placement_decide(&scene, survey->leases, &survey->result.look_ns);
    carry_out(survey, queue, leases);
    size_t moves = placement_take_back(&scene, survey->leases);
    take_over(survey, queue, moves);
    wake_workers(survey, queue);
    return survey->result;
}
