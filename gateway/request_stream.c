/*
 * Answers that come item by item.
 */
#include "gateway/metrics.h"
#include "gateway/request_parts.h"

#include "unetserve/log.h"

/* The connection ends without the last chunk. libmicrohttpd is done with it only at its next run.
 */
static ssize_t stream_abort(const struct request *request)
{
    request->http->resumed = true;
    return MHD_CONTENT_READER_END_WITH_ERROR;
}

static ssize_t stream_broken(const struct request *request)
{
    log_event(LOG_LEVEL_WARNING, "a stream broke off",
              log_text("request_id", request->answer.request_id));
    return stream_abort(request);
}

/* libmicrohttpd has room for a chunk. The next item if there is one, else the connection is
 * suspended until there is: to return 0 alone would make libmicrohttpd ask again and again. */
static ssize_t stream_read(void *opaque, uint64_t position, char *buffer, size_t size)
{
    (void)position;
    struct request *request = opaque;
    const char *item;
    size_t item_size;
    if (request->state != REQUEST_STREAM)
        return stream_abort(request);
    if (request->text.sent == request->text.size) {
        switch (job_take(request->job, &item, &item_size)) {
        case ITEMS_ONE:
            if (stream_text_set(&request->text, request->form == JOB_EVENTS, item, item_size))
                return stream_broken(request);
            break;
        case ITEMS_NOT_YET: request_suspend(request); return 0;
        case ITEMS_END: request->finished = true; return MHD_CONTENT_READER_END_OF_STREAM;
        case ITEMS_BROKEN: return stream_broken(request);
        }
    }
    size_t taken = stream_text_take(&request->text, buffer, size);
    metrics_streamed(taken);
    return (ssize_t)taken;
}

enum MHD_Result request_begin_stream(struct request *request)
{
    struct answer *answer = &request->answer;
    unsigned stall_s = (request->http->gateway->config.send_timeout_ms + 999) / 1000;
    answer->status = 200;
    answer->type = request->form == JOB_EVENTS ? ANSWER_TYPE_EVENTS : ANSWER_TYPE_LINES;
    answer->close |= request->http->gateway->draining;
    request_set_timing(answer, &(struct job_times){.receive_ms = 0});
    if (MHD_set_connection_option(request->mhd, MHD_CONNECTION_OPTION_TIMEOUT, stall_s) != MHD_YES)
        return MHD_NO;
    if (answer_queue_stream(answer, request->mhd, stream_read, request) != MHD_YES)
        return MHD_NO;
    request_has_answer(request);
    return MHD_YES;
}
