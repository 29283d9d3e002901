/*
 * One HTTP request, from its head to its answer:
 *
 * - PAGE: the answer is known; a small body that nobody wants is read away first, then it goes out
 * - CHECKING: the connection is suspended while its token is asked about
 * - BODY: a job is receiving
 * - WAITING: the job was accepted, the connection is suspended, and the client's socket is watched
 * - ANSWER: the job is done, the connection was resumed, and the answer goes out at
 *   libmicrohttpd's next call
 * - STREAM: the answer goes out item by item, and the connection is suspended whenever there is
 * none
 * - GONE: the client has left (or the process ends): the connection is closed at libmicrohttpd's
 *   next call
 */
#ifndef GATEWAY_REQUEST_H
#define GATEWAY_REQUEST_H

#include "gateway/answer.h"

#include <microhttpd.h>
#include <stddef.h>
#include <stdint.h>

struct request;

/* What http->requests are made of. */
size_t request_size(void);

/* MHD_AccessHandlerCallback; opaque is the struct http. */
enum MHD_Result request_handle(void *opaque, struct MHD_Connection *mhd, const char *url,
                               const char *method, const char *version, const char *upload,
                               size_t *upload_size, void **context);

/* libmicrohttpd is done with it, answered or not: frees it. */
void request_end(struct request *request);

/* Is its body coming in at the least rate that is allowed? If not it is refused. */
void request_sweep(struct request *request, uint64_t now_ns);

/* The refusal that the request is going to be answered with when its body has been read away, or
 * NULL. */
struct answer *request_refusal(struct request *request);

/* The process ends, and the body is not whole: that is what its client is told, if nothing else was
 * to be. */
void request_turn_away(struct request *request);

/* Those that wait without being so are suspended from now on. */
struct http;
void request_suspend_kept(struct http *http);

/* Close a waiting request without an answer: the process ends. */
void request_give_up(struct request *request);

#endif
