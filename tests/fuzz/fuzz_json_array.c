/*
 * JSON's grammar: the scanner must agree with jansson on what is JSON, and tell the same events
 * however the text is split. Known differences: jansson refuses numbers out of range, null
 * characters, lone surrogates and a byte order mark, and takes a null byte for the end of the text;
 * the scanner refuses what is nested or spelled beyond its bounds.
 *
 * And the array reader: whichever way it reads rows of numbers, and however the text is split, it
 * comes to the same floats or the same refusal.
 */
#include "lib/json_array.h"
#include "lib/json_rows.h"
#include "lib/json_scan.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a scan came to: a checksum of its events and their texts, and how it ended. */
struct outcome {
    uint64_t sum;
    enum json_event end;
    const char *error;
    uint64_t error_offset;
};

static void add(struct outcome *outcome, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < size; i++)
        outcome->sum = (outcome->sum ^ at[i]) * 1099511628211u;
}

static void add_event(struct outcome *outcome, const struct json_scan *scan, enum json_event event)
{
    add(outcome, &event, sizeof event);
    if (event >= SCAN_KEY && event <= SCAN_NOT_FINITE) {
        add(outcome, scan->text, scan->text_size);
        add(outcome, &scan->token_offset, sizeof scan->token_offset);
    }
}

static struct outcome scan_text(const char *text, size_t size, size_t piece_size)
{
    struct outcome outcome = {.end = SCAN_MORE};
    struct json_scan scan;
    json_scan_init(&scan);
    for (size_t at = 0; at < size && outcome.end == SCAN_MORE; at += piece_size) {
        size_t length = size - at < piece_size ? size - at : piece_size;
        struct json_piece piece = {text + at, text + at, text + at + length};
        enum json_event event;
        while ((event = json_scan_next(&scan, &piece)) != SCAN_MORE) {
            add_event(&outcome, &scan, event);
            if (event == SCAN_ERROR || event == SCAN_NOT_FINITE) {
                outcome.end = event;
                break;
            }
        }
    }
    while (outcome.end == SCAN_MORE || outcome.end == SCAN_NUMBER) {
        outcome.end = json_scan_finish(&scan);
        add_event(&outcome, &scan, outcome.end);
    }
    if (outcome.end == SCAN_ERROR) {
        outcome.error = scan.error;
        outcome.error_offset = scan.error_offset;
    }
    return outcome;
}

static void check(int condition)
{
    if (!condition)
        abort();
}

static void compare_with_jansson(const char *text, size_t size, const struct outcome *ours)
{
    json_error_t error;
    if (size && memchr(text, 0, size))
        return;
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        size -= 3;
    }
    json_t *root = json_loadb(text, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (root && ours->end == SCAN_ERROR)
        check(strstr(ours->error, "deeper than") || strstr(ours->error, "longer than"));
    if (!root && ours->end == SCAN_END) {
        enum json_error_code code = json_error_code(&error);
        check(code == json_error_numeric_overflow || code == json_error_null_byte_in_key ||
              strstr(error.text, "invalid Unicode") || strstr(error.text, "maximum parsing depth"));
    }
    json_decref(root);
}

/* ---- the array ---- */

enum { FLOATS_MAX = 2048 };

struct array {
    int status;
    struct unetserve_shape shape;
    size_t bytes;
    float values[FLOATS_MAX];
    struct problem problem;
};

static void read_array(const char *text, size_t size, size_t piece_size, struct array *array)
{
    static const struct unetserve_interface interface = {.input_dtypes = 1u << UNETSERVE_F32,
                                                         .input_field = "image",
                                                         .channels = 1,
                                                         .size_multiple = 1,
                                                         .size_min = 1,
                                                         .max_batch = 4};
    struct body_reader reader;
    memset(array, 0, sizeof *array);
    array->status = body_reader_init(&reader, &interface, BODY_JSON, NULL, array->values,
                                     sizeof array->values, NULL, NULL, &array->problem);
    for (size_t at = 0; at < size && array->status == 0; at += piece_size)
        array->status = body_reader_feed(
            &reader, text + at, size - at < piece_size ? size - at : piece_size, &array->problem);
    if (array->status == 0)
        array->status = body_reader_finish(&reader, &array->shape, &array->bytes, &array->problem);
}

static void compare_ways(const char *text, size_t size)
{
    static struct array alone, other;
    json_rows_force(JSON_ROWS_PLAIN);
    read_array(text, size, 1, &alone); /* by the scanner, byte after byte */
    for (int way = 0; way < JSON_ROWS_KINDS; way++) {
        const size_t pieces[] = {size + 1, 67, 130};
        if (!json_rows_usable((enum json_rows_kind)way))
            continue;
        json_rows_force((enum json_rows_kind)way);
        for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
            read_array(text, size, pieces[i], &other);
            check(alone.status == other.status && alone.bytes == other.bytes &&
                  alone.problem.status == other.problem.status &&
                  strcmp(alone.problem.body, other.problem.body) == 0 &&
                  memcmp(&alone.shape, &other.shape, sizeof alone.shape) == 0);
            check(alone.status || memcmp(alone.values, other.values, alone.bytes) == 0);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct outcome whole = scan_text(text, size, size + 1);
    static const size_t pieces[] = {1, 2, 3, 7};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        struct outcome split = scan_text(text, size, pieces[i]);
        check(split.sum == whole.sum && split.end == whole.end && split.error == whole.error &&
              split.error_offset == whole.error_offset);
    }
    compare_with_jansson(text, size, &whole);
    compare_ways(text, size);
    return 0;
}
