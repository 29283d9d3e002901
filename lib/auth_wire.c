#include "lib/auth_wire.h"

#include <errno.h>
#include <string.h>

size_t auth_question_bytes(const struct auth_question *question)
{
    return offsetof(struct auth_question, token) + question->size;
}

size_t auth_answer_bytes(const struct auth_answer *answer)
{
    return offsetof(struct auth_answer, scopes) + strlen(answer->scopes) + 1;
}

int auth_question_check(const struct auth_question *question, size_t bytes)
{
    if (bytes < offsetof(struct auth_question, token) || question->size > AUTH_TOKEN_MAX)
        return -EBADMSG;
    return bytes == auth_question_bytes(question) ? 0 : -EBADMSG;
}

int auth_answer_check(struct auth_answer *answer, size_t bytes)
{
    size_t head = offsetof(struct auth_answer, scopes);
    if (bytes <= head || bytes > sizeof *answer)
        return -EBADMSG;
    if (answer->verdict < AUTH_ACCEPTED || answer->verdict > AUTH_UNAVAILABLE)
        return -EBADMSG;
    answer->reason[sizeof answer->reason - 1] = '\0';
    answer->scopes[bytes - head - 1] = '\0';
    return 0;
}
