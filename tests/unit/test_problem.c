/* Refusals: always valid JSON, never longer than their buffer, whatever text comes from outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unetserve/problem.h"

#include "lib/json_text.h"
#include "lib/utf8.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The document, parsed by another library than ours: the test fails if it is none. */
static json_t *parse(const struct problem *problem)
{
    json_error_t error;
    assert_true(strnlen(problem->body, PROBLEM_BODY_MAX) < PROBLEM_BODY_MAX);
    json_t *root = json_loads(problem->body, JSON_DECODE_INT_AS_REAL, &error);
    if (!root)
        fail_msg("not JSON: %s: %s", error.text, problem->body);
    return root;
}

static void test_detail(void **state)
{
    (void)state;
    struct problem problem;
    problem_set(&problem, 413, "needs %d bytes", 7);
    assert_int_equal(problem.status, 413);
    assert_string_equal(problem.body, "{\"detail\":\"needs 7 bytes\"}");
}

static void test_detail_is_escaped(void **state)
{
    (void)state;
    struct problem problem;
    problem_set(&problem, 400, "%s", "a\"b\\c\n\x01\x7f\xc3\xa9\xff");
    assert_string_equal(problem.body,
                        "{\"detail\":\"a\\\"b\\\\c\\u000a\\u0001\\u007f\xc3\xa9\\ufffd\"}");
}

static void test_pydantic_shapes(void **state)
{
    (void)state;
    struct problem problem;
    problem_set_json_invalid(&problem, 1, "Expecting value");
    assert_int_equal(problem.status, 422);
    assert_string_equal(problem.body, "{\"detail\":[{\"type\":\"json_invalid\",\"loc\":[\"body\",1]"
                                      ",\"msg\":\"JSON decode error\","
                                      "\"input\":{},\"ctx\":{\"error\":\"Expecting value\"}}]}");
    problem_set_missing(&problem, "image", NULL);
    assert_string_equal(problem.body,
                        "{\"detail\":[{\"type\":\"missing\",\"loc\":[\"body\",\"image\"],"
                        "\"msg\":\"Field required\",\"input\":{}}]}");
    problem_set_missing(&problem, NULL, "null");
    assert_string_equal(problem.body, "{\"detail\":[{\"type\":\"missing\",\"loc\":[\"body\"],"
                                      "\"msg\":\"Field required\",\"input\":null}]}");
    const size_t indices[] = {2, 0, 17};
    problem_set_value(&problem, "float_type", "image", indices, 3, "Input should be a valid number",
                      "\"x\"");
    assert_string_equal(problem.body,
                        "{\"detail\":[{\"type\":\"float_type\",\"loc\":[\"body\",\"image\",2,0,17],"
                        "\"msg\":\"Input should be a valid number\",\"input\":\"x\"}]}");
}

static const char *echoed_input(const char *input, json_t **root)
{
    struct problem problem;
    problem_set_value(&problem, "t", "f", NULL, 0, "m", input);
    *root = parse(&problem);
    json_t *echo = json_object_get(json_array_get(json_object_get(*root, "detail"), 0), "input");
    return json_string_value(echo);
}

static void test_input_that_is_not_json_is_a_string(void **state)
{
    (void)state;
    static const char *const inputs[] = {"",    "{",   "1,2",          "\"open",
                                         "nul", "NaN", "1}],\"x\":[{", "\xff"};
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        json_t *root;
        const char *echo = echoed_input(inputs[i], &root);
        assert_non_null(echo);
        assert_string_equal(echo, inputs[i][0] == '\xff' ? "\xef\xbf\xbd" : inputs[i]);
        json_decref(root);
    }
}

static void test_long_input_is_cut(void **state)
{
    (void)state;
    char input[600];
    memset(input, '7', sizeof input - 1);
    input[sizeof input - 1] = '\0';
    json_t *root;
    const char *echo = echoed_input(input, &root);
    assert_non_null(echo);
    assert_true(strlen(echo) < 140);
    assert_string_equal(echo + strlen(echo) - 3, "...");
    json_decref(root);
}

