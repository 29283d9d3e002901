#include "broker/placement.h"

#include <stdlib.h>

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

/* May the job wait at this worker? Into an empty place any job may go, however many tiles it has.
 */
static bool may_take(const struct placement_worker *worker, const struct placement_job *job,
                     uint32_t max_batch)
{
    if (worker->model != job->model || worker->generation != job->generation ||
        !has_room(worker, max_batch))
        return false;
    if (worker->leased_jobs == 0)
        return true;
    return !job->alone && shapes_equal(&worker->leased_shape, &job->shape) &&
           job->tiles <= max_batch - worker->leased_tiles;
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

static struct placement_worker *choose_worker(struct placement_worker *workers, size_t count,
                                              const struct placement_job *job, uint32_t max_batch)
{
    struct placement_worker *best = NULL;
    for (size_t i = 0; i < count; i++)
        if (may_take(&workers[i], job, max_batch) && (!best || less_loaded(&workers[i], best)))
            best = &workers[i];
    return best;
}

static uint32_t batch_limit(const uint32_t *max_batch, uint32_t model)
{
    return max_batch[model] ? max_batch[model] : 1;
}

static bool any_room(const struct placement_worker *workers, size_t count,
                     const uint32_t *max_batch)
{
    for (size_t i = 0; i < count; i++)
        if (has_room(&workers[i], batch_limit(max_batch, workers[i].model)))
            return true;
    return false;
}

size_t placement_decide(struct placement_job *jobs, size_t job_count,
                        struct placement_worker *workers, size_t worker_count,
                        const uint32_t *max_batch, uint64_t now_ns, struct placement_lease *leases)
{
    size_t given = 0;
    /* Under overload nobody has room most of the time, and the long line need not even be sorted.
     */
    if (job_count == 0 || !any_room(workers, worker_count, max_batch))
        return 0;
    qsort(jobs, job_count, sizeof *jobs, compare_jobs);
    for (size_t i = 0; i < job_count; i++) {
        const struct placement_job *job = &jobs[i];
        if (job->deadline_ns && job->deadline_ns <= now_ns)
            continue;
        struct placement_worker *worker = choose_worker(workers, worker_count, job,
                                                        batch_limit(max_batch, job->model));
        if (!worker)
            continue;
        placement_add_lease(worker, &job->shape, job->tiles, job->alone);
        leases[given++] = (struct placement_lease){job->slot, job->word, worker->index};
        if (!any_room(workers, worker_count, max_batch))
            break;
    }
    return given;
}
