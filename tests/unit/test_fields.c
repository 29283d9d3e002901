/* Documents by declared fields, there and back, and every way to be refused. */
#include "workers/fields.h"

#include "unetserve/problem.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char output[16384];

static const struct unetserve_interface one_of_each = {
    .input_kind = UNETSERVE_DOCUMENT,
    .request_field_count = 6,
    .request_fields = {{.name = "f", .type = UNETSERVE_FLOAT, .optional = 1, .fallback = 0.5},
                       {.name = "i", .type = UNETSERVE_INT, .optional = 1, .fallback = -3},
                       {.name = "s", .type = UNETSERVE_STR, .optional = 1, .fallback_text = "as"},
                       {.name = "b", .type = UNETSERVE_BOOL, .optional = 1, .fallback = 1},
                       {.name = "l", .type = UNETSERVE_FLOAT, .depth = 1, .or_bare = 1},
                       {.name = "m", .type = UNETSERVE_FLOAT, .depth = 3}},
    .response_field_count = 6,
    .response_fields = {{.name = "f", .type = UNETSERVE_FLOAT},
                        {.name = "i", .type = UNETSERVE_INT},
                        {.name = "s", .type = UNETSERVE_STR},
                        {.name = "b", .type = UNETSERVE_BOOL},
                        {.name = "l", .type = UNETSERVE_FLOAT, .depth = 1, .or_bare = 1},
                        {.name = "m", .type = UNETSERVE_FLOAT, .depth = 3}},
};

static struct unetserve_item item_of(const char *body, size_t size)
{
    memset(output, 0, sizeof output);
    return (struct unetserve_item){.input = body,
                                   .input_bytes = size,
                                   .output = output,
                                   .output_capacity = sizeof output - 1,
                                   .status = 200};
}

/* Reads a document and writes what was read. */
static void check_round_trip(const char *body, const char *expected)
{
    struct unetserve_item item = item_of(body, strlen(body));
    struct fields *fields;
    size_t length;
    assert_int_equal(fields_read(&one_of_each, &item, &fields), 0);
    if (!fields)
        fail_msg("%s: %s", body, output);
    assert_int_equal(item.status, 200);
    assert_int_equal(fields_write(&one_of_each, item.values, output, sizeof output, &length), 0);
    assert_string_equal(output, expected);
    assert_int_equal(length, strlen(expected));
    fields_free(fields);
}

static void check_refused(const char *body, const char *expected)
{
    struct unetserve_item item = item_of(body, strlen(body));
    struct fields *fields;
    assert_int_equal(fields_read(&one_of_each, &item, &fields), 0);
    assert_null(fields);
    assert_null(item.values);
    assert_int_equal(item.status, 422);
    assert_int_equal(item.output_bytes, strlen(output));
    if (!strstr(output, expected))
        fail_msg("%s: no %s in %s", body, expected, output);
}

static void values_come_back_as_they_went(void **state)
{
    (void)state;
    check_round_trip("{\"l\":[],\"m\":[]}",
                     "{\"f\":0.5,\"i\":-3,\"s\":\"as\",\"b\":true,\"l\":[],\"m\":[]}");
    check_round_trip(
        "\xef\xbb\xbf{\"f\":1,\"i\":9007199254740993,\"s\":\"\xc3\xa4\\u0000\",\"b\":false,"
        "\"l\":[1,2.5,-0.1],\"m\":[[[1],[]],[[2,3]]],\"more\":{}}",
        "{\"f\":1.0,\"i\":9007199254740993,\"s\":\"\xc3\xa4\\u0000\",\"b\":false,"
        "\"l\":[1.0,2.5,-0.1],\"m\":[[[1.0],[]],[[2.0,3.0]]]}");
    check_round_trip("{\"l\":7,\"m\":[[]]}",
                     "{\"f\":0.5,\"i\":-3,\"s\":\"as\",\"b\":true,\"l\":7.0,\"m\":[[]]}");
}

