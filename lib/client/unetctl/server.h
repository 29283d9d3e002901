/*
 * The server that a command talks to, over ZeroMQ (libunetserve) or HTTP (libcurl); the rest of
 * unetctl does not know which.
 */
#ifndef SERVER_H
#define SERVER_H

#include "unetserve/client.h"
#include "unetserve/model.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>

struct server_options {
    const char *url;      /* NULL: ZeroMQ */
    const char *endpoint; /* NULL: find one */
    const char *model;    /* NULL: the only one; ZeroMQ */
    int timeout_ms;
    int priority;            /* -9 to 9; over HTTP */
    int patience_ms;         /* ask again after 429 and 503, waiting that long in all; 0: never */
    const atomic_bool *stop; /* ends that waiting; may be NULL */
};

struct server;

/* 0 or negative errno with a sentence. Over HTTP nothing is sent yet. */
int server_open(const struct server_options *options, struct server **out, char *error,
                size_t error_size);
void server_close(struct server *server);

/* One request. 0: an answer came, of whatever status; else negative errno with a sentence. */
int server_predict(struct server *server, const struct unetserve_tensor *input,
                   struct unetserve_answer *answer, char *error, size_t error_size);

/* Likewise with a JSON document. -ENOTSUP over ZeroMQ, which takes tensors. */
int server_ask_document(struct server *server, const char *document, size_t bytes,
                        struct unetserve_answer *answer, char *error, size_t error_size);

typedef int server_task(struct server *server, void *context, char *error, size_t error_size);

/* Do task over *server, which is opened here where it is NULL; over a new connection where one
 * breaks or brings no answer in time, for as long as options->patience_ms says. Returns what the
 * last try returned. *lost: it failed for want of a server. server_close *server at the end. */
int server_endure(const struct server_options *options, struct server **server, server_task *task,
                  void *context, bool *lost, char *error, size_t error_size);

/* The status document (ZeroMQ), or {"info": ..., "health": "ok"} (HTTP). json_decref it. */
int server_status(struct server *server, json_t **out, char *error, size_t error_size);

/* Names, codes and colours of the model's classes. class_count 0 if the server does not tell. */
void server_legend(struct server *server, struct unetserve_interface *out);

#endif
