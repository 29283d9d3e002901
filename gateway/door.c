#include "gateway/door.h"

#include "gateway/metrics.h"

#include "lib/config_oauth.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define REALM "Bearer realm=\"unetserve\""

/* ---- API keys ---- */

static enum door key_opens(const struct door_keys *door, const struct door_knock *knock,
                           const struct api_key *key, struct problem *problem,
                           struct answer *answer)
{
    if (!key || knock->model < 0)
        return DOOR_OPEN;
    const char *name = door->config->models[knock->model].name;
    if (api_key_opens(key, name))
        return DOOR_OPEN;
    problem_set(problem, 403, "This API key does not open the model %s", name);
    if (!knock->given.key)
        answer->authenticate = "Bearer error=\"insufficient_scope\"";
    return DOOR_CLOSED;
}

/* ---- tokens ---- */

/* Without its white space: libmicrohttpd leaves what follows a value. NULL: no bearer. */
static const char *token_of(const struct api_key_given *given, size_t *size)
{
    const char *text = given->authorization;
    if (!text || strncasecmp(text, "Bearer", 6) != 0 || text[6] != ' ')
        return NULL;
    text += 6 + strspn(text + 6, " ");
    *size = strlen(text);
    while (*size > 0 && (text[*size - 1] == ' ' || text[*size - 1] == '\t'))
        --*size;
    return text;
}

/* reason is our own sentence, scope a list that the configuration has checked: nothing in them has
 * to be escaped. */
static void challenge(struct answer *answer, const char *error, const char *reason,
                      const char *scope)
{
    int length = snprintf(answer->challenge, sizeof answer->challenge,
                          REALM ", error=\"%s\", error_description=\"%s\"", error, reason);
    size_t used = length > 0 ? (size_t)length : 0;
    if (scope[0] && used + strlen(scope) + sizeof ", scope=\"\"" <= sizeof answer->challenge)
        snprintf(answer->challenge + used, sizeof answer->challenge - used, ", scope=\"%s\"",
                 scope);
    answer->authenticate = answer->challenge;
}

static enum door token_refused(struct problem *problem, struct answer *answer, const char *reason)
{
    problem_set(problem, 401, "%s", reason);
    challenge(answer, "invalid_token", reason, "");
    return DOOR_CLOSED;
}

static enum door token_later(struct problem *problem, const char *reason, uint32_t after_s)
{
    problem_set(problem, 503, "%s, try again later", reason);
    problem->retry_after_s = after_s ? after_s : 1;
    return DOOR_CLOSED;
}

/* What the token lacks for this request, or NULL. */
static const char *scope_missing(const struct door_keys *door, const struct door_knock *knock,
                                 const struct auth_answer *told)
{
    const char *model = knock->model >= 0 ? door->config->models[knock->model].scope : "";
    if (!config_words_have_all(told->scopes, door->config->oauth.scope))
        return door->config->oauth.scope;
    return config_words_have_all(told->scopes, model) ? NULL : model;
}

static enum door token_judge(const struct door_keys *door, const struct door_knock *knock,
                             const struct auth_answer *told, const struct api_key **key,
                             struct problem *problem, struct answer *answer)
{
    static struct api_key holder;
    _Static_assert(sizeof holder.holder == AUTH_HOLDER_MAX, "both are a digest");
    if (told->verdict == AUTH_UNAVAILABLE)
        return token_later(problem, told->reason, told->retry_after_s);
    if (told->verdict != AUTH_ACCEPTED)
        return token_refused(problem, answer, told->reason);
    const char *missing = scope_missing(door, knock, told);
    if (missing) {
        problem_set(problem, 403, "The token's scopes do not allow this; needed: %s", missing);
        challenge(answer, "insufficient_scope", "The token's scopes do not allow this", missing);
        return DOOR_CLOSED;
    }
    memcpy(holder.holder, told->holder, sizeof holder.holder);
    *key = &holder;
    return DOOR_OPEN;
}

static enum door token_try(const struct door_keys *door, const struct door_knock *knock,
                           const struct api_key **key, struct problem *problem,
                           struct answer *answer)
{
    size_t size = 0;
    const char *token = token_of(&knock->given, &size);
    if (!token || size == 0) {
        problem_set(problem, 401, "Not authenticated");
        answer->authenticate = door->keys->count ? "APIKey, " REALM : REALM;
        return DOOR_CLOSED;
    }
    if (size > AUTH_TOKEN_MAX)
        return token_refused(problem, answer, "The token is too long");
    const struct auth_answer *told = knock->told ? knock->told
                                                 : oauth_look(door->oauth, token, size);
    if (told)
        return token_judge(door, knock, told, key, problem, answer);
    int error = oauth_ask(door->oauth, token, size, knock->client, knock->waiter);
    if (error)
        return token_later(problem,
                           error == -EBUSY ? "Too many of your tokens are being checked"
                                           : "Tokens cannot be checked now",
                           1);
    return DOOR_ASKS;
}

enum door door_try(const struct door_keys *door, const struct door_knock *knock,
                   const struct api_key **key, struct problem *problem, struct answer *answer)
{
    bool oauth = config_has_oauth(door->config);
    enum door result = DOOR_CLOSED;
    *key = NULL;
    /* Without keys the file of keys opens to everybody, and must not where tokens are asked for. */
    bool by_key = door->keys->count > 0 || !oauth;
    if (by_key && api_keys_admit(door->keys, &knock->given, key, problem, &answer->authenticate))
        result = key_opens(door, knock, *key, problem, answer);
    else if (oauth && !(by_key && knock->given.key)) {
        answer->authenticate = NULL;
        result = token_try(door, knock, key, problem, answer);
    }
    if (result == DOOR_CLOSED)
        metrics_refused(problem->status == 503 ? COUNTERS_REFUSED_AUTH : COUNTERS_REFUSED_KEY);
    return result;
}
