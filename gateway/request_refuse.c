/*
 * Requests that end before their time: what is answered, and how.
 */
#include "gateway/metrics.h"
#include "gateway/request_parts.h"

#include "unetserve/log.h"

#include <string.h>

void request_upload_over(struct request *request)
{
    if (request->upload)
        peers_leave(&request->http->uploads, request->upload);
    request->upload = NULL;
}

void request_drop_job(struct request *request)
{
    request_upload_over(request);
    decoder_close(request->decoder);
    request->decoder = NULL;
    if (request->job)
        job_drop(request->job);
    request->job = NULL;
}

/* The answer is known and the body is not all there. A short rest is read away; before a long one,
 * or one that the client has not begun to send, the answer is written past libmicrohttpd (it cannot
 * answer in the middle of a body) and the connection ends in the lingering closer. */
enum MHD_Result request_answer_early(struct request *request)
{
    request_drop_job(request);
    request->state = REQUEST_PAGE;
    uint64_t rest = request->body_bytes == REQUEST_BODY_UNKNOWN
                        ? 0
                        : request->body_bytes - request->body_seen;
    bool awaited = request->expects && request->body_seen == 0 && request->body_bytes > 0;
    if (rest <= REQUEST_DISCARD_MAX && !awaited)
        return MHD_YES;
    connection_refuse(request->connection, &request->answer, false);
    return MHD_NO;
}

/* NAME;dur=MILLISECONDS with three decimals: printf takes longer for four of them than a tiny job.
 */
static char *put_time(char *at, const char *name, double ms)
{
    char digits[24];
    size_t count = 0;
    /* Beyond ten thousand years, and below nothing, nobody measures. */
    uint64_t us = ms > 0 && ms < 1e15 ? (uint64_t)(ms * 1e3 + 0.5) : 0;
    at = stpcpy(stpcpy(at, name), ";dur=");
    for (; us || count < 4; us /= 10) {
        digits[count++] = (char)('0' + us % 10);
        if (count == 3)
            digits[count++] = '.';
    }
    if (digits[count - 1] == '.')
        digits[count++] = '0';
    while (count > 0)
        *at++ = digits[--count];
    *at = '\0';
    return at;
}

void request_set_timing(struct answer *answer, const struct job_times *times)
{
    _Static_assert(sizeof answer->timing >= 4 * (sizeof "forward;dur=, " + 24),
                   "four of the longest");
    char *at = put_time(answer->timing, "receive", times->receive_ms);
    at = put_time(at, ", queue", times->queue_ms);
    at = put_time(at, ", forward", times->forward_ms);
    put_time(at, ", encode", times->encode_ms);
}

enum MHD_Result request_refuse(struct request *request, const struct problem *problem)
{
    /* Without memory the status goes out without its sentence. */
    (void)answer_set_problem(&request->answer, problem);
    request->answer.retry_after_s = problem->retry_after_s;
    log_event(LOG_LEVEL_DEBUG, "request refused",
              log_text("request_id", request->answer.request_id),
              log_number("status", problem->status));
    request_set_timing(
        &request->answer,
        &(struct job_times){.receive_ms = (double)(queue_now_ns() - request->begun_ns) / 1e6});
    return request_answer_early(request);
}

void request_refuse_slow(struct request *request, const char *reason)
{
    request_drop_job(request);
    request->state = REQUEST_GONE;
    metrics_refused(COUNTERS_REFUSED_SLOW);
    connection_refuse_text(request->connection, 408, reason, true);
}
