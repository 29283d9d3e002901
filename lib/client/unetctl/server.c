#include "server.h"

#include "http.h"
#include "lib/client/endpoint.h"
#include "unetserve/interface_text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct server {
    struct server_options options;
    struct unetserve_client *client; /* ZeroMQ */
    struct http *http;
    bool lost; /* the last request's connection */
};

/* What is asked: a tensor, or a document. */
struct server_request {
    const struct unetserve_tensor *tensor;
    const char *document;
    size_t bytes;
};

/* ---- open and close ---- */

static int server_open_client(struct server *server, char *error, size_t error_size)
{
    const char *endpoint = server->options.endpoint;
    int rc = unetserve_client_open(endpoint, &server->client);
    if (rc == -ENOENT) {
        snprintf(error, error_size,
                 "no unetserve of this user runs here; name one with --endpoint or --url");
        return -ENODEV;
    }
    if (rc == -EBUSY) {
        char list[2048] = "";
        (void)endpoint_find(list, sizeof list);
        for (char *end = list; (end = strchr(end, '\n')); end++)
            *end = ' ';
        snprintf(error, error_size, "several unetserves run here, choose one with --endpoint: %s",
                 list);
        return -EINVAL;
    }
    if (rc < 0)
        snprintf(error, error_size,
                 "'%s' is no ZeroMQ address, expected ipc://PATH or tcp://HOST:PORT",
                 endpoint ? endpoint : getenv("UNETSERVE_ENDPOINT"));
    return rc;
}

int server_open(const struct server_options *options, struct server **out, char *error,
                size_t error_size)
{
    struct server *server = calloc(1, sizeof *server);
    if (!server) {
        snprintf(error, error_size, "no memory");
        return -ENOMEM;
    }
    server->options = *options;
    int rc = options->url
                 ? http_open(options->url, options->timeout_ms, &server->http, error, error_size)
                 : server_open_client(server, error, error_size);
    if (rc < 0) {
        free(server);
        return rc;
    }
    if (server->http)
        http_set_priority(server->http, options->priority);
    *out = server;
    return 0;
}

void server_close(struct server *server)
{
    if (!server)
        return;
    unetserve_client_close(server->client);
    http_close(server->http);
    free(server);
}

/* ---- requests ---- */

static int client_explain(const struct server *server, int rc, char *error, size_t error_size)
{
    const char *reason = strerror(-rc);
    switch (-rc) {
    case ETIMEDOUT:
        snprintf(error, error_size, "the server did not answer within %d ms",
                 server->options.timeout_ms);
        return rc;
    case EIO:
        reason = "the connection broke: it went away, or the tile is larger than it takes";
        break;
    case EBADMSG: reason = "its answer makes no sense"; break;
    default: break;
    }
    snprintf(error, error_size, "cannot talk to the server: %s", reason);
    return rc == -EBADMSG ? -EPROTO : rc;
}

/* Pauses between tries, each twice the last, with an end to patience. */
struct patience {
    const atomic_bool *stop;
    int pause_ms, left_ms;
};

static struct patience patience_begin(const struct server_options *options)
{
    return (struct patience){options->stop, 250, options->patience_ms};
}

/* One pause; asked_s: as long as the server asked for, 0: it did not. False: patience is at an end,
 * or somebody says stop. */
static bool patience_wait(struct patience *patience, unsigned asked_s)
{
    int wait_ms = asked_s ? (int)asked_s * 1000 : patience->pause_ms;
    if (wait_ms > patience->left_ms)
        return false;
    patience->left_ms -= wait_ms;
    patience->pause_ms = patience->pause_ms < 8000 ? patience->pause_ms * 2 : patience->pause_ms;
    for (; wait_ms > 0; wait_ms -= 50) {
        if (patience->stop && atomic_load(patience->stop))
            return false;
        const struct timespec slice = {0, 50000000};
        nanosleep(&slice, NULL);
    }
    return true;
}

static int server_ask(struct server *server, const struct server_request *request,
                      struct unetserve_answer *answer, char *error, size_t error_size)
{
    if (server->http)
        return request->tensor
                   ? http_predict(server->http, request->tensor, answer, error, error_size)
                   : http_ask_document(server->http, request->document, request->bytes, answer,
                                       error, error_size);
    if (!request->tensor) {
        snprintf(error, error_size, "JSON goes over HTTP: say where with --url");
        return -ENOTSUP;
    }
    int rc = unetserve_client_predict(server->client, server->options.model, request->tensor,
                                      server->options.timeout_ms, answer);
    return rc < 0 ? client_explain(server, rc, error, error_size) : 0;
}

/* And again, where the server is too busy. */
static int server_ask_patiently(struct server *server, const struct server_request *request,
                                struct unetserve_answer *answer, char *error, size_t error_size)
{
    struct patience patience = patience_begin(&server->options);
    for (;;) {
        int rc = server_ask(server, request, answer, error, error_size);
        server->lost = rc == -EIO || rc == -ENODEV || rc == -ETIMEDOUT;
        if (rc < 0 || (answer->status != 429 && answer->status != 503) ||
            !patience_wait(&patience, server->http ? http_retry_after_s(server->http) : 0))
            return rc;
        unetserve_answer_free(answer);
    }
}

