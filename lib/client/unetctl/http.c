#include "http.h"

#include "unetserve/mask_writer.h"

#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HTTP_BODY_MAX ((size_t)1 << 30)
#define HTTP_URL_MAX  1024

struct http {
    CURL *curl;
    char base[HTTP_URL_MAX]; /* scheme and authority, no slash at the end */
    char predict_url[HTTP_URL_MAX + 16];
    int timeout_ms;
    int priority;
    unsigned retry_after_s; /* of the last answer */
};

/* What one exchange brings in. */
struct http_exchange {
    char *body;
    size_t bytes;
    bool too_large;
    unsigned retry_after_s;
    struct unetserve_answer facts; /* request id and times, from the headers */
};

/* ---- open and close ---- */

int http_open(const char *url, int timeout_ms, struct http **out, char *error, size_t error_size)
{
    const char *authority = strstr(url, "://");
    if (!authority || strlen(url) >= HTTP_URL_MAX ||
        (strncasecmp(url, "http://", 7) != 0 && strncasecmp(url, "https://", 8) != 0)) {
        snprintf(error, error_size, "'%s' is no URL, expected http://HOST:PORT[/ROUTE]", url);
        return -EINVAL;
    }
    struct http *http = calloc(1, sizeof *http);
    if (!http || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK ||
        !(http->curl = curl_easy_init())) {
        free(http);
        snprintf(error, error_size, "no memory for an HTTP client");
        return -ENOMEM;
    }
    const char *path = strchr(authority + 3, '/');
    size_t base_length = path ? (size_t)(path - url) : strlen(url);
    snprintf(http->base, sizeof http->base, "%.*s", (int)base_length, url);
    snprintf(http->predict_url, sizeof http->predict_url, "%s%s", http->base,
             path && path[1] ? path : "/predict");
    http->timeout_ms = timeout_ms;
    *out = http;
    return 0;
}

void http_close(struct http *http)
{
    if (!http)
        return;
    curl_easy_cleanup(http->curl);
    curl_global_cleanup();
    free(http);
}

/* ---- what comes in ---- */

static size_t exchange_take_body(char *data, size_t size, size_t count, void *user)
{
    struct http_exchange *exchange = user;
    size_t bytes = size * count;
    if (bytes > HTTP_BODY_MAX - exchange->bytes) {
        exchange->too_large = true;
        return 0;
    }
    char *grown = realloc(exchange->body, exchange->bytes + bytes + 1);
    if (!grown)
        return 0;
    memcpy(grown + exchange->bytes, data, bytes);
    exchange->body = grown;
    exchange->bytes += bytes;
    grown[exchange->bytes] = 0;
    return bytes;
}

/* "queue;dur=1.25" in a Server-Timing line. */
static double timing_find(const char *line, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = line; (at = strstr(at, name)); at += length) {
        bool starts = at == line || at[-1] == ' ' || at[-1] == ',' || at[-1] == ':';
        if (starts && strncmp(at + length, ";dur=", 5) == 0)
            return strtod(at + length + 5, NULL);
    }
    return 0;
}

static size_t exchange_take_header(char *data, size_t size, size_t count, void *user)
{
    struct http_exchange *exchange = user;
    char line[1024];
    size_t bytes = size * count;
    snprintf(line, sizeof line, "%.*s", (int)(bytes < sizeof line ? bytes : sizeof line - 1), data);
    line[strcspn(line, "\r\n")] = 0;
    if (strncasecmp(line, "X-Request-Id:", 13) == 0) {
        const char *value = line + 13 + strspn(line + 13, " \t");
        snprintf(exchange->facts.request_id, sizeof exchange->facts.request_id, "%.63s", value);
    } else if (strncasecmp(line, "Retry-After:", 12) == 0) {
        unsigned long seconds = strtoul(line + 12, NULL, 10);
        exchange->retry_after_s = seconds < 86400 ? (unsigned)seconds : 86400;
    } else if (strncasecmp(line, "Server-Timing:", 14) == 0) {
        exchange->facts.receive_ms = timing_find(line + 14, "receive");
        exchange->facts.queue_ms = timing_find(line + 14, "queue");
        exchange->facts.forward_ms = timing_find(line + 14, "forward");
        exchange->facts.encode_ms = timing_find(line + 14, "encode");
    }
    return bytes;
}

