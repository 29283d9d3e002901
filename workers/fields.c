#include "workers/fields.h"

#include "lib/json_text.h"
#include "lib/json_whole.h"
#include "unetserve/problem.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Room for the document that says what is wrong with another. */
#define REFUSAL_MAX ((size_t)FIELDS_ERRORS_MAX * PROBLEM_BODY_MAX)
/* As much of a wrong value as a problem repeats. */
#define ECHO_MAX 256

/* Memory that lives as long as the values. */
struct block {
    struct block *next;
};

struct fields {
    json_t *document; /* strings point into it */
    struct block *blocks;
    struct unetserve_value values[UNETSERVE_MAX_FIELDS];
};

/* ---- declarations ---- */

static int check_field(const struct unetserve_field *field)
{
    if (!field->name[0] || strnlen(field->name, sizeof field->name) == sizeof field->name ||
        strnlen(field->fallback_text, sizeof field->fallback_text) == sizeof field->fallback_text)
        return -EBADMSG;
    if (field->type < UNETSERVE_FLOAT || field->type > UNETSERVE_BOOL ||
        field->depth > UNETSERVE_MAX_DEPTH || !isfinite(field->fallback))
        return -EBADMSG;
    if (field->or_bare && field->depth != 1)
        return -EBADMSG;
    if (field->depth > 0 && (field->type != UNETSERVE_FLOAT || field->optional))
        return -EBADMSG;
    return 0;
}

static int check_list(const struct unetserve_field *fields, uint32_t count, const char *which,
                      char *error, size_t error_size)
{
    if (count > UNETSERVE_MAX_FIELDS) {
        snprintf(error, error_size, "%u %s fields are declared, at most %d are possible", count,
                 which, UNETSERVE_MAX_FIELDS);
        return -EBADMSG;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (check_field(&fields[i]) == 0)
            continue;
        snprintf(
            error, error_size,
            "%s field %u (%.47s): expected a name of 1 to 47 bytes, a type from float to bool, "
            "lists of float only, at most %d deep and never optional",
            which, i, fields[i].name, UNETSERVE_MAX_DEPTH);
        return -EBADMSG;
    }
    return 0;
}

int fields_check(const struct unetserve_interface *interface, char *error, size_t error_size)
{
    if (check_list(interface->request_fields, interface->request_field_count, "request", error,
                   error_size))
        return -EBADMSG;
    if (interface->request_field_count && interface->input_kind != UNETSERVE_DOCUMENT) {
        snprintf(error, error_size, "request fields are declared, but the input is no document");
        return -EBADMSG;
    }
    return check_list(interface->response_fields, interface->response_field_count, "response",
                      error, error_size);
}

/* ---- what is wrong with a document ---- */

/* Where in a document: the field, and the indices of the lists on the way. */
struct place {
    const char *field;
    size_t indices[UNETSERVE_MAX_DEPTH];
    size_t depth;
};

struct reading {
    struct fields *fields;
    struct place place;
    struct problem problems[FIELDS_ERRORS_MAX];
    size_t problem_count;
    bool no_memory;
};

struct echo {
    char text[ECHO_MAX];
    size_t length;
};

/* Stops the dump of a value as soon as nobody will look at the rest. */
static int echo_add(const char *bytes, size_t size, void *opaque)
{
    struct echo *echo = opaque;
    size_t room = sizeof echo->text - 1 - echo->length;
    size_t taken = size < room ? size : room;
    memcpy(echo->text + echo->length, bytes, taken);
    echo->length += taken;
    echo->text[echo->length] = '\0';
    return taken == size ? 0 : -1;
}

static void echo_value(const json_t *value, struct echo *echo)
{
    *echo = (struct echo){.length = 0};
    (void)json_dump_callback(value, echo_add, echo, JSON_ENCODE_ANY | JSON_COMPACT);
}

static void say_wrong(struct reading *reading, const char *type, const char *message,
                      const json_t *value)
{
    struct echo echo;
    if (reading->problem_count == FIELDS_ERRORS_MAX)
        return;
    echo_value(value, &echo);
    problem_set_value(&reading->problems[reading->problem_count++], type, reading->place.field,
                      reading->place.indices, reading->place.depth, message, echo.text);
}

/* ---- values, as pydantic converts them ---- */

/* Decimal, with white space around it as Python's float() allows. */
static bool text_to_number(const char *text, double *number)
{
    text += strspn(text, " \t\r\n\f\v");
    size_t size = strspn(text, "0123456789+-.eE");
    char *end;
    if (size == 0 || text[size + strspn(text + size, " \t\r\n\f\v")] != '\0')
        return false;
    *number = strtod(text, &end);
    return end == text + size && isfinite(*number);
}

