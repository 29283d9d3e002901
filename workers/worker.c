#include "workers/worker.h"
#include "unetserve/log.h"
#include "workers/fields.h"
#include "workers/stream.h"
#include "workers/watch.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

_Static_assert(UNETSERVE_MAX_METRICS == COUNTERS_OWN_MAX, "each has its place");

static void host_log(const struct unetserve_host *host, int level, const char *format, ...)
{
    const struct worker *worker = host->opaque;
    char text[LOG_LINE_MAX / 2];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    log_event((enum log_level)level, text, log_text("model", worker_model_name(worker)));
}

static void host_tick(const struct unetserve_host *host)
{
    const struct worker *worker = host->opaque;
    seat_tick(worker->seat);
}

static bool host_cancelled(const struct unetserve_host *host, const struct unetserve_item *item)
{
    const struct worker *worker = host->opaque;
    return job_cancelled(&worker->seat->queue, item->host_item);
}

static int host_respond(const struct unetserve_host *host, struct unetserve_item *item,
                        const struct unetserve_value *values)
{
    const struct worker *worker = host->opaque;
    size_t length;
    int error = fields_write(&worker->interface, values, item->output, item->output_capacity,
                             &length);
    if (error)
        return error;
    item->output_bytes = length;
    return 0;
}

static int host_emit(const struct unetserve_host *host, struct unetserve_item *item,
                     const void *bytes, size_t size)
{
    return stream_emit(host->opaque, item->host_item, bytes, size);
}

static int host_emit_values(const struct unetserve_host *host, struct unetserve_item *item,
                            const struct unetserve_value *values)
{
    const struct worker *worker = host->opaque;
    size_t length;
    int error = fields_write(&worker->interface, values, item->output, item->output_capacity,
                             &length);
    return error ? error : host_emit(host, item, item->output, length);
}

static void host_complete(const struct unetserve_host *host, struct unetserve_item *item, int error)
{
    const struct worker *worker = host->opaque;
    struct job *job = item->host_item;
    atomic_store_explicit(&job->completion, error < 0 ? error : 1, memory_order_release);
    if (worker->completed_fd >= 0)
        (void)!write(worker->completed_fd, &(uint64_t){1}, sizeof(uint64_t));
}

static int host_watch(const struct unetserve_host *host, int fd, uint32_t events,
                      watch_ready *ready, void *opaque)
{
    return watch_add(host->opaque, fd, events, ready, opaque);
}

static void host_unwatch(const struct unetserve_host *host, int fd)
{
    watch_remove(host->opaque, fd);
}

static int host_count(const struct unetserve_host *host, const char *name, double more)
{
    const struct worker *worker = host->opaque;
    return counters_own_set(seat_counters(worker->seat), worker->model, name, COUNTERS_COUNTER,
                            more);
}

static int host_gauge(const struct unetserve_host *host, const char *name, double value)
{
    const struct worker *worker = host->opaque;
    return counters_own_set(seat_counters(worker->seat), worker->model, name, COUNTERS_GAUGE,
                            value);
}

static int host_area(const struct unetserve_host *host, const void *address,
                     struct unetserve_area *out)
{
    const struct worker *worker = host->opaque;
    return queue_find_area(&worker->seat->queue, address, out);
}

static void host_lost(const struct unetserve_host *host, uint32_t why)
{
    struct worker *worker = host->opaque;
    worker->loss = why;
}

unsigned worker_pending(const struct worker *worker)
{
    unsigned count = 0;
    for (size_t i = 0; i < WORKER_MAX_JOBS; i++)
        count += worker->jobs[i].pending;
    return count;
}

void worker_init(struct worker *worker, struct seat *seat, uint32_t model, uint32_t generation)
{
    *worker = (struct worker){
        .seat = seat,
        .model = model,
        .generation = generation,
        .host = {.abi = UNETSERVE_MODEL_ABI,
                 .size = sizeof worker->host,
                 .log = host_log,
                 .tick = host_tick,
                 .cancelled = host_cancelled,
                 .opaque = worker,
                 .respond = host_respond,
                 .emit = host_emit,
                 .emit_values = host_emit_values,
                 .complete = host_complete,
                 .watch = host_watch,
                 .unwatch = host_unwatch,
                 .count = host_count,
                 .gauge = host_gauge,
                 .area = host_area,
                 .lost = host_lost},
        .retire_fd = -1,
        .completed_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
    };
    counters_own_begin(seat_counters(seat));
}

const char *worker_model_name(const struct worker *worker)
{
    return worker->interface.name[0] ? worker->interface.name : "?";
}