/* ---- one exchange ---- */

static int exchange_error(CURLcode code, const struct http *http,
                          const struct http_exchange *exchange, char *error, size_t error_size)
{
    if (exchange->too_large) {
        snprintf(error, error_size, "the answer of %s is larger than %zu MiB", http->base,
                 HTTP_BODY_MAX >> 20);
        return -EPROTO;
    }
    if (code == CURLE_OPERATION_TIMEDOUT) {
        snprintf(error, error_size, "%s did not answer within %d ms", http->base, http->timeout_ms);
        return -ETIMEDOUT;
    }
    snprintf(error, error_size, "cannot talk to %s: %s", http->base, curl_easy_strerror(code));
    switch (code) {
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST: return -ENODEV;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE: return -EIO;
    default: return -EPROTO;
    }
}

bool http_key_field(char field[HTTP_KEY_FIELD_MAX])
{
    const char *key = getenv("UNETSERVE_API_KEY");
    if (!key || !*key || strlen(key) >= HTTP_KEY_FIELD_MAX - 16)
        return false;
    snprintf(field, HTTP_KEY_FIELD_MAX, "X-API-Key: %s", key);
    return true;
}

/* Perform what the handle was told; on success the answer owns the body. */
static int http_exchange_run(struct http *http, const char *url, struct curl_slist *headers,
                             struct unetserve_answer *out, char *error, size_t error_size)
{
    struct http_exchange exchange = {.body = NULL};
    CURL *curl = http->curl;
    char key[HTTP_KEY_FIELD_MAX];
    struct curl_slist *longer = http_key_field(key) ? curl_slist_append(headers, key) : NULL;
    headers = longer ? longer : headers;
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    const char *authorities = getenv("SSL_CERT_FILE");
    if (authorities && authorities[0])
        curl_easy_setopt(curl, CURLOPT_CAINFO, authorities);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)http->timeout_ms);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, exchange_take_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &exchange);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, exchange_take_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &exchange);
    CURLcode code = curl_easy_perform(curl);
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_slist_free_all(headers);
    curl_easy_reset(curl);
    if (code != CURLE_OK) {
        free(exchange.body);
        return exchange_error(code, http, &exchange, error, error_size);
    }
    http->retry_after_s = exchange.retry_after_s;
    struct unetserve_answer answer = exchange.facts;
    answer.status = (int)status;
    answer.data = exchange.body ? exchange.body : calloc(1, 1);
    answer.bytes = exchange.bytes;
    if (!answer.data)
        return -ENOMEM;
    *out = answer;
    return 0;
}

void http_set_priority(struct http *http, int priority)
{
    http->priority = priority;
}

unsigned http_retry_after_s(const struct http *http)
{
    return http->retry_after_s;
}

int http_get(struct http *http, const char *path, struct unetserve_answer *answer, char *error,
             size_t error_size)
{
    char url[HTTP_URL_MAX + 64];
    snprintf(url, sizeof url, "%s%s", http->base, path);
    curl_easy_setopt(http->curl, CURLOPT_HTTPGET, 1L);
    return http_exchange_run(http, url, NULL, answer, error, error_size);
}

