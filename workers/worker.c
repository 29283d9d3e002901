#include "workers/worker.h"
#include "unetserve/log.h"
#include "workers/fields.h"
#include "workers/job.h"

#include <stdarg.h>
#include <stdio.h>

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
                 .respond = host_respond},
    };
}

const char *worker_model_name(const struct worker *worker)
{
    return worker->interface.name[0] ? worker->interface.name : "?";
}
