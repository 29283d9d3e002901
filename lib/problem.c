#include "unetserve/problem.h"

#include "lib/json_scan.h"
#include "lib/json_text.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The most that each part may take, so that their sum with all that is fixed stays below
 * PROBLEM_BODY_MAX. */
enum {
    DETAIL_BUDGET = PROBLEM_BODY_MAX - 16,
    TYPE_BUDGET = 48,
    FIELD_BUDGET = 144,
    MESSAGE_BUDGET = 400,
    INPUT_BUDGET = 128,
    INDEX_COUNT_MAX = 6
};

void problem_set(struct problem *problem, int status, const char *format, ...)
{
    /* As large as the body: a sentence that is cut here would have been cut below too, and there
     * with care. */
    char sentence[PROBLEM_BODY_MAX];
    va_list arguments;
    va_start(arguments, format);
    /* The analyser loses va_start when it is given several files in one run. */
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
    int length = vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    if (length < 0)
        sentence[0] = '\0';

    struct json_text text;
    json_text_init(&text, problem->body, sizeof problem->body);
    json_text_raw(&text, "{\"detail\":");
    json_text_quote(&text, sentence, strlen(sentence), DETAIL_BUDGET);
    json_text_raw(&text, "}");
    problem->status = status;
    problem->retry_after_s = 0;
}

static void begin_item(struct json_text *text, struct problem *problem, const char *type)
{
    problem->status = 422;
    problem->retry_after_s = 0;
    json_text_init(text, problem->body, sizeof problem->body);
    json_text_raw(text, "{\"detail\":[{\"type\":");
    json_text_quote(text, type, strlen(type), TYPE_BUDGET);
    json_text_raw(text, ",\"loc\":[\"body\"");
}

static void add_field(struct json_text *text, const char *field)
{
    if (field) {
        json_text_raw(text, ",");
        json_text_quote(text, field, strlen(field), FIELD_BUDGET);
    }
}

static void add_message(struct json_text *text, const char *message)
{
    json_text_raw(text, "],\"msg\":");
    json_text_quote(text, message, strlen(message), MESSAGE_BUDGET);
    json_text_raw(text, ",\"input\":");
}

/* JSON text as it is if it is valid and short, else the beginning of it as a string. */
static void add_input(struct json_text *text, const char *input)
{
    size_t size = strnlen(input, INPUT_BUDGET);
    if (size < INPUT_BUDGET && json_is_valid(input, size))
        json_text_raw(text, input);
    else
        json_text_quote(text, input, strlen(input), INPUT_BUDGET);
}

void problem_set_json_invalid(struct problem *problem, size_t offset, const char *reason)
{
    struct json_text text;
    begin_item(&text, problem, "json_invalid");
    json_text_raw(&text, ",");
    json_text_number(&text, offset);
    add_message(&text, "JSON decode error");
    json_text_raw(&text, "{},\"ctx\":{\"error\":");
    json_text_quote(&text, reason, strlen(reason), MESSAGE_BUDGET);
    json_text_raw(&text, "}}]}");
}

void problem_set_missing(struct problem *problem, const char *field, const char *input)
{
    struct json_text text;
    begin_item(&text, problem, "missing");
    add_field(&text, field);
    add_message(&text, "Field required");
    add_input(&text, input ? input : "{}");
    json_text_raw(&text, "}]}");
}

void problem_set_value(struct problem *problem, const char *type, const char *field,
                       const size_t *indices, size_t index_count, const char *message,
                       const char *input)
{
    assert(index_count <= INDEX_COUNT_MAX);
    struct json_text text;
    begin_item(&text, problem, type);
    add_field(&text, field);
    for (size_t i = 0; i < index_count; i++) {
        json_text_raw(&text, ",");
        json_text_number(&text, indices[i]);
    }
    add_message(&text, message);
    add_input(&text, input ? input : "null");
    json_text_raw(&text, "}]}");
}

size_t problem_join(const struct problem *problems, size_t count, char *body, size_t size)
{
    static const char head[] = "{\"detail\":[";
    static const char tail[] = "]}";
    struct json_text text;
    json_text_init(&text, body, size - (sizeof tail - 1));
    json_text_raw(&text, head);
    for (size_t i = 0; i < count; i++) {
        char item[PROBLEM_BODY_MAX + 1];
        const char *from = problems[i].body;
        size_t length = strlen(from);
        assert(length > sizeof head + sizeof tail && strncmp(from, head, sizeof head - 1) == 0);
        snprintf(item, sizeof item, "%s%.*s", i ? "," : "",
                 (int)(length - (sizeof head - 1) - (sizeof tail - 1)), from + sizeof head - 1);
        if (!json_text_raw(&text, item))
            break;
    }
    memcpy(body + text.length, tail, sizeof tail);
    return text.length + sizeof tail - 1;
}
