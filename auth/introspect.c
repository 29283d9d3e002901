#include "auth/introspect.h"

#include <stdio.h>
#include <string.h>

#define RETRY_S 1

static bool is_plain(unsigned char byte)
{
    return byte &&
           strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~", byte);
}

void introspect_form(const char *token, size_t size, char *form)
{
    static const char digits[] = "0123456789ABCDEF";
    char *at = stpcpy(form, "token_type_hint=access_token&token=");
    for (size_t i = 0; i < size && i < AUTH_TOKEN_MAX; i++) {
        unsigned char byte = (unsigned char)token[i];
        if (is_plain(byte)) {
            *at++ = (char)byte;
            continue;
        }
        *at++ = '%';
        *at++ = digits[byte >> 4];
        *at++ = digits[byte & 15];
    }
    *at = '\0';
}

static void unavailable(struct auth_answer *answer, const char *reason)
{
    *answer = (struct auth_answer){.verdict = AUTH_UNAVAILABLE, .retry_after_s = RETRY_S};
    snprintf(answer->reason, sizeof answer->reason, "%s", reason);
}

void introspect_read(const struct fetch_result *result, const struct claims_rules *rules,
                     int64_t now_s, struct auth_answer *answer)
{
    if (result->status != 200) {
        unavailable(answer, result->status ? "The identity provider does not answer as it should"
                                           : "The identity provider cannot be reached");
        return;
    }
    json_t *claims = json_loadb(result->body, result->size, JSON_REJECT_DUPLICATES, NULL);
    const json_t *active = json_object_get(claims, "active");
    if (!json_is_boolean(active))
        unavailable(answer, "The identity provider does not answer as it should");
    else if (!json_is_true(active))
        claims_refuse(answer, now_s, "The token is not active");
    else
        claims_check(claims, rules, now_s, answer);
    json_decref(claims);
}
