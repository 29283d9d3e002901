#include "gateway/oauth.h"

#include "lib/config_oauth.h"
#include "unetserve/log.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#define TIMER_US       100000
#define TIMER_SLACK_US 10000
/* Beyond the time that auth gives the provider. */
#define SLACK_MS      500
#define TAKE_AT_ONCE  64
#define RETRY_AFTER_S 1

/* ---- what is known ---- */

static int digest_of(const struct oauth *oauth, const char *token, size_t size,
                     unsigned char digest[OAUTH_DIGEST_SIZE])
{
    static char text[OAUTH_SALT_SIZE + AUTH_TOKEN_MAX];
    if (size > AUTH_TOKEN_MAX)
        return -EINVAL;
    memcpy(text, oauth->salt, sizeof oauth->salt);
    memcpy(text + sizeof oauth->salt, token, size);
    int error = gnutls_hash_fast(GNUTLS_DIG_SHA256, text, sizeof oauth->salt + size, digest);
    explicit_bzero(text, sizeof oauth->salt + size);
    return error ? -EIO : 0;
}

static struct oauth_entry *set_of(const struct oauth *oauth,
                                  const unsigned char digest[OAUTH_DIGEST_SIZE])
{
    uint32_t number;
    memcpy(&number, digest, sizeof number);
    return &oauth->entries[(size_t)(number % OAUTH_SETS) * OAUTH_WAYS];
}

static struct oauth_entry *entry_find(const struct oauth *oauth,
                                      const unsigned char digest[OAUTH_DIGEST_SIZE])
{
    struct oauth_entry *set = set_of(oauth, digest);
    for (int i = 0; i < OAUTH_WAYS; i++)
        if (set[i].used && memcmp(set[i].digest, digest, OAUTH_DIGEST_SIZE) == 0)
            return &set[i];
    return NULL;
}

/* How much an entry is worth keeping: what is over nothing, a refusal less than an acceptance, what
 * was of use lately most. */
static uint64_t entry_worth(const struct oauth_entry *entry, int64_t now_s)
{
    if (!entry->used || entry->answer.expires_s <= now_s)
        return 0;
    return entry->answer.verdict == AUTH_ACCEPTED ? entry->used + (UINT64_C(1) << 63) : entry->used;
}

/* A refusal never takes the place of an acceptance: who makes up tokens pushes nobody out. */
static void entry_keep(struct oauth *oauth, const unsigned char digest[OAUTH_DIGEST_SIZE],
                       const struct auth_answer *answer)
{
    int64_t now_s = time(NULL);
    struct oauth_entry *set = set_of(oauth, digest);
    struct oauth_entry *least = entry_find(oauth, digest);
    if (answer->verdict == AUTH_UNAVAILABLE || answer->expires_s <= now_s)
        return;
    for (int i = 0; !least && i < OAUTH_WAYS; i++)
        if (entry_worth(&set[i], now_s) == 0)
            least = &set[i];
    if (!least) {
        least = set;
        for (int i = 1; i < OAUTH_WAYS; i++)
            if (entry_worth(&set[i], now_s) < entry_worth(least, now_s))
                least = &set[i];
        if (answer->verdict != AUTH_ACCEPTED && least->answer.verdict == AUTH_ACCEPTED)
            return;
    }
    memcpy(least->digest, digest, OAUTH_DIGEST_SIZE);
    least->used = ++oauth->looks;
    least->answer = *answer;
}

const struct auth_answer *oauth_look(struct oauth *oauth, const char *token, size_t size)
{
    unsigned char digest[OAUTH_DIGEST_SIZE];
    if (!oauth->entries || digest_of(oauth, token, size, digest))
        return NULL;
    struct oauth_entry *entry = entry_find(oauth, digest);
    if (!entry || entry->answer.expires_s <= time(NULL))
        return NULL;
    entry->used = ++oauth->looks;
    return &entry->answer;
}

/* ---- questions ---- */

static void waiter_remove(struct oauth *oauth, struct oauth_waiter *waiter)
{
    struct oauth_check *check = waiter->check;
    if (waiter->previous)
        waiter->previous->next = waiter->next;
    else
        check->first = waiter->next;
    if (waiter->next)
        waiter->next->previous = waiter->previous;
    peers_leave(&oauth->askers, waiter->place);
    waiter->check = NULL;
    waiter->previous = waiter->next = NULL;
    waiter->place = NULL;
}

