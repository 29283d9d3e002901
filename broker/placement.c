#include "broker/placement.h"

#include "unetserve/handover.h"
#include "unetserve/queue.h"

#include <stdlib.h>

/* Each shape that is held costs a walk through the jobs. Those beyond are not held. */
#define HELD_SHAPES_MAX 64

static int compare_jobs(const void *a, const void *b)
{
    const struct placement_job *x = a;
    const struct placement_job *y = b;
    if (x->priority != y->priority)
        return x->priority > y->priority ? -1 : 1;
    if (x->accepted_ns != y->accepted_ns)
        return x->accepted_ns < y->accepted_ns ? -1 : 1;
    return (x->slot > y->slot) - (x->slot < y->slot);
}

static bool shapes_equal(const struct unetserve_shape *a, const struct unetserve_shape *b)
{
    if (a->dtype != b->dtype || a->rank != b->rank)
        return false;
    for (uint32_t i = 0; i < a->rank && i < UNETSERVE_MAX_DIMS; i++)
        if (a->dims[i] != b->dims[i])
            return false;
    return true;
}

/* Sums of tiles come from shared memory and must not wrap into "nothing to do". */
static uint32_t add_tiles(uint32_t a, uint32_t b)
{
    return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

uint32_t placement_tiles(const struct unetserve_shape *shape)
{
    if (shape->rank != 4 || shape->dims[0] == 0)
        return 1;
    return shape->dims[0] > UINT32_MAX ? UINT32_MAX : (uint32_t)shape->dims[0];
}

void placement_add_lease(struct placement_worker *worker, const struct unetserve_shape *shape,
                         uint32_t tiles, bool alone)
{
    if (worker->leased_jobs == 0)
        worker->leased_shape = *shape;
    worker->leased_jobs++;
    worker->leased_tiles = add_tiles(worker->leased_tiles, tiles);
    worker->leased_alone = worker->leased_alone || alone;
}

static bool has_room(const struct placement_worker *worker, uint32_t max_batch)
{
    return worker->usable && (worker->leased_jobs == 0 ||
                              (!worker->leased_alone && worker->leased_tiles < max_batch));
}

static uint32_t batch_limit(const struct placement_scene *scene,
                            const struct placement_worker *worker)
{
    uint32_t limit = scene->rules[worker->model].max_batch;
    limit = limit ? limit : 1;
    return worker->max_batch && worker->max_batch < limit ? worker->max_batch : limit;
}

/* May the job wait at this worker? Into an empty place any job may go, however many tiles it has.
 */
static bool may_take(const struct placement_scene *scene, const struct placement_worker *worker,
                     const struct placement_job *job)
{
    if (worker->model != job->model || worker->generation != job->generation)
        return false;
    uint32_t limit = batch_limit(scene, worker);
    if (!has_room(worker, limit))
        return false;
    if (worker->leased_jobs == 0)
        return true;
    return !job->alone && shapes_equal(&worker->leased_shape, &job->shape) &&
           job->tiles <= limit - worker->leased_tiles;
}

static bool less_loaded(const struct placement_worker *a, const struct placement_worker *b)
{
    uint32_t load_a = add_tiles(a->running_tiles, a->leased_tiles);
    uint32_t load_b = add_tiles(b->running_tiles, b->leased_tiles);
    if (load_a != load_b)
        return load_a < load_b;
    /* At equal load the one that has not started yet: the job joins its batch and waits for nobody.
     */
    return a->running_tiles < b->running_tiles;
}

static struct placement_worker *choose_worker(const struct placement_scene *scene,
                                              const struct placement_job *job)
{
    struct placement_worker *best = NULL;
    for (size_t i = 0; i < scene->worker_count; i++)
        if (may_take(scene, &scene->workers[i], job) &&
            (!best || less_loaded(&scene->workers[i], best)))
            best = &scene->workers[i];
    return best;
}

static bool any_room(const struct placement_scene *scene)
{
    for (size_t i = 0; i < scene->worker_count; i++)
        if (has_room(&scene->workers[i], batch_limit(scene, &scene->workers[i])))
            return true;
    return false;
}

/* ---- holding ---- */

/* May they run together? */
static bool alike(const struct placement_job *a, const struct placement_job *b)
{
    return a->model == b->model && a->generation == b->generation && !a->alone && !b->alone &&
           shapes_equal(&a->shape, &b->shape);
}

/* Jobs of one shape that wait. */
struct group {
    uint32_t jobs;
    uint64_t oldest_ns;
    uint64_t deadline_ns; /* the first; UINT64_MAX: none */
};

static bool is_late(const struct placement_job *job, uint64_t now_ns)
{
    return job->deadline_ns && job->deadline_ns <= now_ns;
}

static struct group find_group(const struct placement_scene *scene, size_t from)
{
    struct group group = {.oldest_ns = scene->now_ns, .deadline_ns = UINT64_MAX};
    const struct placement_job *first = &scene->jobs[from];
    for (size_t i = from; i < scene->job_count; i++) {
        const struct placement_job *job = &scene->jobs[i];
        if (job->settled || is_late(job, scene->now_ns) || !alike(first, job))
            continue;
        group.jobs++;
        if (job->accepted_ns < group.oldest_ns)
            group.oldest_ns = job->accepted_ns;
        if (job->deadline_ns && job->deadline_ns < group.deadline_ns)
            group.deadline_ns = job->deadline_ns;
    }
    return group;
}

/* When the last of those bodies will be whole that could run together with the job and will be
 * there by the end; 0: there is none. */
static uint64_t last_upload(const struct placement_scene *scene, const struct placement_job *job,
                            uint64_t end_ns)
{
    uint64_t last_ns = 0;
    uint64_t key = queue_shape_key(&job->shape);
    for (size_t i = 0; i < scene->upload_count; i++) {
        const struct placement_upload *upload = &scene->uploads[i];
        bool fits = upload->model == job->model && upload->generation == job->generation &&
                    (upload->shape_key == 0 || upload->shape_key == key);
        bool in_time = upload->ends_ns <= end_ns &&
                       upload->ends_ns + PLACEMENT_GRACE_NS > scene->now_ns;
        if (fits && in_time && upload->ends_ns + PLACEMENT_GRACE_NS > last_ns)
            last_ns = upload->ends_ns + PLACEMENT_GRACE_NS;
    }
    return last_ns < end_ns ? last_ns : end_ns;
}

static bool is_idle(const struct placement_worker *worker)
{
    return worker->running_tiles == 0 && worker->leased_jobs == 0;
}

static bool other_is_idle(const struct placement_scene *scene,
                          const struct placement_worker *worker)
{
    for (size_t i = 0; i < scene->worker_count; i++) {
        const struct placement_worker *other = &scene->workers[i];
        if (other != worker && other->usable && other->model == worker->model &&
            other->generation == worker->generation && is_idle(other))
            return true;
    }
    return false;
}

/* Until when the job, and others like it, should wait before they go to that worker, which holds
 * nothing yet; now or earlier: not at all. */
static uint64_t hold_until(const struct placement_scene *scene, size_t number,
                           const struct placement_worker *worker)
{
    const struct placement_job *job = &scene->jobs[number];
    const struct placement_rule *rule = &scene->rules[job->model];
    uint32_t capacity = batch_limit(scene, worker) / job->tiles;
    if (rule->window_ns == 0 || capacity < 2 || job->alone ||
        (!rule->always && (!is_idle(worker) || other_is_idle(scene, worker))))
        return 0;
    struct group group = find_group(scene, number);
    uint64_t end_ns = group.oldest_ns + rule->window_ns;
    if (group.jobs >= capacity || end_ns <= scene->now_ns ||
        group.deadline_ns < end_ns + PLACEMENT_MARGIN_NS)
        return 0;
    return rule->always ? end_ns : last_upload(scene, job, end_ns);
}

static void hold_group(const struct placement_scene *scene, size_t number)
{
    const struct placement_job *first = &scene->jobs[number];
    for (size_t i = scene->job_count; i-- > number;)
        if (alike(first, &scene->jobs[i]))
            scene->jobs[i].settled = true;
}

/* ---- handing out ---- */

static struct placement_lease lease(struct placement_job *job, struct placement_worker *worker)
{
    placement_add_lease(worker, &job->shape, job->tiles, job->alone);
    job->settled = true;
    return (struct placement_lease){job->slot, job->word, worker->index};
}

/* The job, and by the rule `always` those that were held with it. */
static size_t lease_group(const struct placement_scene *scene, size_t number,
                          struct placement_worker *worker, struct placement_lease *leases)
{
    size_t given = 0;
    const struct placement_rule *rule = &scene->rules[scene->jobs[number].model];
    leases[given++] = lease(&scene->jobs[number], worker);
    for (size_t i = number + 1; rule->always && rule->window_ns && i < scene->job_count; i++)
        if (!scene->jobs[i].settled && !is_late(&scene->jobs[i], scene->now_ns) &&
            may_take(scene, worker, &scene->jobs[i]))
            leases[given++] = lease(&scene->jobs[i], worker);
    return given;
}

size_t placement_decide(const struct placement_scene *scene, struct placement_lease *leases,
                        uint64_t *look_ns)
{
    size_t given = 0;
    unsigned held = 0;
    *look_ns = 0;
    /* Under overload nobody has room most of the time, and the long line need not even be sorted.
     */
    if (scene->job_count == 0 || !any_room(scene))
        return 0;
    qsort(scene->jobs, scene->job_count, sizeof *scene->jobs, compare_jobs);
    for (size_t i = 0; i < scene->job_count; i++)
        scene->jobs[i].settled = scene->jobs[i].held = false;
    for (size_t i = 0; i < scene->job_count; i++) {
        struct placement_job *job = &scene->jobs[i];
        if (job->settled || is_late(job, scene->now_ns))
            continue;
        struct placement_worker *worker = choose_worker(scene, job);
        if (!worker)
            continue;
        uint64_t until_ns = worker->leased_jobs || held == HELD_SHAPES_MAX
                                ? 0
                                : hold_until(scene, i, worker);
        if (until_ns > scene->now_ns) {
            held++;
            job->held = true;
            hold_group(scene, i);
            *look_ns = *look_ns && *look_ns < until_ns ? *look_ns : until_ns;
            continue;
        }
        given += lease_group(scene, i, worker, leases + given);
        if (!any_room(scene))
            break;
    }
    return given;
}

/* ---- taking back ---- */

/* How many shapes are held that such a worker will run. */
static size_t count_held(const struct placement_scene *scene, const struct placement_worker *worker)
{
    size_t held = 0;
    for (size_t i = 0; i < scene->job_count; i++)
        held += scene->jobs[i].held && scene->jobs[i].model == worker->model &&
                scene->jobs[i].generation == worker->generation;
    return held;
}

/* Whoever is still idle, though what is in READY was handed out; but for as many as are held for.
 * False: there is none. */
static bool find_spare(const struct placement_scene *scene)
{
    bool any = false;
    for (size_t i = 0; i < scene->worker_count; i++) {
        struct placement_worker *worker = &scene->workers[i];
        worker->spare = false;
        if (!worker->usable || !is_idle(worker))
            continue;
        size_t held = count_held(scene, worker);
        for (size_t k = 0; held && k < i; k++) {
            const struct placement_worker *other = &scene->workers[k];
            held -= other->usable && is_idle(other) && other->model == worker->model &&
                    other->generation == worker->generation;
        }
        worker->spare = held == 0;
        any = any || worker->spare;
    }
    return any;
}

static struct placement_worker *choose_spare(const struct placement_scene *scene,
                                             const struct placement_job *job)
{
    struct placement_worker *best = NULL;
    for (size_t i = 0; i < scene->worker_count; i++) {
        struct placement_worker *worker = &scene->workers[i];
        if (worker->spare && may_take(scene, worker, job) && (!best || less_loaded(worker, best)))
            best = worker;
    }
    return best;
}

/* Is what waits at that worker stuck? Who runs nothing is about to run it. */
static bool is_stuck(const struct placement_scene *scene, const struct placement_worker *worker)
{
    return worker->running_tiles > 0 &&
           handover_patient_until(worker->begun_ns, scene->now_ns) <= scene->now_ns;
}

static void drop_lease(struct placement_worker *worker, const struct placement_job *job)
{
    worker->leased_jobs--;
    worker->leased_tiles -= job->tiles < worker->leased_tiles ? job->tiles : worker->leased_tiles;
    worker->leased_alone = worker->leased_alone && worker->leased_jobs;
}

size_t placement_take_back(const struct placement_scene *scene, struct placement_lease *moves)
{
    size_t moved = 0;
    if (scene->leased_count == 0 || !find_spare(scene))
        return 0;
    qsort(scene->leased, scene->leased_count, sizeof *scene->leased, compare_jobs);
    for (size_t i = 0; i < scene->leased_count; i++) {
        struct placement_job *job = &scene->leased[i];
        struct placement_worker *holder = &scene->workers[job->holder];
        if (is_late(job, scene->now_ns) || !is_stuck(scene, holder))
            continue;
        struct placement_worker *worker = choose_spare(scene, job);
        if (!worker)
            continue;
        drop_lease(holder, job);
        moves[moved++] = lease(job, worker);
    }
    return moved;
}
