#include "workers/stream.h"

#include <errno.h>
#include <poll.h>

/* Wake-ups that get lost cost this much. */
#define LOOK_AGAIN_MS 50

/* Its gateway keeps the time and sets the flag; this is for a gateway and a supervisor that are
 * both dead. */
static bool nobody_keeps_time(const struct job *job)
{
    return job->run_timeout_ns && queue_now_ns() - job->started_ns > 2 * job->run_timeout_ns;
}

static void wait_for_room(struct worker *worker, struct job *job, size_t size)
{
    if (ring_wait(&job->ring, size))
        return;
    /* The wake-up may be for something else: after predict the loop looks for everything. */
    struct pollfd woken = {.fd = worker->seat->event_fd, .events = POLLIN};
    if (!seat_asleep(worker->seat) && poll(&woken, 1, LOOK_AGAIN_MS) > 0)
        seat_clear(worker->seat);
    seat_awake(worker->seat);
    seat_tick(worker->seat);
}

int stream_emit(struct worker *worker, struct job *job, const void *bytes, size_t size)
{
    struct queue *queue = &worker->seat->queue;
    if (!job->scratch)
        return -EINVAL;
    for (;;) {
        if (job_cancelled(queue, job) || nobody_keeps_time(job))
            return -ECANCELED;
        int error = ring_put(&job->ring, bytes, size);
        if (error == 0) {
            seat_tick(worker->seat);
            seat_wake(queue, job->reply_to);
        }
        if (error != -EAGAIN || job->pending)
            return error;
        wait_for_room(worker, job, size);
    }
}
