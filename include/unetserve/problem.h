/*
 * Why a request is refused: an HTTP status and the JSON body that goes with it. Bodies have the
 * shapes that LitServe's clients know: {"detail":"sentence"}, or pydantic's
 * {"detail":[{"type","loc","msg","input"}]} for JSON documents. Text that came from outside is
 * JSON-escaped and cut here, never trusted.
 */
#ifndef PROBLEM_H
#define PROBLEM_H

#include <stddef.h>
#include <stdint.h>

#define PROBLEM_BODY_MAX 1024

struct problem {
    int status;                  /* 4xx or 5xx; 0: no problem */
    uint32_t retry_after_s;      /* when it may be worth trying again; 0: not known */
    char body[PROBLEM_BODY_MAX]; /* complete JSON document, terminated */
};

/* {"detail":"..."}; printf-like. */
void problem_set(struct problem *problem, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* 422 json_invalid: loc is ["body", offset], ctx.error the reason. */
void problem_set_json_invalid(struct problem *problem, size_t offset, const char *reason);

/* 422 missing: loc ["body", field], or ["body"] if field is NULL, "Field required"; input is JSON
 * text echoed (cut), or NULL for {}. */
void problem_set_missing(struct problem *problem, const char *field, const char *input);

/* 422 with pydantic's type ("list_type", "float_type", ...), loc ["body", field, index...] (field
 * NULL:
 * ["body"]; at most 6 indices) and a sentence. input: JSON text of the offending value (cut; what
 * is not JSON is echoed as a string), or NULL for null. */
void problem_set_value(struct problem *problem, const char *type, const char *field,
                       const size_t *indices, size_t index_count, const char *message,
                       const char *input);

/* Several of those 422s with a list in "detail" as one document: {"detail":[...,...]}. Those that
 * do not fit are left out; the first always does in PROBLEM_BODY_MAX bytes. Returns its length. */
size_t problem_join(const struct problem *problems, size_t count, char *body, size_t size);

#endif
