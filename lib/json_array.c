#include "lib/json_array.h"

#include "lib/body_check.h"
#include "lib/body_sink.h"
#include "lib/json_number.h"
#include "lib/json_rows.h"
#include "lib/json_scan.h"
#include "lib/json_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { RANK_MAX = 4, ECHO_MAX = 64 };

void json_array_init(struct json_array *array, const struct unetserve_interface *interface,
                     json_array_text *text, void *opaque)
{
    json_scan_init(&array->scan);
    array->interface = interface;
    array->values = 0;
    array->level = 0;
    array->rank = 0;
    array->started = array->inside = array->seen = false;
    array->is_text = array->in_kind = false;
    array->text = text;
    array->opaque = opaque;
}

/* ---- refusals ---- */

static const char *field_of(const struct json_array *array, char field[33])
{
    snprintf(field, 33, "%.32s", array->interface->input_field);
    return field;
}

/* 422 at the current place of the first `levels` open lists. Always -1. */
static int refuse(const struct json_array *array, uint32_t levels, const char *type,
                  const char *message, const char *input, struct problem *problem)
{
    char field[33];
    size_t indices[RANK_MAX];
    for (uint32_t i = 0; i < levels; i++)
        indices[i] = array->count[i];
    problem_set_value(problem, type, field_of(array, field), indices, levels, message, input);
    return -1;
}

/* A value that should not stand where it stands: what stands there is quoted, where it is short
 * enough to be known. */
static int refuse_value(const struct json_array *array, enum json_event event, const char *type,
                        const char *message, struct problem *problem)
{
    const struct json_scan *scan = &array->scan;
    char echo[6 * ECHO_MAX];
    struct json_text text;
    json_text_init(&text, echo, sizeof echo);
    if (event == SCAN_NUMBER || event == SCAN_LITERAL)
        snprintf(echo, sizeof echo, "%.*s", (int)scan->text_size, scan->text);
    else if (event == SCAN_STRING || event == SCAN_NOT_FINITE)
        json_text_quote(&text, scan->text, scan->text_size, ECHO_MAX);
    return refuse(array, array->level, type, message, echo[0] ? echo : NULL, problem);
}

static int refuse_length(const struct json_array *array, uint32_t levels, bool too_long,
                         uint64_t limit, struct problem *problem)
{
    char message[96];
    uint64_t count = array->count[levels];
    snprintf(message, sizeof message,
             "List should have at %s %" PRIu64 " item%s after validation, not %" PRIu64,
             too_long ? "most" : "least", limit, limit == 1 ? "" : "s", count + too_long);
    return refuse(array, levels, too_long ? "too_long" : "too_short", message, NULL, problem);
}

static int refuse_top_level(const struct json_array *array, enum json_event event,
                            struct problem *problem)
{
    const struct json_scan *scan = &array->scan;
    char echo[6 * ECHO_MAX];
    struct json_text text;
    json_text_init(&text, echo, sizeof echo);
    if (event == SCAN_STRING || event == SCAN_NOT_FINITE)
        json_text_quote(&text, scan->text, scan->text_size, ECHO_MAX);
    else if (event != SCAN_OPEN_LIST)
        snprintf(echo, sizeof echo, "%.*s", (int)scan->text_size, scan->text);
    problem_set_value(problem, "model_attributes_type", NULL, NULL, 0,
                      "Input should be a valid dictionary or object to extract fields from",
                      echo[0] ? echo : NULL);
    return -1;
}

/* ---- the lists' lengths ---- */

/* The first number tells the rank, and with it what each level may hold. */
static void settle_rank(struct json_array *array)
{
    const struct unetserve_interface *interface = array->interface;
    array->rank = array->level;
    uint32_t channel_level = array->rank - 3;
    for (uint32_t i = 0; i < array->rank; i++) {
        array->least[i] = interface->size_min ? interface->size_min : 1;
        array->most[i] = interface->size_max ? interface->size_max : UINT64_MAX;
    }
    array->least[channel_level] = interface->channels ? interface->channels : 1;
    array->most[channel_level] = interface->channels ? interface->channels : UINT64_MAX;
    if (array->rank == 4) {
        array->least[0] = 1;
        array->most[0] = interface->max_batch;
    }
}

/* Deepest level at which numbers may stand. */
static uint32_t rank_most(const struct json_array *array)
{
    if (array->rank)
        return array->rank;
    return array->interface->max_batch > 1 ? 4 : 3;
}

