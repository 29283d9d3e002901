/* A model's interface as JSON, there and back, and what is refused. */
#include "tests/image_interface.h"
#include "unetserve/interface_text.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct unetserve_interface example(void)
{
    struct unetserve_interface interface = {
        .name = "land-cover",
        IMAGE_INTERFACE,
        .channels = 12,
        .size_min = 16,
        .tile = 256,
        .max_batch = 8,
        .class_count = 2,
        .classes = {{.name = "tree \"cover\"", .code = 10, .rgb = {0, 100, 255}},
                    {.name = "b\xc3\xa4ume", .code = 65535}},
    };
    return interface;
}

static void round_trip(const struct unetserve_interface *interface)
{
    struct unetserve_interface back;
    memset(&back, 0xaa, sizeof back);
    char *text = interface_to_json(interface);
    assert_non_null(text);
    assert_null(strchr(text, '\n'));
    assert_int_equal(interface_from_json(text, strlen(text), &back), 0);
    assert_memory_equal(interface, &back, sizeof back);
    free(text);
}

static void test_round_trip(void **state)
{
    (void)state;
    struct unetserve_interface interface = example();
    round_trip(&interface);
    interface.class_count = UNETSERVE_MAX_CLASSES;
    memset(interface.classes, 0, sizeof interface.classes);
    round_trip(&interface);
    struct unetserve_interface document = {.name = "simple",
                                           .input_kind = UNETSERVE_DOCUMENT,
                                           .output_kind = UNETSERVE_DOCUMENT,
                                           .max_batch = 1};
    round_trip(&document);
    struct unetserve_interface typed = {
        .name = "typed",
        .input_kind = UNETSERVE_DOCUMENT,
        .output_kind = UNETSERVE_DOCUMENT,
        .max_batch = 1,
        .flags = UNETSERVE_STREAMS | UNETSERVE_READS_ITSELF | UNETSERVE_TAKES_FILES,
        .batch_timeout_ms = 50,
        .max_pending = 9,
        .request_field_count = 3,
        .request_fields =
            {{.name = "x", .type = UNETSERVE_FLOAT, .depth = 1, .or_bare = 1},
             {.name = "n", .type = UNETSERVE_INT, .optional = 1, .fallback = -7},
             {.name = "t", .type = UNETSERVE_STR, .optional = 1, .fallback_text = "\"as\""}},
        .response_field_count = 2,
        .response_fields = {{.name = "y", .type = UNETSERVE_BOOL},
                            {.name = "m", .type = UNETSERVE_FLOAT, .depth = 3}},
    };
    round_trip(&typed);
    memset(document.request_schema, 'x', sizeof document.request_schema - 1);
    snprintf(document.response_schema, sizeof document.response_schema, "{\"type\": \"array\"}");
    round_trip(&document);
}

/* A plugin's name need be neither terminated nor UTF-8. */
static void test_odd_names(void **state)
{
    (void)state;
    struct unetserve_interface interface = example();
    struct unetserve_interface back;
    strcpy(interface.name, "\xff\xfe x");
    char *text = interface_to_json(&interface);
    assert_non_null(text);
    assert_int_equal(interface_from_json(text, strlen(text), &back), 0);
    assert_string_equal(back.name, "?? x");
    free(text);
    memset(interface.version, 'v', sizeof interface.version);
    text = interface_to_json(&interface);
    assert_non_null(text); /* one byte too long to be read back */
    assert_int_equal(interface_from_json(text, strlen(text), &back), -EBADMSG);
    free(text);
}

/* The example with one piece of its text replaced by another. */
static int with(const char *piece, const char *other)
{
    struct unetserve_interface interface = example();
    char *text = interface_to_json(&interface);
    char *at = strstr(text, piece);
    char changed[4096];
    if (!at)
        fail_msg("no %s in %s", piece, text);
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, other,
             at + strlen(piece));
    free(text);
    return interface_from_json(changed, strlen(changed), &interface);
}

static void test_refusals(void **state)
{
    (void)state;
    assert_int_equal(with("\"channels\":12", "\"channels\":13"), 0);
    static const char *const pairs[][2] = {
        {"\"channels\":12", "\"channels\":0"},
        {"\"channels\":12", "\"channels\":-1"},
        {"\"channels\":12", "\"channels\":4294967308"},
        {"\"channels\":12", "\"channels\":12.0"},
        {"\"channels\":12,", ""},
        {"\"max_batch\":8", "\"max_batch\":0"},
        {"\"tile\":256", "\"tile\":100000"},
        {"\"uint16\"", "\"complex\""},
        {"\"uint16\"", "5"},
        {"\"kind\":\"tensor\"", "\"kind\":\"cube\""},
        {"\"dtype\":\"uint8\"", "\"dtype\":\"none\""},
        {"\"code\":10", "\"code\":70000"},
        {"\"rgb\":[0,100,255]", "\"rgb\":[0,100]"},
        {"\"rgb\":[0,100,255]", "\"rgb\":[0,100,256]"},
        {"land-cover", "a name of far more than the sixty-three bytes that there is room for"},
        {"\"name\"", "\"name\":\"twice\",\"name\""},
        {"\"input\"", "\"inputs\""},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if (with(pairs[i][0], pairs[i][1]) != -EBADMSG)
            fail_msg("%s for %s was taken", pairs[i][1], pairs[i][0]);
    struct unetserve_interface interface;
    static const char *const texts[] = {"", "{}", "[]", "null", "{", "{\"name\":\"a\"}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_int_equal(interface_from_json(texts[i], strlen(texts[i]), &interface), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_odd_names),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
