#include "auth/claims.h"

#include "lib/config_oauth.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

/* How long a refusal may be believed: keys and rights come, clocks go on. */
#define REFUSAL_S     5
#define AUDIENCES_MAX 64
/* Whole seconds until then are exact in a double. */
#define TIME_MAX 9007199254740992.0

void claims_refuse(struct auth_answer *answer, int64_t now_s, const char *reason)
{
    *answer = (struct auth_answer){.verdict = AUTH_REFUSED, .expires_s = now_s + REFUSAL_S};
    snprintf(answer->reason, sizeof answer->reason, "%s", reason);
}

static const char *text_of(const json_t *claims, const char *name)
{
    return json_string_value(json_object_get(claims, name));
}

enum time_is { TIME_ABSENT, TIME_GIVEN, TIME_WRONG };

/* Seconds since 1970, whole or not; 0 unless they are given. */
static enum time_is time_of(const json_t *claims, const char *name, double *out)
{
    const json_t *value = json_object_get(claims, name);
    double seconds = json_number_value(value);
    *out = 0;
    if (!value)
        return TIME_ABSENT;
    if (!json_is_number(value) || seconds < 0 || seconds > TIME_MAX)
        return TIME_WRONG;
    *out = seconds;
    return TIME_GIVEN;
}

static bool audience_fits(const json_t *audience, const char *wanted)
{
    if (json_is_string(audience))
        return config_words_have(wanted, json_string_value(audience), json_string_length(audience));
    bool found = false;
    if (json_array_size(audience) > AUDIENCES_MAX)
        return false;
    for (size_t i = 0; i < json_array_size(audience); i++) {
        const json_t *one = json_array_get(audience, i);
        if (!json_is_string(one))
            return false;
        found = found || config_words_have(wanted, json_string_value(one), json_string_length(one));
    }
    return found;
}

/* ---- scopes ---- */

/* As RFC 6749 has them: printable, no quotes, no backslashes. */
static bool scope_fits(const char *scope, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (scope[i] <= 0x20 || scope[i] == 0x7f || scope[i] & 0x80 || scope[i] == '"' ||
            scope[i] == '\\')
            return false;
    return size > 0;
}

static bool scopes_add(char *scopes, const char *list)
{
    size_t used = strlen(scopes);
    for (;;) {
        list += strspn(list, " ");
        size_t size = strcspn(list, " ");
        if (size == 0)
            return true;
        if (!scope_fits(list, size) || used + size + 2 > AUTH_SCOPES_MAX)
            return false;
        if (used)
            scopes[used++] = ' ';
        memcpy(scopes + used, list, size);
        used += size;
        scopes[used] = '\0';
        list += size;
    }
}

/* A string of words as `scope`, or as some providers have it, a string or an array as `scp`. */
static bool scopes_read(const json_t *claims, char *scopes)
{
    static const char *const names[] = {"scope", "scp"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *value = json_object_get(claims, names[i]);
        if (value && !json_is_string(value) && !json_is_array(value))
            return false;
        if (json_is_string(value) && !scopes_add(scopes, json_string_value(value)))
            return false;
        for (size_t k = 0; k < json_array_size(value); k++) {
            const char *one = json_string_value(json_array_get(value, k));
            if (!one || !scopes_add(scopes, one))
                return false;
        }
    }
    return true;
}

/* ---- the whole ---- */

/* What is wrong with its time, or NULL; *ends_s: when it is over. */
static const char *time_check(const json_t *claims, const struct claims_rules *rules, int64_t now_s,
                              int64_t *ends_s)
{
    double expires;
    double begins;
    enum time_is end = time_of(claims, "exp", &expires);
    enum time_is begin = time_of(claims, "nbf", &begins);
    if (end == TIME_WRONG || begin == TIME_WRONG)
        return "The token's times are none";
    if (end == TIME_ABSENT && rules->must_expire)
        return "The token does not say when it expires";
    if (end == TIME_GIVEN && (double)(now_s - rules->leeway_s) >= expires)
        return "The token has expired";
    if (begin == TIME_GIVEN && (double)(now_s + rules->leeway_s) < begins)
        return "The token is not valid yet";
    int64_t most_s = now_s + rules->cache_s;
    *ends_s = end == TIME_GIVEN && expires < (double)most_s ? (int64_t)expires : most_s;
    return NULL;
}

/* The subject, or for want of one (a program's own token) the client. */
static const char *subject_of(const json_t *claims, bool must)
{
    static const char *const names[] = {"sub", "client_id", "username"};
    for (size_t i = 0; i < (must ? 1 : 3); i++) {
        const char *text = text_of(claims, names[i]);
        if (text && text[0])
            return text;
    }
    return must ? NULL : "";
}

static bool holder_make(const char *issuer, const char *subject,
                        unsigned char holder[AUTH_HOLDER_MAX])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool made = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL) &&
                EVP_DigestUpdate(context, issuer, strlen(issuer) + 1) &&
                EVP_DigestUpdate(context, subject, strlen(subject)) &&
                EVP_DigestFinal_ex(context, digest, NULL);
    EVP_MD_CTX_free(context);
    if (made)
        memcpy(holder, digest, AUTH_HOLDER_MAX);
    return made;
}

static const char *claims_read(const json_t *claims, const struct claims_rules *rules,
                               int64_t now_s, struct auth_answer *answer)
{
    const char *issuer = text_of(claims, "iss");
    const json_t *audience = json_object_get(claims, "aud");
    const char *subject = subject_of(claims, rules->must_expire);
    bool must_issue = rules->issuer[0] && (rules->must_expire || json_object_get(claims, "iss"));
    if (!json_is_object(claims))
        return "The token's claims are no JSON object";
    if (must_issue && (!issuer || strcmp(issuer, rules->issuer) != 0))
        return "The token is from another issuer";
    if (rules->audiences[0] && !audience_fits(audience, rules->audiences))
        return "The token is for another audience";
    const char *wrong = time_check(claims, rules, now_s, &answer->expires_s);
    if (wrong)
        return wrong;
    if (!subject)
        return "The token does not say whose it is";
    if (!scopes_read(claims, answer->scopes))
        return "The token's scopes are malformed, or too many";
    if (!holder_make(issuer ? issuer : "", subject, answer->holder))
        return "The token cannot be checked";
    return NULL;
}

void claims_check(const json_t *claims, const struct claims_rules *rules, int64_t now_s,
                  struct auth_answer *answer)
{
    struct auth_answer fresh = {.verdict = AUTH_ACCEPTED};
    const char *wrong = claims_read(claims, rules, now_s, &fresh);
    if (wrong)
        claims_refuse(answer, now_s, wrong);
    else
        *answer = fresh;
}
