#include "gateway/answer.h"

#include "gateway/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

void answer_free(struct answer *answer)
{
    free(answer->body);
    answer->body = NULL;
    answer->size = 0;
}

void answer_set_body(struct answer *answer, int status, const char *type, void *body, size_t size)
{
    answer_free(answer);
    answer->status = status;
    answer->type = type;
    answer->body = body;
    answer->size = size;
}

int answer_set_text(struct answer *answer, int status, const char *type, const char *text)
{
    char *copy = strdup(text);
    answer_set_body(answer, status, type, copy, copy ? strlen(copy) : 0);
    return copy ? 0 : -ENOMEM;
}

int answer_set_problem(struct answer *answer, const struct problem *problem)
{
    return answer_set_text(answer, problem->status, ANSWER_TYPE_JSON, problem->body);
}

/* What libmicrohttpd asks for at a time where there are no chunks (HTTP/1.0). */
#define STREAM_BLOCK 16384

/* ---- headers, once for both ways out ---- */

/* Pages, and heads that nobody could read. */
static const char no_time[] =
    "receive;dur=0.000, queue;dur=0.000, forward;dur=0.000, encode;dur=0.000";

typedef void emit_header(void *out, const char *name, const char *value);

/* What caches have to tell apart. */
static void emit_vary(bool compressible, emit_header *emit, void *out)
{
    if (compressible)
        emit(out, "Vary", cors_varies() ? "Accept-Encoding, Origin" : "Accept-Encoding");
    else if (cors_varies())
        emit(out, "Vary", "Origin");
}

static void emit_all(const struct answer *answer, bool compressible, emit_header *emit, void *out)
{
    emit(out, "Server", "unetserve");
    if (answer->type)
        emit(out, "Content-Type", answer->type);
    if (answer->request_id[0])
        emit(out, "X-Request-Id", answer->request_id);
    emit(out, "Server-Timing", answer->timing[0] ? answer->timing : no_time);
    if (answer->allow)
        emit(out, "Allow", answer->allow);
    if (answer->authenticate)
        emit(out, "WWW-Authenticate", answer->authenticate);
    if (answer->accept_encoding)
        emit(out, "Accept-Encoding", answer->accept_encoding);
    if (answer->retry_after_s || answer->status == 503) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%u", answer->retry_after_s ? answer->retry_after_s : 1);
        emit(out, "Retry-After", seconds);
    }
    cors_write(&answer->cors, emit, out);
    emit_vary(compressible, emit, out);
    if (answer->policy[0]) {
        emit(out, "Content-Security-Policy", answer->policy);
        emit(out, "X-Content-Type-Options", "nosniff");
        emit(out, "Referrer-Policy", "no-referrer");
        emit(out, "Cache-Control", "no-store"); /* each page has words of its own in its policy */
    }
    if (answer->close)
        emit(out, "Connection", "close");
}

static void emit_to_response(void *out, const char *name, const char *value)
{
    /* Fails only without memory; the answer is of use without the header too. */
    (void)MHD_add_response_header(out, name, value);
}

static ssize_t on_compressed(void *opaque, uint64_t position, char *buffer, size_t size)
{
    (void)position;
    ssize_t made = compressor_read(opaque, buffer, size);
    if (made < 0)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    metrics_streamed((size_t)made);
    return made ? made : MHD_CONTENT_READER_END_OF_STREAM;
}

static void on_compressed_over(void *opaque)
{
    compressor_close(opaque, false);
}

/* Short enough to be done at once: 0; or -1, and the answer is as it was, when that would not make
 * it smaller. */
static int compress_whole(struct answer *answer, struct compressor *compressor)
{
    char *smaller = malloc(answer->size);
    size_t used = 0;
    ssize_t made = smaller ? 1 : -ENOMEM;
    while (made > 0 && used < answer->size) {
        made = compressor_read(compressor, smaller + used, answer->size - used);
        used += made > 0 ? (size_t)made : 0;
    }
    compressor_close(compressor, true);
    if (made) {
        free(smaller);
        return -1;
    }
    free(answer->body);
    answer->body = smaller;
    answer->size = used;
    return 0;
}

static struct MHD_Response *response_make(struct answer *answer)
{
    enum MHD_ResponseMemoryMode mode = answer->size ? MHD_RESPMEM_MUST_FREE
                                                    : MHD_RESPMEM_PERSISTENT;
    static char nothing[1];
    struct MHD_Response *response = MHD_create_response_from_buffer(
        answer->size, answer->size ? answer->body : nothing, mode);
    if (!response)
        return NULL;
    metrics_answered(answer->model - 1u, answer->status, answer->size);
    if (!answer->size)
        free(answer->body);
    return response;
}

