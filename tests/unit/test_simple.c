/* The simple plugin, driven through its own table as a worker drives it. */
#include "workers/models/examples/simple.c" /* NOLINT(bugprone-suspicious-include): plugins are in no archive */

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char output[2048];

static void run(const char *body, struct unetserve_item *item)
{
    const struct unetserve_model_ops *ops = unetserve_model();
    *item = (struct unetserve_item){
        .input = body,
        .input_bytes = strlen(body),
        .output = output,
        .output_capacity = sizeof output - 1,
        .status = 200,
    };
    memset(output, 0, sizeof output);
    assert_int_equal(ops->decode_request(NULL, item), 0);
    if (item->status == 200) {
        assert_int_equal(ops->predict(NULL, &item, 1), 0);
        assert_int_equal(ops->encode_response(NULL, item), 0);
    }
    assert_null(item->user);
    assert_int_equal(item->output_bytes, strlen(output));
}

static void check_answer(const char *body, const char *expected)
{
    struct unetserve_item item;
    run(body, &item);
    assert_int_equal(item.status, 200);
    assert_string_equal(output, expected);
}

static void check_refusal(const char *body, const char *expected)
{
    struct unetserve_item item;
    run(body, &item);
    assert_int_equal(item.status, 422);
    json_t *document = json_loads(output, 0, NULL);
    assert_non_null(document);
    json_decref(document);
    if (!strstr(output, expected))
        fail_msg("%s: no %s in %s", body, expected, output);
}

static void computes_the_tutorials_answers(void **state)
{
    (void)state;
    check_answer("{\"input\": 4.0}", "{\"output\":80.0}");
    check_answer("{\"input\": 4}", "{\"output\":80.0}");
    check_answer("\xef\xbb\xbf{\"input\": 4}", "{\"output\":80.0}");
    check_answer("{\"input\":-1}", "{\"output\":0.0}");
    check_answer("{\"input\":0.1,\"more\":[1,2]}", "{\"output\":0.011000000000000003}");
    check_answer("{\"input\":1e100}", "{\"output\":1e+300}");
    check_answer("{\"input\":1e-10}", "{\"output\":1.0000000001000001e-20}");
    check_answer("{\"input\":100000}", "{\"output\":1000010000000000.0}");
    check_answer("{\"input\":18446744073709551616}", "{\"output\":6.277101735386681e+57}");
}

static void refuses_what_is_no_number(void **state)
{
    (void)state;
    check_refusal("{}", "{\"detail\":[{\"type\":\"missing\",\"loc\":[\"body\",\"input\"],\"msg\":"
                        "\"Field required\",\"input\":{}}]}");
    check_refusal("{\"x\":1}", "\"missing\"");
    check_refusal("{\"input\":\"4.0\"}", "\"float_type\"");
    check_refusal("{\"input\":null}", "\"float_type\"");
    check_refusal("{\"input\":true}", "\"float_type\"");
    check_refusal("{\"input\":[4.0]}", "\"float_type\"");
    check_refusal("[4.0]", "\"model_attributes_type\"");
    check_refusal("4.0", "\"model_attributes_type\"");
    check_refusal("", "\"type\":\"missing\",\"loc\":[\"body\"],");
    check_refusal("\xef\xbb\xbf", "\"json_invalid\"");
    check_refusal("{\"input\": 4.0", "\"json_invalid\"");
    check_refusal("{\"input\": NaN}", "\"json_invalid\"");
    check_refusal("{\"input\":4.0} x", "\"json_invalid\"");
    check_refusal("{\"input\":1e200}", "\"finite_number\"");
    check_refusal("{\"input\":-1e200}", "\"finite_number\"");
}

/* The first error on the way of a body whose answer has little room. */
static int run_in(size_t capacity, const char *body)
{
    const struct unetserve_model_ops *ops = unetserve_model();
    struct unetserve_item item = {.input = body,
                                  .input_bytes = strlen(body),
                                  .output = output,
                                  .output_capacity = capacity,
                                  .status = 200};
    struct unetserve_item *items = &item;
    memset(output, 'x', sizeof output);
    int result = ops->decode_request(NULL, &item);
    if (result == 0 && item.status == 200) {
        assert_int_equal(ops->predict(NULL, &items, 1), 0);
        result = ops->encode_response(NULL, &item);
    }
    assert_int_equal(output[capacity], 'x');
    return result;
}

static void a_small_output_area_is_an_error_and_no_overflow(void **state)
{
    (void)state;
    assert_int_equal(run_in(14, "{\"input\":4}"), -ENOSPC);
    assert_int_equal(run_in(15, "{\"input\":4}"), 0);
    assert_int_equal(run_in(14, "{}"), -ENOSPC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(computes_the_tutorials_answers),
        cmocka_unit_test(refuses_what_is_no_number),
        cmocka_unit_test(a_small_output_area_is_an_error_and_no_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