static void read_float(struct reading *reading, const json_t *value, double *number)
{
    if (json_is_number(value))
        *number = json_number_value(value);
    else if (json_is_boolean(value))
        *number = json_is_true(value);
    else if (!json_is_string(value))
        say_wrong(reading, "float_type", "Input should be a valid number", value);
    else if (strlen(json_string_value(value)) != json_string_length(value) ||
             !text_to_number(json_string_value(value), number))
        say_wrong(reading, "float_parsing",
                  "Input should be a valid number, unable to parse string as a number", value);
}

static void read_int(struct reading *reading, const json_t *value, struct unetserve_value *out)
{
    static const double limit = 9223372036854775808.0;
    double number = 0;
    bool text = json_is_string(value);
    if (json_is_integer(value) || json_is_boolean(value)) {
        out->integer = json_is_integer(value) ? json_integer_value(value) : json_is_true(value);
        out->number = (double)out->integer;
        return;
    }
    if (text && (strlen(json_string_value(value)) != json_string_length(value) ||
                 !text_to_number(json_string_value(value), &number) || number != trunc(number))) {
        say_wrong(reading, "int_parsing",
                  "Input should be a valid integer, unable to parse string as an integer", value);
        return;
    }
    if (!text && !json_is_real(value)) {
        say_wrong(reading, "int_type", "Input should be a valid integer", value);
        return;
    }
    number = text ? number : json_real_value(value);
    if (number != trunc(number)) {
        say_wrong(reading, "int_from_float",
                  "Input should be a valid integer, got a number with a fractional part", value);
    } else if (number < -limit || number >= limit) {
        say_wrong(reading, "int_parsing_size",
                  "Unable to parse input string as an integer, exceeded maximum size", value);
    } else {
        out->number = number;
        out->integer = (int64_t)number;
    }
}

static void read_str(struct reading *reading, const json_t *value, struct unetserve_value *out)
{
    if (!json_is_string(value)) {
        say_wrong(reading, "string_type", "Input should be a valid string", value);
        return;
    }
    out->text = json_string_value(value);
    out->text_bytes = json_string_length(value);
}

static bool text_is_one_of(const char *text, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcasecmp(text, words[i]) == 0)
            return true;
    return false;
}

static void read_bool(struct reading *reading, const json_t *value, struct unetserve_value *out)
{
    static const char *const yes[] = {"true", "1", "yes", "on", "t", "y"};
    static const char *const no[] = {"false", "0", "no", "off", "f", "n"};
    const char *text = json_string_value(value);
    if (json_is_boolean(value))
        out->integer = json_is_true(value);
    else if (json_is_number(value) &&
             (json_number_value(value) == 0 || json_number_value(value) == 1))
        out->integer = json_number_value(value) == 1;
    else if (text && text_is_one_of(text, yes, sizeof yes / sizeof yes[0]))
        out->integer = 1;
    else if (text && text_is_one_of(text, no, sizeof no / sizeof no[0]))
        out->integer = 0;
    else if (text || json_is_number(value))
        say_wrong(reading, "bool_parsing",
                  "Input should be a valid boolean, unable to interpret input", value);
    else
        say_wrong(reading, "bool_type", "Input should be a valid boolean", value);
    out->number = (double)out->integer;
}

static void *allocate(struct reading *reading, size_t count, size_t size)
{
    if (count > (SIZE_MAX - sizeof(struct block) - 16) / size) {
        reading->no_memory = true;
        return NULL;
    }
    struct block *block = malloc(16 + count * size);
    if (!block) {
        reading->no_memory = true;
        return NULL;
    }
    block->next = reading->fields->blocks;
    reading->fields->blocks = block;
    return (char *)block + 16;
}

static void read_numbers(struct reading *reading, const json_t *list, struct unetserve_value *out)
{
    size_t count = json_array_size(list);
    double *numbers = allocate(reading, count, sizeof *numbers);
    if (!numbers)
        return;
    for (size_t i = 0; i < count; i++) {
        numbers[i] = 0;
        reading->place.indices[reading->place.depth - 1] = i;
        read_float(reading, json_array_get(list, i), &numbers[i]);
    }
    out->numbers = numbers;
    out->count = count;
}