/* A value comes in the innermost open list: is there a place for it? */
static int check_place(const struct json_array *array, struct problem *problem)
{
    if (array->level == 0 || array->rank == 0)
        return 0;
    uint32_t inner = array->level - 1;
    if (array->count[inner] < array->most[inner])
        return 0;
    return refuse_length(array, inner, true, array->most[inner], problem);
}

/* Numbers in JSON become float32. */
static int check_type(const struct json_array *array, struct problem *problem)
{
    char types[96];
    if (body_check_dtype(array->interface, UNETSERVE_F32))
        return 0;
    problem_set(problem, 422,
                "a JSON body arrives as float32, and the model takes %s: send npy or raw bytes",
                body_list_dtypes(array->interface, types, sizeof types));
    return -1;
}

static int open_list(struct json_array *array, struct problem *problem)
{
    if (array->level == 0 && check_type(array, problem))
        return -1;
    if (check_place(array, problem))
        return -1;
    if (array->level == rank_most(array))
        return refuse_value(array, SCAN_OPEN_LIST, "float_type", "Input should be a valid number",
                            problem);
    array->count[array->level++] = 0;
    return 0;
}

/* The first list of a level is whole: its length is that of all others, if the model takes it. */
static int fix_length(struct json_array *array, uint32_t level, struct problem *problem)
{
    uint64_t count = array->count[level];
    if (array->rank - level <= 2) {
        char sentence[96];
        const char *name = array->rank - level == 1 ? "width" : "height";
        if (!body_check_side(array->interface, name, count, sentence, sizeof sentence))
            return refuse(array, level, "value_error", sentence, NULL, problem);
    }
    array->least[level] = array->most[level] = count;
    return 0;
}

static int close_list(struct json_array *array, struct problem *problem)
{
    uint32_t closed = --array->level;
    uint64_t least = array->rank ? array->least[closed] : 1;
    if (array->count[closed] < least)
        return refuse_length(array, closed, false, least, problem);
    /* Not empty, so that a number has come and the rank is known. */
    if (array->least[closed] != array->most[closed] && fix_length(array, closed, problem))
        return -1;
    if (closed == 0)
        array->inside = false;
    else
        array->count[closed - 1]++;
    return 0;
}

/* ---- numbers ---- */

/* The fewest bytes that the whole array can take, by what has come of it so far. */
static size_t least_bytes(const struct json_array *array)
{
    size_t total = sizeof(float);
    for (uint32_t i = 0; i < array->rank; i++) {
        uint64_t count = array->count[i] + 1;
        if (count < array->least[i])
            count = array->least[i];
        if (__builtin_mul_overflow(total, count, &total))
            return SIZE_MAX;
    }
    return total;
}

static int make_room(const struct json_array *array, struct body_sink *sink,
                     struct problem *problem)
{
    size_t used = array->values * sizeof(float);
    if (sink->capacity - used >= sizeof(float))
        return 0;
    return body_sink_reserve(sink, used, least_bytes(array), problem);
}

static int take_number(struct json_array *array, struct body_sink *sink, struct problem *problem)
{
    const struct json_scan *scan = &array->scan;
    if (check_place(array, problem))
        return -1;
    if (array->level < 3 || (array->rank && array->level < array->rank))
        return refuse_value(array, SCAN_NUMBER, "list_type", "Input should be a valid list",
                            problem);
    if (array->rank == 0)
        settle_rank(array);
    float value;
    if (json_number_parse(scan->text, scan->text_size, &value))
        return refuse_value(array, SCAN_NUMBER, "finite_number",
                            "Input should be a finite number within float32's range", problem);
    if (make_room(array, sink, problem))
        return -1;
    memcpy(sink->data + array->values * sizeof value, &value, sizeof value);
    array->values++;
    array->count[array->level - 1]++;
    return 0;
}

/* The common case: numbers one after another in a row, without an event for each. Leaves all else,
 * and the end of the piece, to the scanner. */
static void read_row(struct json_array *array, const struct body_sink *sink,
                     struct json_piece *piece)
{
    uint32_t inner = array->level - 1;
    uint64_t room = sink->capacity / sizeof(float) - array->values;
    if (room > array->most[inner] - array->count[inner])
        room = array->most[inner] - array->count[inner];
    struct json_row row = {
        .begin = piece->start,
        .at = piece->at,
        .end = piece->end,
        .out = (float *)(void *)sink->data + array->values,
        .room = room,
    };
    json_rows_best()(&row);
    piece->at = row.at;
    if (row.stored) {
        array->values += row.stored;
        array->count[inner] += row.stored;
        json_scan_skip_values(&array->scan, row.ended);
    }
}

/* ---- events ---- */

