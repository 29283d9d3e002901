#include "auth/provider.h"

#include "lib/config_oauth.h"
#include "unetserve/log.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void provider_init(struct provider *provider, const struct config_oauth *config,
                   struct fetcher *fetcher, void (*changed)(void *opaque), void *opaque)
{
    *provider = (struct provider){
        .config = config, .fetcher = fetcher, .changed = changed, .opaque = opaque};
    snprintf(provider->jwks_url, sizeof provider->jwks_url, "%s", config->jwks_url);
}

int provider_read_document(const char *text, size_t size, const char *issuer, char *url,
                           size_t url_size, const char **why)
{
    struct config_url parts;
    json_t *document = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    const char *named = json_string_value(json_object_get(document, "issuer"));
    const char *keys = json_string_value(json_object_get(document, "jwks_uri"));
    int error = -EBADMSG;
    if (!named || strcmp(named, issuer) != 0)
        *why = "its description is not this issuer's";
    else if (!keys || strlen(keys) >= url_size || config_url_read(keys, &parts))
        *why = "its description names no https:// URL of keys";
    else
        error = 0;
    if (!error)
        memcpy(url, keys, strlen(keys) + 1);
    json_decref(document);
    return error;
}

static uint64_t clock_ns(void)
{
    return queue_now_ns();
}

static void try_over(struct provider *provider, const char *url, const char *why)
{
    if (why)
        log_event(LOG_LEVEL_WARNING, "no keys from the identity provider", log_text("url", url),
                  log_text("why", why), log_number("tries", provider->refresh.failures + 1));
    refresh_end(&provider->refresh, !why, clock_ns());
    provider->changed(provider->opaque);
}

/* What is wrong with it, or NULL. */
static const char *result_wrong(const struct fetch_result *result, char *text, size_t size)
{
    if (result->status == 200)
        return NULL;
    if (result->status == 0)
        return result->error;
    snprintf(text, size, "it answers with status %d", result->status);
    return text;
}

/* Keys that another process has left are good until there are others: whatever that process was,
 * they stay no longer. */
static void keys_take(struct provider *provider, struct jwks *fresh)
{
    if (provider->inherited)
        jwks_free(&provider->keys);
    provider->inherited = false;
    jwks_carry_over(fresh, &provider->keys, (int64_t)time(NULL), provider->config->grace_s);
    provider->keys = *fresh;
}

static void on_keys(void *opaque, const struct fetch_result *result)
{
    struct provider *provider = opaque;
    char text[64];
    struct jwks fresh;
    provider->fetch = NULL;
    const char *why = result_wrong(result, text, sizeof text);
    if (!why && jwks_read(result->body, result->size, &fresh, &why) == 0) {
        unsigned before = provider->keys.count;
        keys_take(provider, &fresh);
        keep_store(provider->kept, provider->mark, result->body, result->size, clock_ns());
        log_event(before == fresh.count ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO,
                  "keys from the identity provider", log_number("keys", fresh.count));
    }
    char url[sizeof provider->jwks_url];
    memcpy(url, provider->jwks_url, sizeof url);
    /* It may have moved. */
    if (why && !provider->config->jwks_url[0])
        provider->jwks_url[0] = '\0';
    try_over(provider, url, why);
}

static void on_document(void *opaque, const struct fetch_result *result);

/* Where a try begins, and goes on. */
static void fetch_begin(struct provider *provider)
{
    char url[sizeof provider->jwks_url + 40];
    bool known = provider->jwks_url[0];
    const char *issuer = provider->config->issuer;
    size_t length = strlen(issuer);
    if (known)
        snprintf(url, sizeof url, "%s", provider->jwks_url);
    else
        snprintf(url, sizeof url, "%.*s/.well-known/openid-configuration",
                 (int)(length - (issuer[length - 1] == '/')), issuer);
    struct fetch_order order = {
        .url = url,
        .most_bytes = known ? JWKS_BYTES_MAX : PROVIDER_DOCUMENT_MAX,
        .done = known ? on_keys : on_document,
        .opaque = provider,
    };
    if (fetcher_begin(provider->fetcher, &order, &provider->fetch))
        try_over(provider, url, "there is no room for another request");
}

static void on_document(void *opaque, const struct fetch_result *result)
{
    struct provider *provider = opaque;
    char text[64];
    provider->fetch = NULL;
    const char *why = result_wrong(result, text, sizeof text);
    if (!why && provider_read_document(result->body, result->size, provider->config->issuer,
                                       provider->jwks_url, sizeof provider->jwks_url, &why) == 0) {
        fetch_begin(provider);
        return;
    }
    try_over(provider, provider->config->issuer, why);
}

void provider_inherit(struct provider *provider, struct keep_area *kept, uint64_t mark,
                      uint64_t now_ns)
{
    provider->kept = kept;
    provider->mark = mark;
    uint64_t fetched_ns = 0;
    int error = keep_read(kept, mark, now_ns, &provider->keys, &fetched_ns);
    if (!error) {
        provider->refresh.good_ns = fetched_ns;
        provider->inherited = refresh_usable(&provider->refresh, provider->config, now_ns);
        if (!provider->inherited) {
            provider->refresh.good_ns = 0;
            jwks_free(&provider->keys);
        }
    }
    if (provider->inherited)
        log_event(LOG_LEVEL_INFO, "keys that the process before had fetched",
                  log_number("keys", provider->keys.count),
                  log_number("age_s", (now_ns - fetched_ns) / UINT64_C(1000000000)));
    else if (error == -EBADMSG)
        log_event(LOG_LEVEL_WARNING, "what the process before has left are no keys");
}

uint64_t provider_turn(struct provider *provider, uint64_t now_ns)
{
    if (refresh_due_ns(&provider->refresh, provider->config) <= now_ns) {
        refresh_begin(&provider->refresh, now_ns);
        fetch_begin(provider);
    }
    return refresh_due_ns(&provider->refresh, provider->config);
}

void provider_close(struct provider *provider)
{
    if (provider->fetch)
        fetcher_cancel(provider->fetcher, provider->fetch);
    provider->fetch = NULL;
    jwks_free(&provider->keys);
    keep_close(provider->kept);
    provider->kept = NULL;
}