/* Text whose units have all lengths, so that over the lengths every possible cut happens. */
static void fill_nasty(char *text, size_t size, unsigned seed)
{
    static const char *const units[] = {
        "a", "\"", "\\", "\n", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x8c\xb3", "\xff", "\xe2\x82"};
    size_t at = 0;
    srand(seed);
    while (at + 4 < size) {
        const char *unit = units[(size_t)rand() % (sizeof units / sizeof units[0])];
        size_t length = strlen(unit);
        memcpy(text + at, unit, length);
        at += length;
    }
    text[at] = '\0';
}

static void test_any_text_of_any_length(void **state)
{
    (void)state;
    char text[2400];
    const size_t indices[] = {SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX};
    for (unsigned seed = 0; seed < 400; seed++) {
        struct problem problem;
        fill_nasty(text, seed * 6 + 5, seed);
        problem_set(&problem, 400, "%s", text);
        json_decref(parse(&problem));
        problem_set_json_invalid(&problem, SIZE_MAX, text);
        json_decref(parse(&problem));
        problem_set_missing(&problem, text, text);
        json_decref(parse(&problem));
        problem_set_value(&problem, text, text, indices, 6, text, text);
        json_decref(parse(&problem));
    }
}

static void test_whole_text_is_kept_when_it_fits(void **state)
{
    (void)state;
    char text[PROBLEM_BODY_MAX];
    for (size_t length = 900; length < 1010; length++) {
        struct problem problem;
        memset(text, 'x', length);
        text[length] = '\0';
        problem_set(&problem, 400, "%s", text);
        json_t *root = parse(&problem);
        const char *detail = json_string_value(json_object_get(root, "detail"));
        bool cut = strcmp(detail, text) != 0;
        assert_int_equal(cut, length > PROBLEM_BODY_MAX - 18);
        if (cut)
            assert_string_equal(detail + strlen(detail) - 3, "...");
        json_decref(root);
    }
}

static void test_utf8_sequences(void **state)
{
    (void)state;
    assert_int_equal(utf8_sequence_length("A", 1), 1);
    assert_int_equal(utf8_sequence_length("\xc3\xa9", 2), 2);
    assert_int_equal(utf8_sequence_length("\xed\x9f\xbf", 3), 3);
    assert_int_equal(utf8_sequence_length("\xf4\x8f\xbf\xbf", 4), 4);
    static const char *const wrong[] = {
        "\x80",         "\xc0\x80",         "\xc1\xbf",         "\xe0\x9f\xbf",
        "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xc3",         "\xe2\x82",         "\xe2\x82\x28",     "\xff"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(utf8_sequence_length(wrong[i], strlen(wrong[i])), 0);
    for (uint32_t code = 1; code < 0x110000; code += code < 0x3000 ? 1 : 97) {
        char bytes[4];
        if (code >= 0xd800 && code < 0xe000)
            continue;
        size_t length = utf8_encode(code, bytes);
        assert_int_equal(utf8_sequence_length(bytes, length), length);
    }
}

static void test_text_that_does_not_fit_is_left_out_whole(void **state)
{
    (void)state;
    char buffer[8];
    struct json_text text;
    json_text_init(&text, buffer, sizeof buffer);
    assert_true(json_text_raw(&text, "1234"));
    assert_false(json_text_raw(&text, "5678"));
    assert_true(json_text_number(&text, 567));
    assert_false(json_text_number(&text, 8));
    assert_string_equal(buffer, "1234567");
    json_text_init(&text, buffer, sizeof buffer);
    assert_false(json_text_quote(&text, "abcdef", 6, 100));
    assert_string_equal(buffer, "");
    assert_true(json_text_quote(&text, "abcde", 5, 100));
    assert_string_equal(buffer, "\"abcde\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_detail),
        cmocka_unit_test(test_detail_is_escaped),
        cmocka_unit_test(test_pydantic_shapes),
        cmocka_unit_test(test_input_that_is_not_json_is_a_string),
        cmocka_unit_test(test_long_input_is_cut),
        cmocka_unit_test(test_any_text_of_any_length),
        cmocka_unit_test(test_whole_text_is_kept_when_it_fits),
        cmocka_unit_test(test_utf8_sequences),
        cmocka_unit_test(test_text_that_does_not_fit_is_left_out_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
