/*
 * One HTTP answer, before it is known how it goes out: through libmicrohttpd, or written straight
 * to the socket when libmicrohttpd cannot send it (a refusal in the middle of a body, a head that
 * it must never see).
 */
#ifndef GATEWAY_ANSWER_H
#define GATEWAY_ANSWER_H

#include "gateway/compress.h"
#include "gateway/cors.h"

#include "unetserve/problem.h"

#include <gnutls/gnutls.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

#define ANSWER_TYPE_JSON   "application/json"
#define ANSWER_TYPE_TEXT   "text/plain; charset=utf-8"
#define ANSWER_TYPE_HTML   "text/html; charset=utf-8"
#define ANSWER_TYPE_LINES  "application/x-ndjson"
#define ANSWER_TYPE_EVENTS "text/event-stream"

struct answer {
    int status;
    const char *type; /* static */
    void *body;       /* malloc'd, owned; NULL if size is 0 */
    size_t size;
    const char *allow;           /* static; NULL: no such header, here and below */
    const char *authenticate;    /* static, or challenge below */
    const char *accept_encoding; /* static: the codings of request bodies, where one was refused */
    uint32_t retry_after_s;      /* 0: no such header, but 1 with status 503 */
    bool close;                  /* the connection ends after this answer */
    bool queued;                 /* answer_queue has seen it */
    uint32_t model;              /* 1 + the index of the model that it is about; 0: about none */
    enum coding coding;          /* that the client takes; for bodies that are worth it */
    struct cors_grant cors;
    char request_id[64]; /* "" : no such header */
    char policy[256];    /* Content-Security-Policy; "" : no such header */
    char challenge[320]; /* a WWW-Authenticate that is made for it */
    char timing[160];    /* Server-Timing; "" : nothing took any time */
};

/* Give the answer its content. The text is copied; the body of answer_set_body is taken over. What
 * was there is freed. answer_set_text returns -ENOMEM and leaves an empty body when there is no
 * memory. */
int answer_set_text(struct answer *answer, int status, const char *type, const char *text);
void answer_set_body(struct answer *answer, int status, const char *type, void *body, size_t size);
int answer_set_problem(struct answer *answer, const struct problem *problem);

void answer_free(struct answer *answer);

/* Queue it on a connection whose request has been read whole. The body changes hands. */
enum MHD_Result answer_queue(struct answer *answer, struct MHD_Connection *connection);

/* The same with a body that is made as it goes: reader is libmicrohttpd's, one call a chunk. The
 * answer's own body is not sent. */
enum MHD_Result answer_queue_stream(struct answer *answer, struct MHD_Connection *connection,
                                    MHD_ContentReaderCallback reader, void *opaque);

/* Write it to a socket at once, with Connection: close; through `tls` where that is not NULL, which
 * is told then that nothing more will come. Only for answers of a few kilobytes: 0 if the kernel
 * took all of it, -EAGAIN or another error if not (the connection is of no more use then). */
int answer_send(const struct answer *answer, int fd, gnutls_session_t tls);

#endif
