/*
 * unetserve over HTTP, as libunetserve's client does it over ZeroMQ.
 */
#ifndef HTTP_H
#define HTTP_H

#include "unetserve/client.h"

#include <stdbool.h>

#define HTTP_KEY_FIELD_MAX 256

struct http;

/* "X-API-Key: ...", from UNETSERVE_API_KEY. False: there is none, or it is too long for one. */
bool http_key_field(char field[HTTP_KEY_FIELD_MAX]);

/* url: "http://host:8000" (then tiles go to /predict) or with the model's own route. The key comes
 * from UNETSERVE_API_KEY. */
int http_open(const char *url, int timeout_ms, struct http **out, char *error, size_t error_size);
void http_close(struct http *http);

/* What the requests from here on ask for as X-Unetserve-Priority; 0: nothing. */
void http_set_priority(struct http *http, int priority);

int http_predict(struct http *http, const struct unetserve_tensor *input,
                 struct unetserve_answer *answer, char *error, size_t error_size);

/* POST a JSON document to the model's route: what it answers in answer->data. */
int http_ask_document(struct http *http, const char *document, size_t bytes,
                      struct unetserve_answer *answer, char *error, size_t error_size);

/* POST a body to the model's route with these fields of a head, each "Name: value", and the key:
 * the answer's body as it came. */
int http_ask(struct http *http, const char *const *fields, size_t field_count, const void *body,
             size_t bytes, struct unetserve_answer *answer, char *error, size_t error_size);

/* Seconds that the last answer asked to wait before the next try (Retry-After), 0: it did not. */
unsigned http_retry_after_s(const struct http *http);

/* GET a path of the same server ("/info"): the body in answer->data. */
int http_get(struct http *http, const char *path, struct unetserve_answer *answer, char *error,
             size_t error_size);

#endif