static int take_key(struct json_array *array, struct problem *problem)
{
    const struct json_scan *scan = &array->scan;
    char field[33];
    if (scan->depth != 1 || scan->token_cut)
        return 0;
    static const char image_data[] = "image_data";
    size_t size = strlen(field_of(array, field));
    bool own = scan->text_size == size && memcmp(scan->text, field, size) == 0;
    bool data = !own && array->text && scan->text_size == sizeof image_data - 1 &&
                memcmp(scan->text, image_data, sizeof image_data - 1) == 0;
    if (!own && !data)
        return 0;
    if (array->seen)
        return refuse(array, 0, "value_error", "The field is there twice", NULL, problem);
    array->seen = array->inside = true;
    array->in_kind = data;
    array->scan.pieces = array->text;
    return 0;
}

/* The string that stands for an array. */
static int take_text(struct json_array *array, enum json_event event, struct problem *problem)
{
    array->is_text = true;
    if (event == SCAN_STRING)
        array->inside = array->scan.pieces = false;
    return array->text(array->opaque, array->scan.text, array->scan.text_size, problem);
}

static int take_inside(struct json_array *array, struct body_sink *sink, enum json_event event,
                       struct problem *problem)
{
    if (array->scan.pieces && (event == SCAN_TEXT || event == SCAN_STRING))
        return take_text(array, event, problem);
    if (array->in_kind) {
        problem_set_value(problem, "string_type", "image_data", NULL, 0,
                          "Input should be a valid string", NULL);
        return -1;
    }
    array->scan.pieces = false;
    switch (event) {
    case SCAN_OPEN_LIST: return open_list(array, problem);
    case SCAN_CLOSE_LIST: return close_list(array, problem);
    case SCAN_NUMBER: return take_number(array, sink, problem);
    case SCAN_COMMA: return 0;
    default: break;
    }
    if (check_place(array, problem))
        return -1;
    bool number_expected = array->level >= 3 && (!array->rank || array->level == array->rank);
    if (!number_expected)
        return refuse_value(array, event, "list_type", "Input should be a valid list", problem);
    if (event == SCAN_NOT_FINITE)
        return refuse_value(array, event, "finite_number", "Input should be a finite number",
                            problem);
    return refuse_value(array, event, "float_type", "Input should be a valid number", problem);
}

static int take_event(struct json_array *array, struct body_sink *sink, enum json_event event,
                      struct problem *problem)
{
    const struct json_scan *scan = &array->scan;
    if (event == SCAN_ERROR) {
        problem_set_json_invalid(problem, scan->error_offset, scan->error);
        return -1;
    }
    if (!array->started) {
        array->started = true;
        return event == SCAN_OPEN_OBJECT ? 0 : refuse_top_level(array, event, problem);
    }
    if (array->inside)
        return take_inside(array, sink, event, problem);
    if (event == SCAN_KEY)
        return take_key(array, problem);
    if (event == SCAN_NOT_FINITE) {
        problem_set_json_invalid(problem, scan->token_offset, "NaN and Infinity are not JSON");
        return -1;
    }
    return 0;
}

int json_array_feed(struct json_array *array, struct body_sink *sink, const char *bytes,
                    size_t size, struct problem *problem)
{
    struct json_piece piece = {bytes, bytes, bytes + size};
    for (;;) {
        if (array->rank && array->level == array->rank &&
            json_scan_in_list_before_value(&array->scan))
            read_row(array, sink, &piece);
        enum json_event event = json_scan_next(&array->scan, &piece);
        if (event == SCAN_MORE)
            return 0;
        if (take_event(array, sink, event, problem))
            return -1;
    }
}

int json_array_finish(struct json_array *array, struct unetserve_shape *shape,
                      struct problem *problem)
{
    if (array->scan.offset == 0) {
        problem_set_missing(problem, NULL, "null");
        return -1;
    }
    enum json_event event = json_scan_finish(&array->scan);
    if (event == SCAN_NUMBER)
        return refuse_top_level(array, event, problem);
    if (event == SCAN_ERROR)
        return take_event(array, NULL, event, problem);
    if (!array->seen) {
        char field[33];
        problem_set_missing(problem, field_of(array, field), NULL);
        return -1;
    }
    if (array->is_text)
        return 0;
    struct unetserve_shape found = {.dtype = UNETSERVE_F32, .rank = array->rank};
    for (uint32_t i = 0; i < array->rank; i++)
        found.dims[i] = array->count[i];
    if (body_check_shape(array->interface, &found, problem))
        return -1;
    *shape = found;
    return 0;
}