int server_predict(struct server *server, const struct unetserve_tensor *input,
                   struct unetserve_answer *answer, char *error, size_t error_size)
{
    const struct server_request request = {.tensor = input};
    return server_ask_patiently(server, &request, answer, error, error_size);
}

int server_ask_document(struct server *server, const char *document, size_t bytes,
                        struct unetserve_answer *answer, char *error, size_t error_size)
{
    const struct server_request request = {.document = document, .bytes = bytes};
    return server_ask_patiently(server, &request, answer, error, error_size);
}

int server_endure(const struct server_options *options, struct server **server, server_task *task,
                  void *context, bool *lost, char *error, size_t error_size)
{
    struct patience patience = patience_begin(options);
    for (;;) {
        int rc = *server ? 0 : server_open(options, server, error, error_size);
        *lost = rc == -ENODEV;
        if (rc == 0) {
            rc = task(*server, context, error, error_size);
            *lost = rc < 0 && (*server)->lost;
        }
        if (!*lost || !patience_wait(&patience, 0))
            return rc;
        /* Over ZeroMQ the next one's address may be another. */
        server_close(*server);
        *server = NULL;
    }
}

/* A document out of an answer that must be 200. */
static int answer_to_json(struct unetserve_answer *answer, json_t **out, char *error,
                          size_t error_size)
{
    json_error_t reason;
    json_t *document = NULL;
    int rc = 0;
    if (answer->status != 200) {
        snprintf(error, error_size, "the server answered %d: %.200s", answer->status,
                 (const char *)answer->data);
        rc = -EPROTO;
    } else if (!(document = json_loadb(answer->data, answer->bytes, JSON_REJECT_DUPLICATES,
                                       &reason))) {
        snprintf(error, error_size, "the server's answer is no JSON: %s", reason.text);
        rc = -EPROTO;
    } else {
        *out = document;
    }
    unetserve_answer_free(answer);
    return rc;
}

static int http_status(struct http *http, json_t **out, char *error, size_t error_size)
{
    struct unetserve_answer answer = {.status = 0};
    json_t *info = NULL;
    int rc = http_get(http, "/info", &answer, error, error_size);
    if (rc == 0)
        rc = answer_to_json(&answer, &info, error, error_size);
    if (rc < 0)
        return rc;
    rc = http_get(http, "/health", &answer, error, error_size);
    if (rc < 0) {
        json_decref(info);
        return rc;
    }
    json_t *document = json_pack("{s:o, s:s%}", "info", info, "health", (const char *)answer.data,
                                 answer.bytes);
    unetserve_answer_free(&answer);
    if (!document) {
        snprintf(error, error_size, "the server's /health is no text");
        return -EPROTO;
    }
    *out = document;
    return 0;
}

int server_status(struct server *server, json_t **out, char *error, size_t error_size)
{
    if (server->http)
        return http_status(server->http, out, error, error_size);
    struct unetserve_answer answer = {.status = 0};
    int rc = unetserve_client_status(server->client, server->options.timeout_ms, &answer);
    if (rc < 0)
        return client_explain(server, rc, error, error_size);
    return answer_to_json(&answer, out, error, error_size);
}

/* ---- classes ---- */

/* "classes": [{"name", "code", "color": "#rrggbb"}] as /info has it. */
static void legend_from_info(const json_t *classes, struct unetserve_interface *out)
{
    size_t count = json_array_size(classes);
    if (count == 0 || count > UNETSERVE_MAX_CLASSES)
        return;
    for (size_t i = 0; i < count; i++) {
        const json_t *entry = json_array_get(classes, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        const char *color = json_string_value(json_object_get(entry, "color"));
        struct unetserve_class *class = &out->classes[i];
        unsigned rgb[3] = {0, 0, 0};
        if (color && strlen(color) == 7)
            (void)sscanf(color, "#%2x%2x%2x", &rgb[0], &rgb[1], &rgb[2]);
        snprintf(class->name, sizeof class->name, "%s", name ? name : "");
        class->code = (uint16_t)json_integer_value(json_object_get(entry, "code"));
        for (int c = 0; c < 3; c++)
            class->rgb[c] = (uint8_t)rgb[c];
    }
    out->class_count = (uint32_t)count;
}

/* The interface of the model that was asked for, or of the first. */
static void legend_from_status(const json_t *models, const char *wanted,
                               struct unetserve_interface *out)
{
    for (size_t i = 0; i < json_array_size(models); i++) {
        const json_t *model = json_array_get(models, i);
        const char *name = json_string_value(json_object_get(model, "name"));
        if (wanted && (!name || strcmp(name, wanted) != 0))
            continue;
        char *text = json_dumps(json_object_get(model, "interface"), JSON_COMPACT);
        if (text && interface_from_json(text, strlen(text), out) < 0)
            out->class_count = 0;
        free(text);
        return;
    }
}

void server_legend(struct server *server, struct unetserve_interface *out)
{
    char error[512];
    json_t *document;
    memset(out, 0, sizeof *out);
    if (server_status(server, &document, error, sizeof error) < 0)
        return;
    if (server->http)
        legend_from_info(
            json_object_get(json_object_get(json_object_get(document, "info"), "model"), "classes"),
            out);
    else
        legend_from_status(json_object_get(document, "models"), server->options.model, out);
    json_decref(document);
}
