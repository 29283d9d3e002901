#include "refusal.h"

#include "command.h"

#include <jansson.h>
#include <stdio.h>
#include <sysexits.h>

void refusal_explain(const struct unetserve_answer *answer, char *error, size_t error_size)
{
    json_t *document = json_loadb(answer->data, answer->bytes, 0, NULL);
    const json_t *detail = json_object_get(document, "detail");
    const char *text = json_string_value(detail);
    if (!text)
        text = json_string_value(json_object_get(json_array_get(detail, 0), "msg"));
    snprintf(error, error_size, "the server refused the tile (%d): %.300s", answer->status,
             text ? text : (const char *)answer->data);
    json_decref(document);
}

int refusal_exit_code(int rc, int status)
{
    if (status == 0 || status == 200)
        return command_exit_code(rc);
    if (status == 429 || status == 503 || status == 504)
        return EX_TEMPFAIL;
    if (status == 401 || status == 403)
        return EX_NOPERM;
    return status < 500 ? EX_DATAERR : EX_UNAVAILABLE;
}
