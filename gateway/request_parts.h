/*
 * What the files of a request share (request.h is what others see of it): request.c is
 * libmicrohttpd's calls, request_suspend.c the time in which the connection is suspended,
 * request_refuse.c and request_slow.c ends before an answer, request_page.c what is not a
 * prediction, request_predict.c the head and the outcome of one that is, request_stream.c answers
 * that come in items.
 */
#ifndef GATEWAY_REQUEST_PARTS_H
#define GATEWAY_REQUEST_PARTS_H

#include "gateway/decoding.h"
#include "gateway/http.h"
#include "gateway/request.h"
#include "gateway/routes.h"
#include "gateway/stream_text.h"

#define REQUEST_BODY_UNKNOWN UINT64_MAX

/* A refused body of at most that many bytes is read to its end, and the connection lives on. */
#define REQUEST_DISCARD_MAX 65536

enum request_state {
    REQUEST_PAGE,
    REQUEST_CHECKING,
    REQUEST_BODY,
    REQUEST_WAITING,
    REQUEST_ANSWER,
    REQUEST_STREAM,
    REQUEST_GONE
};

struct request {
    struct http *http;
    struct connection *connection;
    struct MHD_Connection *mhd;
    enum request_state state;
    uint64_t begun_ns;
    uint64_t body_bytes; /* announced; REQUEST_BODY_UNKNOWN if chunked */
    uint64_t body_seen, discarded;
    bool expects;  /* waits for 100 Continue before it sends its body */
    bool speaks_1; /* HTTP/1.1: knows interim answers */
    struct job *job;
    struct decoder *decoder; /* of a body that comes compressed; else NULL */
    struct route route;
    struct oauth_waiter waiter; /* in CHECKING */
    struct auth_answer *told;   /* what was said of its token */
    struct client client;       /* predictions: whom it counts for */
    struct peer *upload;        /* in BODY: its place among the client's uploads */
    int32_t priority_most;      /* that it may ask for, by its key */
    struct answer answer;
    enum job_form form;
    struct stream_text text; /* of a stream: the item that is going out */
    bool suspended;
    bool kept;        /* waits without being suspended */
    bool answering;   /* libmicrohttpd has its answer */
    uint32_t kept_at; /* in http->kept */
    bool finished;    /* a stream, to its clean end */
    bool half_closed; /* the client ended its own side before the answer began */
    sd_event_source *probe;
};

/* ---- request.c ---- */

/* libmicrohttpd has taken its answer, and sends it. */
void request_has_answer(struct request *request);

/* ---- request_suspend.c ---- */

/* Until request_resume libmicrohttpd leaves the connection alone, and its socket is watched for a
 * client that leaves. */
void request_suspend(struct request *request);

/* Its job is under way: the connection is kept at hand, or suspended. */
void request_wait(struct request *request);

/* In that state from now on; libmicrohttpd calls request_handle for it at its next run. */
void request_resume(struct request *request, enum request_state state);

/* Nobody waits for it any more: its job is dropped, the connection closed at the next run. */
void request_gone(struct request *request);

/* No longer watched as a suspended one, and not kept. */
void request_unwatch(struct request *request);

/* ---- request_refuse.c ---- */

/* Its place among its client's uploads is free. */
void request_upload_over(struct request *request);

/* The job is dropped, and what receives its body freed. */
void request_drop_job(struct request *request);

/* Its answer is set, and the body not read: what libmicrohttpd's handler is to return. */
enum MHD_Result request_answer_early(struct request *request);

/* The same with that problem for an answer. */
enum MHD_Result request_refuse(struct request *request, const struct problem *problem);

/* 408 at once: the connection ends. */
void request_refuse_slow(struct request *request, const char *reason);

void request_set_timing(struct answer *answer, const struct job_times *times);

/* ---- request_slow.c ---- */

/* Is its body on the way, so that it may give way to others? NULL is allowed. */
bool request_receives(const struct request *request);

/* No slot is free: one that waits for a slow body becomes free for that client. False: none did. */
bool request_free_slowest(struct http *http, const struct client *newcomer,
                          const struct admit_load *load);

/* ---- request_page.c ---- */

/* Answered by what is known here: health, metrics, documentation. */
enum MHD_Result request_show(struct request *request, enum route_kind kind);

/* ---- request_predict.c ---- */

/* The value of a header, libmicrohttpd's; NULL: it is not there. */
const char *request_header(const struct request *request, const char *name);

/* Whose request this is, for limits. */
struct client request_client(const struct request *request, const struct api_key *key);

/* The head is in: a job is opened for the body, or the problem says why not (-1). */
int request_admit(struct request *request, uint32_t model, struct problem *problem);

/* ---- request_stream.c ---- */

/* The answer begins, item by item. */
enum MHD_Result request_begin_stream(struct request *request);

#endif