static void what_pydantic_converts_is_converted(void **state)
{
    (void)state;
    check_round_trip(
        "{\"f\":\" 4.5e1 \",\"i\":\"12\",\"s\":\"\",\"b\":\"No\",\"l\":[true,\"1\"],\"m\":[]}",
        "{\"f\":45.0,\"i\":12,\"s\":\"\",\"b\":false,\"l\":[1.0,1.0],\"m\":[]}");
    check_round_trip("{\"f\":false,\"i\":4.0,\"s\":\"x\",\"b\":1,\"l\":[],\"m\":[]}",
                     "{\"f\":0.0,\"i\":4,\"s\":\"x\",\"b\":true,\"l\":[],\"m\":[]}");
    /* More than 64 bits: a float all the same, as in Python. */
    check_round_trip(
        "{\"f\":18446744073709551616,\"i\":5,\"b\":0.0,\"l\":[],\"m\":[]}",
        "{\"f\":1.8446744073709552e+19,\"i\":5,\"s\":\"as\",\"b\":false,\"l\":[],\"m\":[]}");
}

static void what_does_not_fit_is_refused_in_pydantics_words(void **state)
{
    (void)state;
    static const char fine[] = ",\"l\":[],\"m\":[]}";
    static const struct {
        const char *value, *expected;
    } cases[] = {
        {"{\"f\":\"x\"",
         "{\"type\":\"float_parsing\",\"loc\":[\"body\",\"f\"],\"msg\":\"Input should be a "
         "valid number, unable to parse string as a number\",\"input\":\"x\"}"},
        {"{\"f\":\"0x10\"", "float_parsing"},
        {"{\"f\":\"1\\u0000\"", "float_parsing"},
        {"{\"f\":\"inf\"", "float_parsing"},
        {"{\"f\":\"1e999\"", "float_parsing"},
        {"{\"f\":null",
         "{\"type\":\"float_type\",\"loc\":[\"body\",\"f\"],\"msg\":\"Input should be a valid "
         "number\",\"input\":null}"},
        {"{\"f\":[1]", "\"float_type\""},
        {"{\"i\":4.5", "\"int_from_float\""},
        {"{\"i\":1e19", "\"int_parsing_size\""},
        {"{\"i\":\"4.5\"", "\"int_parsing\""},
        {"{\"i\":\"\"", "\"int_parsing\""},
        {"{\"i\":{}", "\"int_type\""},
        {"{\"s\":4", "\"string_type\""},
        {"{\"b\":2", "\"bool_parsing\""},
        {"{\"b\":\"maybe\"", "\"bool_parsing\""},
        {"{\"b\":null", "\"bool_type\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[256];
        snprintf(body, sizeof body, "%s%s", cases[i].value, fine);
        check_refused(body, cases[i].expected);
    }
    check_refused("{\"l\":\"x\",\"m\":[]}", "\"loc\":[\"body\",\"l\"]");
    check_refused("{\"l\":[1,{}],\"m\":[]}", "\"type\":\"float_type\",\"loc\":[\"body\",\"l\",1]");
    check_refused("{\"l\":[],\"m\":[[[1],[2,\"x\"]]]}",
                  "\"type\":\"float_parsing\",\"loc\":[\"body\",\"m\",0,1,1]");
    check_refused("{\"l\":[],\"m\":[[1]]}", "\"type\":\"list_type\",\"loc\":[\"body\",\"m\",0,0]");
    check_refused("{\"l\":[],\"m\":{}}", "\"type\":\"list_type\",\"loc\":[\"body\",\"m\"]");
}

static void documents_that_are_none_are_refused(void **state)
{
    (void)state;
    check_refused("", "{\"detail\":[{\"type\":\"missing\",\"loc\":[\"body\"],\"msg\":\"Field "
                      "required\",\"input\":null}]}");
    check_refused("{\"l\":", "\"json_invalid\"");
    check_refused("{\"l\":NaN}", "\"json_invalid\"");
    check_refused("{\"l\":1e999}", "\"json_invalid\"");
    check_refused("\xff", "\"json_invalid\"");
    check_refused("[]", "\"model_attributes_type\"");
    check_refused("7", "\"model_attributes_type\"");
}

static void every_error_is_told_up_to_a_bound(void **state)
{
    (void)state;
    check_refused(
        "{\"f\":\"x\",\"b\":5}",
        "\"missing\",\"loc\":[\"body\",\"m\"],\"msg\":\"Field required\",\"input\":{\"f\":\"x\","
        "\"b\":5}}]}");
    size_t count = 0;
    for (const char *at = output; (at = strstr(at, "\"type\"")); at++)
        count++;
    assert_int_equal(count, 4);

    char body[400];
    int size = snprintf(body, sizeof body, "{\"m\":[],\"l\":[\"w\"");
    for (int i = 0; i < 40; i++)
        size += snprintf(body + size, sizeof body - (size_t)size, ",\"w\"");
    snprintf(body + size, sizeof body - (size_t)size, "]}");
    check_refused(body, "\"loc\":[\"body\",\"l\",7]");
    assert_null(strstr(output, "\"l\",8]"));
    assert_string_equal(output + strlen(output) - 2, "]}");
}

static void sizes_are_bounded(void **state)
{
    (void)state;
    struct fields *fields;
    char *body = malloc(FIELDS_DOCUMENT_MAX + 1);
    assert_non_null(body);
    memset(body, ' ', FIELDS_DOCUMENT_MAX + 1);
    struct unetserve_item item = item_of(body, FIELDS_DOCUMENT_MAX + 1);
    assert_int_equal(fields_read(&one_of_each, &item, &fields), 0);
    assert_int_equal(item.status, 413);
    free(body);

    item = item_of("{}", 2);
    item.output_capacity = 40;
    assert_int_equal(fields_read(&one_of_each, &item, &fields), -ENOSPC);
    assert_int_equal(output[0], 0);
    assert_null(fields);
}

static void answers_that_are_no_json_are_not_written(void **state)
{
    (void)state;
    double numbers[] = {1, 2};
    struct unetserve_value list = {.numbers = numbers, .count = 2};
    struct unetserve_value values[6] = {
        {.number = 1}, {.integer = 2}, {.text = "x", .text_bytes = 1}};
    values[4] = list;
    values[5] = (struct unetserve_value){
        .lists = &(struct unetserve_value){.lists = &list, .count = 1}, .count = 1};
    size_t length = 0;
    assert_int_equal(fields_write(&one_of_each, values, output, sizeof output, &length), 0);
    assert_string_equal(
        output, "{\"f\":1.0,\"i\":2,\"s\":\"x\",\"b\":false,\"l\":[1.0,2.0],\"m\":[[[1.0,2.0]]]}");
    for (size_t size = 0; size <= length; size++)
        assert_int_equal(fields_write(&one_of_each, values, output, size, &length), -ENOSPC);
    numbers[1] = NAN;
    assert_int_equal(fields_write(&one_of_each, values, output, sizeof output, &length), -EDOM);
    numbers[1] = 2;
    values[0].number = INFINITY;
    assert_int_equal(fields_write(&one_of_each, values, output, sizeof output, &length), -EDOM);
}

static void check_declaration(struct unetserve_field field, int expected)
{
    char error[512];
    struct unetserve_interface interface = {.input_kind = UNETSERVE_DOCUMENT,
                                            .request_field_count = 1};
    interface.request_fields[0] = field;
    assert_int_equal(fields_check(&interface, error, sizeof error), expected);
}

static void declarations_are_checked(void **state)
{
    (void)state;
    char error[512];
    assert_int_equal(fields_check(&one_of_each, error, sizeof error), 0);
    check_declaration((struct unetserve_field){.name = "x", .type = UNETSERVE_FLOAT}, 0);
    check_declaration((struct unetserve_field){.type = UNETSERVE_FLOAT}, -EBADMSG);
    check_declaration((struct unetserve_field){.name = "x"}, -EBADMSG);
    check_declaration((struct unetserve_field){.name = "x", .type = 5}, -EBADMSG);
    check_declaration((struct unetserve_field){.name = "x", .type = UNETSERVE_STR, .depth = 1},
                      -EBADMSG);
    check_declaration((struct unetserve_field){.name = "x", .type = UNETSERVE_FLOAT, .depth = 5},
                      -EBADMSG);
    check_declaration(
        (struct unetserve_field){.name = "x", .type = UNETSERVE_FLOAT, .depth = 1, .optional = 1},
        -EBADMSG);
    check_declaration((struct unetserve_field){.name = "x", .type = UNETSERVE_FLOAT, .or_bare = 1},
                      -EBADMSG);
    struct unetserve_interface interface = {.input_kind = UNETSERVE_DOCUMENT,
                                            .response_field_count = 9};
    assert_int_equal(fields_check(&interface, error, sizeof error), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_back_as_they_went),
        cmocka_unit_test(what_pydantic_converts_is_converted),
        cmocka_unit_test(what_does_not_fit_is_refused_in_pydantics_words),
        cmocka_unit_test(documents_that_are_none_are_refused),
        cmocka_unit_test(every_error_is_told_up_to_a_bound),
        cmocka_unit_test(sizes_are_bounded),
        cmocka_unit_test(answers_that_are_no_json_are_not_written),
        cmocka_unit_test(declarations_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