/* A body that nobody can read is none: without memory for this header the connection ends. */
static struct MHD_Response *name_coding(struct answer *answer, struct MHD_Response *response)
{
    if (MHD_add_response_header(response, "Content-Encoding", compress_name(answer->coding)) ==
        MHD_YES)
        return response;
    MHD_destroy_response(response);
    answer->queued = true;
    answer->body = NULL;
    answer->size = 0;
    return NULL;
}

/* The body in the client's coding, or as it is where there is no memory for that. NULL: neither. */
static struct MHD_Response *response_make_coded(struct answer *answer)
{
    struct compressor *compressor = compressor_open(answer->coding, answer->body, answer->size);
    struct MHD_Response *response;
    if (!compressor)
        return response_make(answer);
    if (answer->size <= COMPRESS_PIECE) {
        bool smaller = compress_whole(answer, compressor) == 0;
        response = response_make(answer);
        return response && smaller ? name_coding(answer, response) : response;
    }
    response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, on_compressed,
                                                 compressor, on_compressed_over);
    if (!response) {
        compressor_close(compressor, true);
        return response_make(answer);
    }
    metrics_answered(answer->model - 1u, answer->status, 0);
    return name_coding(answer, response);
}

enum MHD_Result answer_queue(struct answer *answer, struct MHD_Connection *connection)
{
    bool compressible = compress_fits(answer->type, answer->size);
    struct MHD_Response *response = compressible && answer->coding != CODING_IDENTITY
                                        ? response_make_coded(answer)
                                        : response_make(answer);
    if (!response)
        return MHD_NO;
    answer->queued = true;
    answer->body = NULL;
    answer->size = 0;
    emit_all(answer, compressible, emit_to_response, response);
    enum MHD_Result queued = MHD_queue_response(connection, (unsigned)answer->status, response);
    MHD_destroy_response(response);
    return queued;
}

enum MHD_Result answer_queue_stream(struct answer *answer, struct MHD_Connection *connection,
                                    MHD_ContentReaderCallback reader, void *opaque)
{
    metrics_answered(answer->model - 1u, answer->status, 0);
    answer->queued = true;
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, STREAM_BLOCK, reader, opaque, NULL);
    if (!response)
        return MHD_NO;
    emit_all(answer, false, emit_to_response, response);
    /* What comes is meant to be seen at once, by proxies too, and is not to be kept. */
    emit_to_response(response, "Cache-Control", "no-store");
    emit_to_response(response, "X-Accel-Buffering", "no");
    enum MHD_Result queued = MHD_queue_response(connection, (unsigned)answer->status, response);
    MHD_destroy_response(response);
    return queued;
}

struct text {
    char bytes[5120]; /* the longest head there is: most of it the configuration's CORS lists */
    size_t size;
};

static void text_add(struct text *text, const char *piece)
{
    size_t size = strlen(piece);
    if (size > sizeof text->bytes - text->size)
        size = sizeof text->bytes - text->size;
    memcpy(text->bytes + text->size, piece, size);
    text->size += size;
}

static void emit_to_text(void *out, const char *name, const char *value)
{
    struct text *text = out;
    text_add(text, name);
    text_add(text, ": ");
    text_add(text, value);
    text_add(text, "\r\n");
}

/* In one record after the other: corked ones would be kept, and sent later, where there is no room.
 */
static int tls_send(gnutls_session_t tls, const struct iovec *parts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t at = 0; at < parts[i].iov_len;) {
            ssize_t sent = gnutls_record_send(tls, (const char *)parts[i].iov_base + at,
                                              parts[i].iov_len - at);
            if (sent <= 0)
                return sent == GNUTLS_E_AGAIN ? -EAGAIN : -EPIPE;
            at += (size_t)sent;
        }
    return gnutls_bye(tls, GNUTLS_SHUT_WR) ? -EAGAIN : 0;
}

int answer_send(const struct answer *answer, int fd, gnutls_session_t tls)
{
    metrics_answered(answer->model - 1u, answer->status, answer->size);
    struct text head = {.size = 0};
    char line[96];
    snprintf(line, sizeof line, "HTTP/1.1 %d %s\r\nContent-Length: %zu\r\n", answer->status,
             MHD_get_reason_phrase_for((unsigned)answer->status), answer->size);
    text_add(&head, line);
    struct answer closing = *answer;
    closing.close = true;
    emit_all(&closing, false, emit_to_text, &head);
    text_add(&head, "\r\n");
    struct iovec parts[2] = {{head.bytes, head.size}, {answer->body, answer->size}};
    if (tls)
        return tls_send(tls, parts, answer->size ? 2 : 1);
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = answer->size ? 2 : 1};
    ssize_t sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0)
        return -errno;
    return (size_t)sent == head.size + answer->size ? 0 : -EAGAIN;
}