static void check_tell(struct oauth *oauth, struct oauth_check *check,
                       const struct auth_answer *answer)
{
    while (check->first) {
        struct oauth_waiter *waiter = check->first;
        waiter_remove(oauth, waiter);
        waiter->told(waiter->opaque, answer);
    }
    *check = (struct oauth_check){.id = 0};
    oauth->open--;
}

static void check_give_up(struct oauth *oauth, struct oauth_check *check, const char *reason)
{
    struct auth_answer answer = {.verdict = AUTH_UNAVAILABLE, .retry_after_s = RETRY_AFTER_S};
    snprintf(answer.reason, sizeof answer.reason, "%s", reason);
    check_tell(oauth, check, &answer);
}

static struct oauth_check *check_vacant(struct oauth *oauth)
{
    for (int i = 0; i < OAUTH_CHECKS_MAX; i++)
        if (!oauth->checks[i].id)
            return &oauth->checks[i];
    return NULL;
}

static struct oauth_check *check_of_digest(struct oauth *oauth,
                                           const unsigned char digest[OAUTH_DIGEST_SIZE])
{
    for (int i = 0; oauth->open && i < OAUTH_CHECKS_MAX; i++)
        if (oauth->checks[i].id && memcmp(oauth->checks[i].digest, digest, OAUTH_DIGEST_SIZE) == 0)
            return &oauth->checks[i];
    return NULL;
}

static void timer_arm(struct oauth *oauth)
{
    if (oauth->timer_armed || !oauth->timer)
        return;
    sd_event_source_set_time_relative(oauth->timer, TIMER_US);
    sd_event_source_set_enabled(oauth->timer, SD_EVENT_ONESHOT);
    oauth->timer_armed = true;
}

static int question_send(struct oauth *oauth, uint64_t id, const char *token, size_t size)
{
    static struct auth_question question;
    question.id = id;
    question.rules = oauth->rules;
    question.size = (uint32_t)size;
    memcpy(question.token, token, size);
    ssize_t sent = send(oauth->fd, &question, auth_question_bytes(&question),
                        MSG_DONTWAIT | MSG_NOSIGNAL);
    explicit_bzero(question.token, size);
    return sent < 0 ? -EAGAIN : 0;
}

/* NULL with *error, or a check for it, which others may be waiting for already. */
static struct oauth_check *check_begin(struct oauth *oauth, const char *token, size_t size,
                                       int *error)
{
    unsigned char digest[OAUTH_DIGEST_SIZE];
    *error = digest_of(oauth, token, size, digest);
    struct oauth_check *check = *error ? NULL : check_of_digest(oauth, digest);
    if (check || *error)
        return check;
    check = check_vacant(oauth);
    uint64_t id = oauth->next_id;
    *error = check ? question_send(oauth, id, token, size) : -EAGAIN;
    if (*error)
        return NULL;
    oauth->next_id++;
    oauth->open++;
    check->id = id;
    check->deadline_ns = queue_now_ns() +
                         (oauth->config->oauth.timeout_ms + SLACK_MS) * UINT64_C(1000000);
    memcpy(check->digest, digest, sizeof digest);
    timer_arm(oauth);
    return check;
}

int oauth_ask(struct oauth *oauth, const char *token, size_t size, const struct client *client,
              struct oauth_waiter *waiter)
{
    int error = 0;
    if (!oauth->entries || oauth->fd < 0)
        return -EAGAIN;
    if (peers_count(&oauth->askers, client) >= OAUTH_CHECKS_A_CLIENT)
        return -EBUSY;
    struct peer *place = NULL;
    error = peers_enter(&oauth->askers, client, 0, &place);
    if (error)
        return error;
    struct oauth_check *check = check_begin(oauth, token, size, &error);
    if (!check) {
        peers_leave(&oauth->askers, place);
        return error;
    }
    waiter->check = check;
    waiter->place = place;
    waiter->previous = NULL;
    waiter->next = check->first;
    if (waiter->next)
        waiter->next->previous = waiter;
    check->first = waiter;
    return 0;
}

