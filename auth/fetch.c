#include "auth/fetch.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fetch {
    struct fetch *next;
    CURL *handle;
    struct curl_slist *headers;
    char *body;
    size_t size, room, most;
    bool too_large;
    char error[CURL_ERROR_SIZE];
    void (*done)(void *opaque, const struct fetch_result *result);
    void *opaque;
};

int fetcher_open(struct fetcher *fetcher, const char *ca_file, uint32_t timeout_ms)
{
    *fetcher = (struct fetcher){
        .multi = curl_multi_init(), .ca_file = ca_file, .timeout_ms = timeout_ms};
    if (!fetcher->multi)
        return -ENOMEM;
    curl_multi_setopt(fetcher->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)FETCH_MAX);
    curl_multi_setopt(fetcher->multi, CURLMOPT_MAXCONNECTS, (long)FETCH_MAX);
    return 0;
}

/* libcurl's write callback: less than what there is ends the transfer. */
static size_t on_bytes(char *bytes, size_t unit, size_t count, void *opaque)
{
    struct fetch *fetch = opaque;
    size_t more = unit * count;
    if (more > fetch->most - fetch->size) {
        fetch->too_large = true;
        return 0;
    }
    if (fetch->size + more > fetch->room) {
        size_t room = fetch->size + more + 4096;
        char *larger = realloc(fetch->body, room);
        if (!larger)
            return 0;
        fetch->body = larger;
        fetch->room = room;
    }
    memcpy(fetch->body + fetch->size, bytes, more);
    fetch->size += more;
    return more;
}

static void fetch_free(struct fetch *fetch)
{
    if (fetch->handle)
        curl_easy_cleanup(fetch->handle);
    curl_slist_free_all(fetch->headers);
    free(fetch->body);
    free(fetch);
}

/* Where it goes and how. */
static bool set_target(const struct fetcher *fetcher, struct fetch *fetch,
                       const struct fetch_order *order)
{
    CURL *handle = fetch->handle;
    long timeout_ms = (long)fetcher->timeout_ms;
    fetch->headers = curl_slist_append(NULL, "Accept: application/json");
    bool set = fetch->headers && !curl_easy_setopt(handle, CURLOPT_URL, order->url) &&
               !curl_easy_setopt(handle, CURLOPT_HTTPHEADER, fetch->headers) &&
               !curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https") &&
               !curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L) &&
               !curl_easy_setopt(handle, CURLOPT_PROXY, "") &&
               !curl_easy_setopt(handle, CURLOPT_USERAGENT, "unetserve/" UNETSERVE_VERSION) &&
               !curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, timeout_ms) &&
               !curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, timeout_ms) &&
               !curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L) &&
               !curl_easy_setopt(handle, CURLOPT_SSL_VERIFYPEER, 1L) &&
               !curl_easy_setopt(handle, CURLOPT_SSL_VERIFYHOST, 2L) &&
               !curl_easy_setopt(handle, CURLOPT_CA_CACHE_TIMEOUT, 0L);
    if (set && fetcher->ca_file[0])
        set = !curl_easy_setopt(handle, CURLOPT_CAINFO, fetcher->ca_file) &&
              !curl_easy_setopt(handle, CURLOPT_CAPATH, NULL);
    return set;
}

/* What is sent and what becomes of the answer. */
static bool set_content(struct fetch *fetch, const struct fetch_order *order)
{
    CURL *handle = fetch->handle;
    bool set = !curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, on_bytes) &&
               !curl_easy_setopt(handle, CURLOPT_WRITEDATA, fetch) &&
               !curl_easy_setopt(handle, CURLOPT_PRIVATE, fetch) &&
               !curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, fetch->error);
    if (set && order->form)
        set = !curl_easy_setopt(handle, CURLOPT_COPYPOSTFIELDS, order->form);
    if (set && order->user)
        set = !curl_easy_setopt(handle, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC) &&
              !curl_easy_setopt(handle, CURLOPT_USERNAME, order->user) &&
              !curl_easy_setopt(handle, CURLOPT_PASSWORD, order->password);
    return set;
}

int fetcher_begin(struct fetcher *fetcher, const struct fetch_order *order, struct fetch **out)
{
    if (fetcher->count == FETCH_MAX)
        return -EAGAIN;
    struct fetch *fetch = calloc(1, sizeof *fetch);
    if (!fetch)
        return -ENOMEM;
    fetch->handle = curl_easy_init();
    fetch->most = order->most_bytes;
    fetch->done = order->done;
    fetch->opaque = order->opaque;
    if (!fetch->handle || !set_target(fetcher, fetch, order) || !set_content(fetch, order) ||
        curl_multi_add_handle(fetcher->multi, fetch->handle)) {
        fetch_free(fetch);
        return -ENOMEM;
    }
    fetch->next = fetcher->first;
    fetcher->first = fetch;
    fetcher->count++;
    *out = fetch;
    return 0;
}

static void fetch_remove(struct fetcher *fetcher, struct fetch *fetch)
{
    curl_multi_remove_handle(fetcher->multi, fetch->handle);
    struct fetch **at = &fetcher->first;
    while (*at != fetch)
        at = &(*at)->next;
    *at = fetch->next;
    fetcher->count--;
}

void fetcher_cancel(struct fetcher *fetcher, struct fetch *fetch)
{
    fetch_remove(fetcher, fetch);
    fetch_free(fetch);
}

static void fetch_finish(struct fetcher *fetcher, struct fetch *fetch, CURLcode code)
{
    long status = 0;
    if (code == CURLE_OK)
        curl_easy_getinfo(fetch->handle, CURLINFO_RESPONSE_CODE, &status);
    fetch_remove(fetcher, fetch);
    const char *error = fetch->too_large  ? "its answer is too large"
                        : fetch->error[0] ? fetch->error
                                          : curl_easy_strerror(code);
    struct fetch_result result = {(int)status, fetch->body, fetch->size, error};
    fetch->done(fetch->opaque, &result);
    fetch_free(fetch);
}

void fetcher_turn(struct fetcher *fetcher)
{
    int running;
    int left;
    const CURLMsg *message;
    curl_multi_perform(fetcher->multi, &running);
    while ((message = curl_multi_info_read(fetcher->multi, &left))) {
        struct fetch *fetch = NULL;
        CURLcode code = message->data.result;
        if (message->msg == CURLMSG_DONE &&
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &fetch) == CURLE_OK && fetch)
            fetch_finish(fetcher, fetch, code);
    }
}

int fetcher_wait(struct fetcher *fetcher, struct curl_waitfd *fds, unsigned count, int timeout_ms)
{
    return curl_multi_poll(fetcher->multi, fds, count, timeout_ms, NULL) ? -EIO : 0;
}

void fetcher_close(struct fetcher *fetcher)
{
    struct fetch *fetch = fetcher->first;
    while (fetch) {
        struct fetch *next = fetch->next;
        fetcher_cancel(fetcher, fetch);
        fetch = next;
    }
    if (fetcher->multi)
        curl_multi_cleanup(fetcher->multi);
    fetcher->multi = NULL;
}
