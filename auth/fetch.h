/*
 * Requests to the identity provider, over libcurl, without ever waiting for one. Each has a
 * deadline and a largest answer; redirects are not followed, certificates are always checked,
 * proxies and what else libcurl finds in the environment are not used.
 */
#ifndef AUTH_FETCH_H
#define AUTH_FETCH_H

#include <curl/curl.h>
#include <stddef.h>
#include <stdint.h>

#define FETCH_MAX 32 /* at once */

/* What came of a request. Valid during the call. */
struct fetch_result {
    int status;       /* of HTTP; 0: there was no whole answer in time */
    const char *body; /* not terminated */
    size_t size;
    const char *error; /* a sentence, where the status is 0 */
};

struct fetch_order {
    const char *url;
    const char *form;            /* posted, urlencoded; NULL: a GET */
    const char *user, *password; /* NULL: none */
    size_t most_bytes;
    void (*done)(void *opaque, const struct fetch_result *result);
    void *opaque;
};

struct fetch;

struct fetcher {
    CURLM *multi;
    const char *ca_file; /* "": the system's */
    uint32_t timeout_ms;
    unsigned count;
    struct fetch *first;
};

/* libcurl's global part has been initialised. 0 or -ENOMEM. */
int fetcher_open(struct fetcher *fetcher, const char *ca_file, uint32_t timeout_ms);

/* Begin. The order's texts are copied. done is called once, from fetcher_turn, unless the fetch is
 * cancelled. 0 with *out, -EAGAIN: FETCH_MAX are under way, or -ENOMEM. */
int fetcher_begin(struct fetcher *fetcher, const struct fetch_order *order, struct fetch **out);

void fetcher_cancel(struct fetcher *fetcher, struct fetch *fetch);

/* Go on with all of them as far as that is possible at once; tell of those that are over. */
void fetcher_turn(struct fetcher *fetcher);

/* Wait for any of them, or for one of fds, at most so long. 0 or -EIO. */
int fetcher_wait(struct fetcher *fetcher, struct curl_waitfd *fds, unsigned count, int timeout_ms);

/* Cancels what is under way. */
void fetcher_close(struct fetcher *fetcher);

#endif