/* The question stays: its answer is worth knowing. */
void oauth_forget(struct oauth *oauth, struct oauth_waiter *waiter)
{
    if (waiter->check)
        waiter_remove(oauth, waiter);
}

/* ---- answers ---- */

static void answer_take(struct oauth *oauth, const struct auth_answer *answer)
{
    for (int i = 0; i < OAUTH_CHECKS_MAX; i++) {
        struct oauth_check *check = &oauth->checks[i];
        if (!check->id || check->id != answer->id)
            continue;
        entry_keep(oauth, check->digest, answer);
        check_tell(oauth, check, answer);
        return;
    }
}

void oauth_collect(struct oauth *oauth)
{
    static struct auth_answer answer;
    for (int i = 0; i < TAKE_AT_ONCE; i++) {
        ssize_t got = recv(oauth->fd, &answer, sizeof answer, MSG_DONTWAIT | MSG_TRUNC);
        if (got < 0)
            return;
        if (auth_answer_check(&answer, (size_t)got) == 0)
            answer_take(oauth, &answer);
    }
}

void oauth_expire(struct oauth *oauth, uint64_t now_ns)
{
    for (int i = 0; oauth->open && i < OAUTH_CHECKS_MAX; i++)
        if (oauth->checks[i].id && oauth->checks[i].deadline_ns <= now_ns)
            check_give_up(oauth, &oauth->checks[i], "The token could not be checked in time");
}

static int on_answers(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)fd;
    if (!(events & EPOLLIN)) /* no other end */
        return sd_event_source_set_enabled(source, SD_EVENT_OFF);
    oauth_collect(opaque);
    return 0;
}

static int on_timer(sd_event_source *source, uint64_t now_us, void *opaque)
{
    (void)source;
    (void)now_us;
    struct oauth *oauth = opaque;
    oauth->timer_armed = false;
    oauth_expire(oauth, queue_now_ns());
    if (oauth->open)
        timer_arm(oauth);
    return 0;
}

/* ---- the whole ---- */

static int entries_make(struct oauth *oauth)
{
    free(oauth->entries);
    oauth->entries = NULL;
    oauth->rules = config_oauth_mark(oauth->config);
    if (!config_has_oauth(oauth->config))
        return 0;
    oauth->entries = calloc((size_t)OAUTH_SETS * OAUTH_WAYS, sizeof *oauth->entries);
    return oauth->entries ? 0 : -ENOMEM;
}

int oauth_open(struct oauth *oauth, sd_event *event, int fd, const struct config *config,
               const struct admission *secret)
{
    memset(oauth, 0, sizeof *oauth);
    oauth->config = config;
    oauth->fd = fd;
    oauth->next_id = queue_now_ns(); /* beyond those of gateways that sat here before */
    peers_init(&oauth->askers, secret);
    if (getrandom(oauth->salt, sizeof oauth->salt, 0) != (ssize_t)sizeof oauth->salt)
        return -EIO;
    int error = entries_make(oauth);
    if (!error && fd >= 0)
        error = sd_event_add_io(event, &oauth->answers, fd, EPOLLIN, on_answers, oauth);
    if (error >= 0)
        error = sd_event_add_time_relative(event, &oauth->timer, CLOCK_MONOTONIC, 0, TIMER_SLACK_US,
                                           on_timer, oauth);
    if (error >= 0)
        error = sd_event_source_set_enabled(oauth->timer, SD_EVENT_OFF);
    return error < 0 ? error : 0;
}

void oauth_give_up(struct oauth *oauth, const char *reason)
{
    for (int i = 0; i < OAUTH_CHECKS_MAX; i++)
        if (oauth->checks[i].id)
            check_give_up(oauth, &oauth->checks[i], reason);
}

void oauth_reconfigure(struct oauth *oauth)
{
    if (config_oauth_mark(oauth->config) == oauth->rules)
        return;
    oauth_give_up(oauth, "The configuration has just changed");
    if (entries_make(oauth))
        log_event(LOG_LEVEL_ERROR, "no memory for tokens: none is taken");
}

void oauth_close(struct oauth *oauth)
{
    sd_event_source_disable_unref(oauth->answers);
    sd_event_source_disable_unref(oauth->timer);
    free(oauth->entries);
    oauth->entries = NULL;
}