/* depth lists in each other. Not recursive by more than UNETSERVE_MAX_DEPTH. */
/* NOLINTNEXTLINE(misc-no-recursion) */
static void read_list(struct reading *reading, const json_t *list, uint32_t depth,
                      struct unetserve_value *out)
{
    if (!json_is_array(list)) {
        say_wrong(reading, "list_type", "Input should be a valid list", list);
        return;
    }
    reading->place.depth++;
    if (depth == 1) {
        read_numbers(reading, list, out);
        reading->place.depth--;
        return;
    }
    size_t count = json_array_size(list);
    struct unetserve_value *lists = allocate(reading, count, sizeof *lists);
    for (size_t i = 0; lists && i < count; i++) {
        lists[i] = (struct unetserve_value){0};
        reading->place.indices[reading->place.depth - 1] = i;
        read_list(reading, json_array_get(list, i), depth - 1, &lists[i]);
    }
    out->lists = lists;
    out->count = lists ? count : 0;
    reading->place.depth--;
}

static void read_bare(struct reading *reading, const json_t *value, struct unetserve_value *out)
{
    double *number = allocate(reading, 1, sizeof *number);
    if (!number)
        return;
    *number = 0;
    read_float(reading, value, number);
    *out = (struct unetserve_value){.bare = true, .numbers = number, .count = 1};
}

static void read_value(struct reading *reading, const struct unetserve_field *field,
                       const json_t *value, struct unetserve_value *out)
{
    if (field->or_bare && !json_is_array(value)) {
        read_bare(reading, value, out);
        return;
    }
    if (field->depth > 0) {
        read_list(reading, value, field->depth, out);
        return;
    }
    switch ((enum unetserve_field_type)field->type) {
    case UNETSERVE_FLOAT: read_float(reading, value, &out->number); break;
    case UNETSERVE_INT: read_int(reading, value, out); break;
    case UNETSERVE_STR: read_str(reading, value, out); break;
    case UNETSERVE_BOOL: read_bool(reading, value, out); break;
    }
}

static void use_fallback(const struct unetserve_field *field, struct unetserve_value *out)
{
    out->number = field->fallback;
    out->integer = fabs(field->fallback) < 9e18 ? (int64_t)field->fallback : 0;
    out->text = field->fallback_text;
    out->text_bytes = strlen(field->fallback_text);
}

static void read_fields(struct reading *reading, const struct unetserve_interface *interface)
{
    const json_t *document = reading->fields->document;
    for (uint32_t i = 0; i < interface->request_field_count; i++) {
        const struct unetserve_field *field = &interface->request_fields[i];
        const json_t *value = json_object_get(document, field->name);
        reading->place = (struct place){.field = field->name};
        if (value) {
            read_value(reading, field, value, &reading->fields->values[i]);
        } else if (field->optional) {
            use_fallback(field, &reading->fields->values[i]);
        } else if (reading->problem_count < FIELDS_ERRORS_MAX) {
            struct echo echo;
            echo_value(document, &echo);
            problem_set_missing(&reading->problems[reading->problem_count++], field->name,
                                echo.text);
        }
    }
}

/* ---- a whole document ---- */

/* Integers stay integers, where they fit 64 bits; in a document that has a larger one, all numbers
 * are floats. */
static json_t *parse(const char *text, size_t size, json_error_t *error)
{
    size_t flags = JSON_DECODE_ANY | JSON_ALLOW_NUL;
    json_t *document = json_whole_load(text, size, flags, error);
    if (!document && errno != ENOMEM && json_error_code(error) == json_error_numeric_overflow)
        document = json_whole_load(text, size, flags | JSON_DECODE_INT_AS_REAL, error);
    return document;
}

/* What is wrong with the body before any field is looked at; status 0: nothing, *document is its. 0
 * or -ENOMEM. */
static int read_body(const struct unetserve_item *item, struct problem *problem, json_t **document)
{
    const char *text = item->input;
    json_error_t error;
    problem->status = 0;
    *document = NULL;
    if (item->input_bytes == 0) {
        problem_set_missing(problem, NULL, "null");
        return 0;
    }
    if (item->input_bytes > FIELDS_DOCUMENT_MAX) {
        problem_set(problem, 413,
                    "Payload too large: a document of declared fields has at most %zu bytes",
                    FIELDS_DOCUMENT_MAX);
        return 0;
    }
    /* Some clients put a byte order mark in front. Python's json reads over it. */
    size_t mark = item->input_bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    json_t *read = parse(text + mark, item->input_bytes - mark, &error);
    if (!read && errno == ENOMEM)
        return -ENOMEM;
    if (!read) {
        problem_set_json_invalid(problem, error.position > 0 ? (size_t)error.position : 0,
                                 error.text);
    } else if (!json_is_object(read)) {
        struct echo echo;
        echo_value(read, &echo);
        problem_set_value(problem, "model_attributes_type", NULL, NULL, 0,
                          "Input should be a valid dictionary or object to extract fields from",
                          echo.text);
        json_decref(read);
    } else {
        *document = read;
    }
    return 0;
}

