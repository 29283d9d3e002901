#include "workers/flight.h"

unsigned flight_count(const struct worker *worker)
{
    uint64_t last = 0;
    unsigned count = 0;
    /* By their numbers, of which there are few at once. */
    for (uint64_t seen = UINT64_MAX; worker->interface.flags & UNETSERVE_ON_DEVICE; seen = last) {
        last = 0;
        for (size_t i = 0; i < WORKER_MAX_JOBS; i++) {
            const struct job *job = &worker->jobs[i];
            if (job->pending && atomic_load(&job->completion) == 0 && job->flight < seen &&
                job->flight > last)
                last = job->flight;
        }
        if (last == 0)
            break;
        count++;
    }
    return count;
}

/* Does what could start now fill a batch? A large image is as much work as several usual tiles. */
static bool fills_batch(const struct worker *worker, uint32_t most, const struct job *jobs,
                        size_t count)
{
    const struct unetserve_interface *interface = &worker->interface;
    const struct unetserve_shape *shape = &jobs[0].item.input_shape;
    uint64_t tiles = job_count_tiles(jobs, count);
    if (tiles >= most || shape->rank < 3 || interface->tile == 0)
        return tiles >= most;
    double pixels = (double)shape->dims[shape->rank - 2] * (double)shape->dims[shape->rank - 1];
    double usual = (double)interface->tile * interface->tile;
    return (double)tiles * pixels >= (double)most * usual;
}

bool flight_may_begin(const struct worker *worker, uint32_t most, const struct job *jobs,
                      size_t count)
{
    unsigned flights = count ? flight_count(worker) : 0;
    return flights == 0 || (flights < FLIGHT_MOST && fills_batch(worker, most, jobs, count));
}

void flight_count_busy(struct worker *worker, uint64_t from_ns, bool goes_on)
{
    uint64_t now_ns = queue_now_ns();
    uint64_t busy_ns = now_ns - from_ns;
    atomic_fetch_add(&worker->seat->queue.processes[worker->seat->index].busy_ns, busy_ns);
    counter_add(&seat_counters(worker->seat)->models[worker->model].busy_ns, busy_ns);
    worker->busy_from_ns = goes_on ? now_ns : 0;
}

void flight_count_device(struct worker *worker)
{
    if (worker->busy_from_ns)
        flight_count_busy(worker, worker->busy_from_ns, flight_count(worker) > 0);
}
