/* Log lines: one write each, whatever the values are; nothing from outside forges a line. */
#include "unetserve/log.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char line[LOG_LINE_MAX * 2];

/* What one call writes to stderr, into line. */
static size_t capture(enum log_level level, const char *message, const struct log_field *fields)
{
    int pipes[2];
    int old = dup(STDERR_FILENO);
    assert_int_equal(pipe(pipes), 0);
    dup2(pipes[1], STDERR_FILENO);
    log_fields(level, message, fields);
    dup2(old, STDERR_FILENO);
    close(old);
    close(pipes[1]);
    ssize_t got = read(pipes[0], line, sizeof line - 1);
    close(pipes[0]);
    assert_true(got >= 0);
    line[got] = '\0';
    return (size_t)got;
}

#define CAPTURE(level, message, ...)                                                               \
    capture((level), (message), (const struct log_field[]){__VA_ARGS__, {0}})

static void test_text(void **state)
{
    (void)state;
    log_init("gateway", 2, LOG_FORMAT_TEXT, LOG_LEVEL_INFO);
    CAPTURE(LOG_LEVEL_INFO, "two words", log_number("n", -5), log_text("bare", "a/b-c"),
            log_text("empty", ""), log_real("r", 0.5), log_text("none", NULL));
    assert_int_equal(strncmp(line, "time=20", 7), 0);
    assert_non_null(strstr(line, "Z level=info role=gateway seat=2 msg=\"two words\" n=-5 "
                                 "bare=a/b-c empty=\"\" r=0.5 none=\"\"\n"));
}

static void test_levels(void **state)
{
    (void)state;
    log_init("broker", -1, LOG_FORMAT_TEXT, LOG_LEVEL_WARNING);
    assert_int_equal(capture(LOG_LEVEL_INFO, "quiet", NULL), 0);
    assert_true(capture(LOG_LEVEL_ERROR, "loud", NULL) > 0);
    assert_non_null(strstr(line, "level=error role=broker msg=loud\n"));
    assert_null(strstr(line, "seat="));
}

static void test_text_cannot_be_forged(void **state)
{
    (void)state;
    log_init("gateway", -1, LOG_FORMAT_TEXT, LOG_LEVEL_INFO);
    CAPTURE(LOG_LEVEL_INFO, "m",
            log_text("a", "x\" level=error\nmsg=\"evil\\ \x01\x7f\xff \xc3\xa4"));
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    assert_non_null(
        strstr(line, "a=\"x\\\" level=error\\nmsg=\\\"evil\\\\ \\x01\\x7f\\xff \xc3\xa4\"\n"));
}

static void test_json(void **state)
{
    (void)state;
    log_init("worker", 7, LOG_FORMAT_JSON, LOG_LEVEL_DEBUG);
    const char *hostile = "x\"}\n{\"\\ \x01\xff \xc3\xa4";
    CAPTURE(LOG_LEVEL_DEBUG, hostile, log_text("a", hostile), log_number("n", INT64_MIN),
            log_real("r", 1.0 / 3), log_real("inf", 1e308 * 10));
    json_t *json = json_loads(line, 0, NULL);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_object_get(json, "level")), "debug");
    assert_string_equal(json_string_value(json_object_get(json, "role")), "worker");
    assert_int_equal(json_integer_value(json_object_get(json, "seat")), 7);
    assert_true(json_integer_value(json_object_get(json, "n")) == INT64_MIN);
    assert_true(json_is_null(json_object_get(json, "inf")));
    assert_string_equal(json_string_value(json_object_get(json, "a")),
                        "x\"}\n{\"\\ \x01\xef\xbf\xbd \xc3\xa4");
    json_decref(json);
}

/* Values of every length around the line's end: always one whole line of the right form. */
static void test_long_values_are_cut(void **state)
{
    (void)state;
    static char value[LOG_LINE_MAX * 2];
    for (size_t length = LOG_LINE_MAX - 250; length < LOG_LINE_MAX + 20; length++) {
        for (int kind = 0; kind < 3; kind++) {
            for (size_t i = 0; i < length; i++)
                value[i] = kind == 0 ? 'a' : kind == 1 ? '"' : (i & 1) ? '\xa4' : '\xc3';
            value[length] = '\0';
            log_init("x", -1, LOG_FORMAT_JSON, LOG_LEVEL_INFO);
            size_t got = CAPTURE(LOG_LEVEL_INFO, "m", log_text("a", value), log_text("b", value),
                                 log_number("c", 1));
            assert_true(got <= LOG_LINE_MAX && line[got - 1] == '\n');
            json_t *json = json_loads(line, 0, NULL);
            if (!json)
                fail_msg("length %zu kind %d: %s", length, kind, line);
            json_decref(json);
            log_init("x", -1, LOG_FORMAT_TEXT, LOG_LEVEL_INFO);
            got = CAPTURE(LOG_LEVEL_INFO, "m", log_text("a", value), log_text("b", value));
            assert_true(got <= LOG_LINE_MAX && line[got - 1] == '\n');
            assert_ptr_equal(strchr(line, '\n'), line + got - 1);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_text_cannot_be_forged),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_long_values_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