static int refuse(struct unetserve_item *item, int status, const char *body, size_t size)
{
    if (size > item->output_capacity)
        return -ENOSPC;
    item->status = (uint32_t)status;
    memcpy(item->output, body, size);
    item->output_bytes = size;
    return 0;
}

void fields_free(struct fields *fields)
{
    if (!fields)
        return;
    while (fields->blocks) {
        struct block *block = fields->blocks;
        fields->blocks = block->next;
        free(block);
    }
    json_decref(fields->document);
    free(fields);
}

static int refuse_fields(struct unetserve_item *item, const struct reading *reading)
{
    char body[REFUSAL_MAX];
    size_t size = problem_join(reading->problems, reading->problem_count, body, sizeof body);
    return refuse(item, 422, body, size);
}

int fields_read(const struct unetserve_interface *interface, struct unetserve_item *item,
                struct fields **out)
{
    struct problem problem;
    struct reading reading = {.problem_count = 0};
    struct fields *fields = calloc(1, sizeof *fields);
    *out = NULL;
    if (!fields)
        return -ENOMEM;
    int failed = read_body(item, &problem, &fields->document);
    if (failed || problem.status) {
        fields_free(fields);
        return failed ? failed : refuse(item, problem.status, problem.body, strlen(problem.body));
    }
    reading.fields = fields;
    read_fields(&reading, interface);
    if (reading.no_memory || reading.problem_count) {
        int error = reading.no_memory ? -ENOMEM : refuse_fields(item, &reading);
        fields_free(fields);
        return error;
    }
    item->values = fields->values;
    *out = fields;
    return 0;
}

/* ---- answers ---- */

static bool write_number(struct json_text *text, const struct unetserve_field *field,
                         const struct unetserve_value *value)
{
    char digits[32];
    switch ((enum unetserve_field_type)field->type) {
    case UNETSERVE_FLOAT: return json_text_float(text, value->number);
    case UNETSERVE_INT:
        snprintf(digits, sizeof digits, "%lld", (long long)value->integer);
        return json_text_raw(text, digits);
    case UNETSERVE_BOOL: return json_text_raw(text, value->number != 0 ? "true" : "false");
    case UNETSERVE_STR:
        return json_text_quote(text, value->text ? value->text : "", value->text_bytes, SIZE_MAX);
    }
    return false;
}

static bool numbers_finite(const struct unetserve_value *value)
{
    for (size_t i = 0; i < value->count; i++)
        if (!isfinite(value->numbers[i]))
            return false;
    return true;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the declaration says */
static int write_list(struct json_text *text, uint32_t depth, const struct unetserve_value *value)
{
    if (depth == 1 && !numbers_finite(value))
        return -EDOM;
    if (!json_text_raw(text, "["))
        return -ENOSPC;
    for (size_t i = 0; i < value->count; i++) {
        if (i > 0 && !json_text_raw(text, ","))
            return -ENOSPC;
        int error = 0;
        if (depth > 1)
            error = write_list(text, depth - 1, &value->lists[i]);
        else if (!json_text_float(text, value->numbers[i]))
            error = -ENOSPC;
        if (error)
            return error;
    }
    return json_text_raw(text, "]") ? 0 : -ENOSPC;
}

static int write_field(struct json_text *text, const struct unetserve_field *field,
                       const struct unetserve_value *value)
{
    if (!json_text_quote(text, field->name, strlen(field->name), SIZE_MAX) ||
        !json_text_raw(text, ":"))
        return -ENOSPC;
    if (field->or_bare && value->bare && value->count == 1) {
        if (!isfinite(value->numbers[0]))
            return -EDOM;
        return json_text_float(text, value->numbers[0]) ? 0 : -ENOSPC;
    }
    if (field->depth > 0)
        return write_list(text, field->depth, value);
    if (field->type == UNETSERVE_FLOAT && !isfinite(value->number))
        return -EDOM;
    return write_number(text, field, value) ? 0 : -ENOSPC;
}

int fields_write(const struct unetserve_interface *interface, const struct unetserve_value *values,
                 char *buffer, size_t size, size_t *length)
{
    struct json_text text;
    if (size == 0)
        return -ENOSPC;
    json_text_init(&text, buffer, size);
    for (uint32_t i = 0; i < interface->response_field_count; i++) {
        if (!json_text_raw(&text, i ? "," : "{"))
            return -ENOSPC;
        int error = write_field(&text, &interface->response_fields[i], &values[i]);
        if (error)
            return error;
    }
    if (!json_text_raw(&text, interface->response_field_count ? "}" : "{}"))
        return -ENOSPC;
    *length = text.length;
    return 0;
}
