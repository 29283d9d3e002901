#include "auth/desk.h"

#include "auth/introspect.h"
#include "lib/config_oauth.h"
#include "unetserve/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define TAKE_AT_ONCE 64
#define RETRY_MOST_S 30
#define WARNING_NS   UINT64_C(10000000000)

/* ---- answers ---- */

/* A gateway that does not read has its own deadline. */
static void send_answer(int channel, const struct auth_question *question,
                        struct auth_answer *answer)
{
    answer->id = question->id;
    if (send(channel, answer, auth_answer_bytes(answer), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        log_event(LOG_LEVEL_DEBUG, "an answer was not taken", log_text("error", strerror(errno)));
}

static void send_unavailable(int channel, const struct auth_question *question, uint32_t after_s,
                             const char *reason)
{
    struct auth_answer answer = {.verdict = AUTH_UNAVAILABLE, .retry_after_s = after_s};
    snprintf(answer.reason, sizeof answer.reason, "%s", reason);
    send_answer(channel, question, &answer);
}

static void place_free(struct desk *desk, struct desk_place *place)
{
    if (place->fetch)
        fetcher_cancel(&desk->fetcher, place->fetch);
    place->fetch = NULL;
    place->taken = false;
    desk->waiting--;
}

/* ---- signed tokens ---- */

static uint32_t retry_after_s(const struct desk *desk, uint64_t now_ns)
{
    uint64_t due_ns = refresh_due_ns(&desk->provider.refresh, desk->config);
    if (due_ns == UINT64_MAX || due_ns <= now_ns)
        return 1;
    uint64_t seconds = (due_ns - now_ns) / 1000000000 + 1;
    return seconds < RETRY_MOST_S ? (uint32_t)seconds : RETRY_MOST_S;
}

/* False: it has to wait for keys. */
static bool answer_signed(struct desk *desk, int channel, const struct auth_question *question)
{
    struct provider *provider = &desk->provider;
    struct auth_answer answer;
    uint64_t now_ns = queue_now_ns();
    if (!refresh_usable(&provider->refresh, desk->config, now_ns)) {
        if (refresh_want(&provider->refresh, desk->config, now_ns))
            return false;
        send_unavailable(channel, question, retry_after_s(desk, now_ns),
                         "The identity provider's keys cannot be fetched");
        return true;
    }
    enum jwt_result result = jwt_check(question->token, question->size, &provider->keys,
                                       &desk->rules, (int64_t)time(NULL), &answer);
    if (result == JWT_UNKNOWN_KEY && refresh_want(&provider->refresh, desk->config, now_ns))
        return false;
    send_answer(channel, question, &answer);
    return true;
}

/* ---- tokens that the provider is asked about ---- */

static void warn(struct desk *desk, const struct fetch_result *result)
{
    uint64_t now_ns = queue_now_ns();
    if (now_ns < desk->warning_due_ns)
        return;
    desk->warning_due_ns = now_ns + WARNING_NS;
    log_event(LOG_LEVEL_WARNING, "the identity provider was asked about a token, in vain",
              log_text("url", desk->config->introspection_url),
              log_number("status", result->status),
              log_text("error", result->status ? "" : result->error));
}

static void on_told(void *opaque, const struct fetch_result *result)
{
    struct desk_place *place = opaque;
    struct desk *desk = place->desk;
    struct auth_answer answer;
    struct claims_rules rules = desk->rules.claims;
    rules.must_expire = false;
    introspect_read(result, &rules, (int64_t)time(NULL), &answer);
    if (answer.verdict == AUTH_UNAVAILABLE)
        warn(desk, result);
    place->fetch = NULL;
    send_answer(place->channel, &place->question, &answer);
    place_free(desk, place);
}

/* It waits for its turn when there is no room. */
static void ask_provider(struct desk *desk, struct desk_place *place)
{
    static char form[INTROSPECT_FORM_MAX];
    introspect_form(place->question.token, place->question.size, form);
    struct fetch_order order = {
        .url = desk->config->introspection_url,
        .form = form,
        .user = desk->config->client_id,
        .password = desk->secret,
        .most_bytes = INTROSPECT_BYTES_MAX,
        .done = on_told,
        .opaque = place,
    };
    if (fetcher_begin(&desk->fetcher, &order, &place->fetch))
        place->fetch = NULL;
    explicit_bzero(form, sizeof form);
}

/* ---- questions ---- */

/* Tokens of the signed form are checked here where keys are known, all others by the provider. */
static bool is_signed(const struct desk *desk, const struct auth_question *question)
{
    return desk->config->issuer[0] &&
           (!desk->config->introspection_url[0] || jwt_is_one(question->token, question->size));
}

static struct desk_place *place_find(struct desk *desk)
{
    for (unsigned i = 0; i < DESK_WAITING_MAX; i++)
        if (!desk->places[i].taken)
            return &desk->places[i];
    return NULL;
}

static void question_take(struct desk *desk, int channel, const struct auth_question *question)
{
    bool is_jwt = is_signed(desk, question);
    if (question->rules != desk->mark) {
        send_unavailable(channel, question, 1, "The configuration has just changed");
        return;
    }
    if (is_jwt && answer_signed(desk, channel, question))
        return;
    struct desk_place *place = place_find(desk);
    if (!place) {
        send_unavailable(channel, question, 1, "Too many tokens are being checked");
        return;
    }
    place->taken = true;
    place->channel = channel;
    place->deadline_ns = queue_now_ns() + desk->config->timeout_ms * UINT64_C(1000000);
    place->fetch = NULL;
    memcpy(&place->question, question, auth_question_bytes(question));
    desk->waiting++;
    if (!is_jwt)
        ask_provider(desk, place);
}

void desk_take(struct desk *desk, int channel)
{
    static struct auth_question question;
    for (int i = 0; i < TAKE_AT_ONCE; i++) {
        ssize_t got = recv(channel, &question, sizeof question, MSG_DONTWAIT | MSG_TRUNC);
        if (got < 0)
            return;
        if (auth_question_check(&question, (size_t)got) == 0)
            question_take(desk, channel, &question);
    }
}

/* Keys have come, or have not: whoever waits for them is answered now, or waits for the next try.
 */
static void on_keys_changed(void *opaque)
{
    struct desk *desk = opaque;
    for (unsigned i = 0; i < DESK_WAITING_MAX; i++) {
        struct desk_place *place = &desk->places[i];
        if (place->taken && is_signed(desk, &place->question) &&
            answer_signed(desk, place->channel, &place->question))
            place_free(desk, place);
    }
}

/* Returns the next deadline. */
static uint64_t places_look(struct desk *desk, uint64_t now_ns)
{
    uint64_t next_ns = UINT64_MAX;
    for (unsigned i = 0; desk->waiting && i < DESK_WAITING_MAX; i++) {
        struct desk_place *place = &desk->places[i];
        if (!place->taken)
            continue;
        if (place->deadline_ns <= now_ns) {
            send_unavailable(place->channel, &place->question, 1,
                             "The identity provider did not answer in time");
            place_free(desk, place);
            continue;
        }
        if (!place->fetch && !is_signed(desk, &place->question))
            ask_provider(desk, place);
        next_ns = place->deadline_ns < next_ns ? place->deadline_ns : next_ns;
    }
    return next_ns;
}

uint64_t desk_turn(struct desk *desk, uint64_t now_ns)
{
    fetcher_turn(&desk->fetcher);
    uint64_t next_ns = UINT64_MAX;
    if (desk->config->issuer[0])
        next_ns = provider_turn(&desk->provider, now_ns);
    uint64_t places_ns = places_look(desk, now_ns);
    return places_ns < next_ns ? places_ns : next_ns;
}

/* ---- the whole ---- */

int desk_read_secret(struct desk *desk)
{
    const char *path = desk->config->client_secret_file;
    char line[DESK_SECRET_MAX] = "";
    if (!path[0])
        return 0;
    FILE *file = fopen(path, "re");
    int error = file ? 0 : -errno;
    if (file && !fgets(line, sizeof line, file))
        error = ferror(file) ? -EIO : -ENODATA;
    if (file)
        fclose(file);
    line[strcspn(line, "\r\n")] = '\0';
    if (!error && (!line[0] || strlen(line) == sizeof line - 1))
        error = -ENODATA;
    if (error)
        log_event(LOG_LEVEL_ERROR, "cannot read the client's secret", log_text("file", path),
                  log_text("error", error == -ENODATA ? "it has no line, or too long a one"
                                                      : strerror(-error)));
    else
        memcpy(desk->secret, line, sizeof line);
    explicit_bzero(line, sizeof line);
    return error;
}

int desk_open(struct desk *desk, const struct config *whole)
{
    const struct config_oauth *config = &whole->oauth;
    memset(desk, 0, sizeof *desk);
    desk->config = config;
    desk->mark = config_oauth_mark(whole);
    for (unsigned i = 0; i < DESK_WAITING_MAX; i++)
        desk->places[i].desk = desk;
    desk->rules = (struct jwt_rules){
        .claims = {.issuer = config->issuer,
                   .audiences = config->audience,
                   .leeway_s = config->leeway_s,
                   .cache_s = config->cache_s,
                   .must_expire = true},
        .algorithms = jwks_algorithms_read(config->algorithms),
    };
    int error = fetcher_open(&desk->fetcher, config->ca_file, config->timeout_ms);
    if (!error)
        provider_init(&desk->provider, config, &desk->fetcher, on_keys_changed, desk);
    return error;
}

void desk_inherit(struct desk *desk, int fd)
{
    if (desk->config->issuer[0])
        provider_inherit(&desk->provider, keep_open(fd), desk->mark, queue_now_ns());
}

void desk_close(struct desk *desk)
{
    for (unsigned i = 0; i < DESK_WAITING_MAX; i++)
        if (desk->places[i].taken)
            place_free(desk, &desk->places[i]);
    provider_close(&desk->provider);
    fetcher_close(&desk->fetcher);
    explicit_bzero(desk->secret, sizeof desk->secret);
}