/* The npy in answer->data becomes the bare labels that it holds. */
static int answer_unwrap_npy(struct unetserve_answer *answer, char *error, size_t error_size)
{
    char reason[256] = "it is cut short";
    struct unetserve_shape shape;
    int big_endian;
    size_t offset;
    uint64_t bytes;
    int rc = npy_header_read(answer->data, answer->bytes, &shape, &big_endian, &offset, reason,
                             sizeof reason);
    if (rc < 0 || unetserve_shape_bytes(&shape, &bytes) < 0 || offset > answer->bytes ||
        answer->bytes - offset != bytes) {
        snprintf(error, error_size, "the answer is no mask: %s", reason);
        return -EPROTO;
    }
    memmove(answer->data, (char *)answer->data + offset, bytes);
    answer->bytes = bytes;
    answer->shape = shape;
    return 0;
}

/* NULL: no memory. */
static struct curl_slist *header_list(const char *const *lines, size_t count)
{
    struct curl_slist *headers = NULL;
    for (size_t i = 0; i < count; i++) {
        struct curl_slist *longer = curl_slist_append(headers, lines[i]);
        if (!longer) {
            curl_slist_free_all(headers);
            return NULL;
        }
        headers = longer;
    }
    return headers;
}

static struct curl_slist *predict_headers(const struct unetserve_shape *shape, int timeout_ms)
{
    char lines[3][256];
    int used = snprintf(lines[0], sizeof lines[0], "X-Unetserve-Shape: ");
    for (uint32_t i = 0; i < shape->rank; i++)
        used += snprintf(lines[0] + used, sizeof lines[0] - (size_t)used, "%s%" PRIu64,
                         i ? "," : "", shape->dims[i]);
    snprintf(lines[1], sizeof lines[1], "X-Unetserve-Dtype: %s",
             unetserve_dtype_name(shape->dtype));
    snprintf(lines[2], sizeof lines[2], "X-Unetserve-Timeout-Ms: %d", timeout_ms);
    const char *const all[] = {"Content-Type: application/octet-stream",
                               "Accept: application/x-npy", lines[0], lines[1], lines[2]};
    return header_list(all, sizeof all / sizeof *all);
}

/* POST a body to the model's route. headers: NULL for want of memory; taken over. */
static int http_post(struct http *http, struct curl_slist *headers, const char *body, size_t bytes,
                     struct unetserve_answer *answer, char *error, size_t error_size)
{
    if (!headers) {
        snprintf(error, error_size, "no memory");
        return -ENOMEM;
    }
    char line[64];
    snprintf(line, sizeof line, "X-Unetserve-Priority: %d", http->priority);
    struct curl_slist *longer = http->priority ? curl_slist_append(headers, line) : headers;
    headers = longer ? longer : headers;
    curl_easy_setopt(http->curl, CURLOPT_POST, 1L);
    curl_easy_setopt(http->curl, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(http->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)bytes);
    return http_exchange_run(http, http->predict_url, headers, answer, error, error_size);
}

int http_ask(struct http *http, const char *const *fields, size_t field_count, const void *body,
             size_t bytes, struct unetserve_answer *answer, char *error, size_t error_size)
{
    return http_post(http, header_list(fields, field_count), body, bytes, answer, error,
                     error_size);
}

int http_ask_document(struct http *http, const char *document, size_t bytes,
                      struct unetserve_answer *answer, char *error, size_t error_size)
{
    char timeout[64];
    snprintf(timeout, sizeof timeout, "X-Unetserve-Timeout-Ms: %d", http->timeout_ms);
    const char *const all[] = {"Content-Type: application/json", "Accept: application/json",
                               timeout};
    return http_ask(http, all, sizeof all / sizeof *all, document, bytes, answer, error,
                    error_size);
}

int http_predict(struct http *http, const struct unetserve_tensor *input,
                 struct unetserve_answer *answer, char *error, size_t error_size)
{
    struct unetserve_answer got;
    int rc = http_post(http, predict_headers(&input->shape, http->timeout_ms), input->data,
                       input->bytes, &got, error, error_size);
    if (rc < 0)
        return rc;
    if (got.status == 200 && (rc = answer_unwrap_npy(&got, error, error_size)) < 0) {
        unetserve_answer_free(&got);
        return rc;
    }
    *answer = got;
    return 0;
}
