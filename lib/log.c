#include "unetserve/log.h"

#include "lib/utf8.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    const char *role;
    int seat;
    enum log_format format;
    enum log_level least;
} state = {.role = "", .seat = -1, .format = LOG_FORMAT_TEXT, .least = LOG_LEVEL_INFO};

/* Room kept free so that whatever has been opened can be closed. */
#define LOG_TAIL 4

struct line {
    char text[LOG_LINE_MAX];
    size_t length;
};

void log_init(const char *role, int seat, enum log_format format, enum log_level least)
{
    state.role = role;
    state.seat = seat;
    state.format = format;
    state.least = least;
}

static const char *level_name(enum log_level level)
{
    switch (level) {
    case LOG_LEVEL_ERROR: return "error";
    case LOG_LEVEL_WARNING: return "warning";
    case LOG_LEVEL_INFO: return "info";
    case LOG_LEVEL_DEBUG: return "debug";
    }
    return "info";
}

/* All of it or nothing. */
static bool line_put(struct line *line, const char *text, size_t length, size_t keep)
{
    if (length + keep > sizeof line->text - line->length)
        return false;
    memcpy(line->text + line->length, text, length);
    line->length += length;
    return true;
}

/* One character of a value, escaped as the format wants it; returns how many bytes of text it took,
 * or 0 when the line is full. */
static size_t unit_put(struct line *line, const char *text, size_t left)
{
    char unit[8];
    size_t taken = utf8_sequence_length(text, left);
    unsigned char byte = (unsigned char)text[0];
    bool json = state.format == LOG_FORMAT_JSON;
    if (taken > 1)
        return line_put(line, text, taken, LOG_TAIL) ? taken : 0;
    int length;
    if (taken == 0)
        length = json ? snprintf(unit, sizeof unit, "\\ufffd")
                      : snprintf(unit, sizeof unit, "\\x%02x", byte);
    else if (byte == '"' || byte == '\\')
        length = snprintf(unit, sizeof unit, "\\%c", byte);
    else if (byte == '\n')
        length = snprintf(unit, sizeof unit, "\\n");
    else if (byte < 0x20 || byte == 0x7f)
        length = snprintf(unit, sizeof unit, json ? "\\u%04x" : "\\x%02x", byte);
    else
        length = snprintf(unit, sizeof unit, "%c", byte);
    return line_put(line, unit, (size_t)length, LOG_TAIL) ? 1 : 0;
}

static bool text_is_bare(const char *text)
{
    return text[0] && !text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                         "0123456789._:/@+,-[]")];
}

/* A value that is too long for the line is cut at a character; its closing quote always fits. */
static void text_put(struct line *line, const char *text)
{
    if (state.format == LOG_FORMAT_TEXT && text_is_bare(text) &&
        line_put(line, text, strlen(text), LOG_TAIL))
        return;
    line_put(line, "\"", 1, 0);
    size_t left = strlen(text);
    while (left > 0) {
        size_t taken = unit_put(line, text, left);
        if (taken == 0)
            break;
        text += taken;
        left -= taken;
    }
    line_put(line, "\"", 1, 0);
}

/* The key with what stands before and after it. False: no room for it and a value of some length.
 */
static bool key_put(struct line *line, const char *key)
{
    char text[80];
    bool first = line->length <= 1;
    int length = state.format == LOG_FORMAT_JSON
                     ? snprintf(text, sizeof text, "%s\"%.60s\":", first ? "" : ",", key)
                     : snprintf(text, sizeof text, "%s%.60s=", line->length ? " " : "", key);
    return line_put(line, text, (size_t)length, LOG_TAIL + 32);
}

static void field_put(struct line *line, const struct log_field *field)
{
    char number[40];
    if (!key_put(line, field->key))
        return;
    if (field->kind == LOG_TEXT) {
        text_put(line, field->text);
        return;
    }
    if (field->kind == LOG_NUMBER)
        snprintf(number, sizeof number, "%lld", (long long)field->number);
    else if (field->real - field->real == 0)
        snprintf(number, sizeof number, "%.9g", field->real);
    else
        snprintf(number, sizeof number, "null"); /* JSON has no infinities */
    line_put(line, number, strlen(number), 0);
}

static void time_put(struct line *line)
{
    struct timespec now;
    struct tm parts;
    char text[40];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t length = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + length, sizeof text - length, ".%03ldZ", now.tv_nsec / 1000000);
    struct log_field field = log_text("time", text);
    field_put(line, &field);
}

void log_fields(enum log_level level, const char *message, const struct log_field *fields)
{
    if (level > state.least)
        return;
    struct line line;
    line.length = 0;
    if (state.format == LOG_FORMAT_JSON)
        line_put(&line, "{", 1, 0);
    time_put(&line);
    struct log_field head[] = {
        log_text("level", level_name(level)),
        log_text("role", state.role),
        log_number("seat", state.seat),
        log_text("msg", message),
    };
    for (size_t i = 0; i < sizeof head / sizeof head[0]; i++)
        if (i != 2 || state.seat >= 0)
            field_put(&line, &head[i]);
    for (; fields && fields->kind != LOG_END; fields++)
        if (fields->key)
            field_put(&line, fields);
    if (state.format == LOG_FORMAT_JSON)
        line_put(&line, "}", 1, 0);
    line_put(&line, "\n", 1, 0);
    /* One write, so that lines of several processes do not mix. Where it cannot be written nobody
     * can be told. */
    ssize_t written = write(STDERR_FILENO, line.text, line.length);
    (void)written;
}
