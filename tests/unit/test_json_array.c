/* The JSON array reader: numbers as strtof rounds them, shapes, and every refusal with its place;
 * however the body is split. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unetserve/body_reader.h"

#include "lib/json_number.h"
#include "lib/json_scan.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FLOATS_MAX = 4096 };

struct result {
    int status; /* 0: accepted */
    struct unetserve_shape shape;
    size_t bytes;
    float values[FLOATS_MAX];
    struct problem problem;
};

static struct unetserve_interface model(uint32_t channels, uint32_t max_batch)
{
    struct unetserve_interface interface = {
        .input_dtypes = 1u << UNETSERVE_F32,
        .input_field = "image",
        .channels = channels,
        .size_multiple = 1,
        .size_min = 1,
        .max_batch = max_batch,
    };
    return interface;
}

/* Feed in pieces: piece 0 means random lengths of 0 to 12 bytes. Each piece is an allocation of its
 * own, so that a sanitizer sees a read past its end. */
static void read_body(const struct unetserve_interface *interface, const char *body, size_t size,
                      size_t piece, struct result *result)
{
    struct body_reader reader;
    memset(result, 0, sizeof *result);
    result->status = -1;
    if (body_reader_init(&reader, interface, BODY_JSON, NULL, result->values, sizeof result->values,
                         NULL, NULL, &result->problem))
        return;
    for (size_t at = 0; at < size;) {
        size_t length = piece ? piece : (size_t)rand() % 13;
        if (length > size - at)
            length = size - at;
        char *copy = malloc(length ? length : 1);
        assert_non_null(copy);
        memcpy(copy, body + at, length);
        int status = body_reader_feed(&reader, copy, length, &result->problem);
        free(copy);
        if (status)
            return;
        at += length;
    }
    result->status = body_reader_finish(&reader, &result->shape, &result->bytes, &result->problem);
}

static void assert_same(const struct result *a, const struct result *b)
{
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->problem.status, b->problem.status);
    assert_string_equal(a->problem.body, b->problem.body);
    assert_int_equal(a->bytes, b->bytes);
    assert_memory_equal(&a->shape, &b->shape, sizeof a->shape);
    if (a->status == 0)
        assert_memory_equal(a->values, b->values, a->bytes);
}

/* Whole, byte by byte, and in random pieces: the same each time. */
static void read_every_way(const struct unetserve_interface *interface, const char *body,
                           struct result *result)
{
    static struct result other;
    size_t size = strlen(body);
    read_body(interface, body, size, size + 1, result);
    read_body(interface, body, size, 1, &other);
    assert_same(result, &other);
    for (unsigned seed = 1; seed <= 4; seed++) {
        srand(seed);
        read_body(interface, body, size, 0, &other);
        assert_same(result, &other);
    }
}

static struct result got;

static void accept(uint32_t channels, uint32_t max_batch, const char *body, const char *shape)
{
    struct unetserve_interface interface = model(channels, max_batch);
    char text[160];
    read_every_way(&interface, body, &got);
    if (got.status)
        fail_msg("%s refused: %s", body, got.problem.body);
    assert_string_equal(unetserve_shape_format(&got.shape, text, sizeof text), shape);
}

/* Refused with 422, and the answer contains each of the two pieces. */
static void refuse(uint32_t channels, uint32_t max_batch, const char *body, const char *first,
                   const char *second)
{
    struct unetserve_interface interface = model(channels, max_batch);
    read_every_way(&interface, body, &got);
    if (got.status == 0)
        fail_msg("%s was accepted", body);
    assert_int_equal(got.problem.status, 422);
    if (!strstr(got.problem.body, first) || !strstr(got.problem.body, second))
        fail_msg("%s: answer %s has not both %s and %s", body, got.problem.body, first, second);
}

static void refuse_syntax(const char *body, size_t offset, const char *reason)
{
    char place[64];
    snprintf(place, sizeof place, "\"type\":\"json_invalid\",\"loc\":[\"body\",%zu]", offset);
    refuse(1, 1, body, place, reason);
}

static void test_rank_3(void **state)
{
    (void)state;
    accept(2, 1, "{\"image\":[[[1,2,3],[4,5,6]],[[7,8,9],[10,11,12]]]}", "float32[2, 2, 3]");
    for (int i = 0; i < 12; i++)
        assert_true(got.values[i] == (float)(i + 1));
    assert_int_equal(got.bytes, 48);
}

static void test_rank_4(void **state)
{
    (void)state;
    accept(1, 4, "{\"image\":[[[[1,2]]],[[[3,4]]]]}", "float32[2, 1, 1, 2]");
    assert_true(got.values[3] == 4);
    accept(1, 4, "{\"image\":[[[1,2]]]}", "float32[1, 1, 2]");
    refuse(1, 2, "{\"image\":[[[[1]]],[[[1]]],[[[1]]]]}",
           "\"too_long\",\"loc\":[\"body\",\"image\"]", "at most 2 items");
    refuse(1, 1, "{\"image\":[[[[1]]]]}", "\"float_type\",\"loc\":[\"body\",\"image\",0,0,0]",
           "valid number");
}

static void test_white_space_and_other_keys(void **state)
{
    (void)state;
    accept(1, 1,
           " \t\r\n{ \"a\" : { \"image\" : [ true , null , \"x\" ] } ,\n\"image\" : [ [ [ 1 , 2 ] "
           ", [ 3 , 4 ] ] ] , \"b\":-0.5e3 } \n",
           "float32[1, 2, 2]");
    assert_true(got.values[2] == 3);
    accept(1, 1, "{\"\\u0069m\\u0061ge\":[[[1]]],\"k\":[[],{},[{}]]}", "float32[1, 1, 1]");
    accept(1, 1, "{\"imagee\":1,\"imag\":2,\"\":3,\"image\":[[[1]]]}", "float32[1, 1, 1]");
}

static void test_byte_order_mark(void **state)
{
    (void)state;
    accept(1, 1, "\xef\xbb\xbf{\"image\":[[[1]]]}", "float32[1, 1, 1]");
    accept(1, 1, "\xef\xbb\xbf \n{\"image\":[[[1]]]}", "float32[1, 1, 1]");
    refuse_syntax("\xef\xbb{\"image\":[[[1]]]}", 0, "Expecting value");
    refuse_syntax("\xef\xbb\xbf\xef\xbb\xbf{}", 3, "Expecting value");
    refuse_syntax(" \xef\xbb\xbf{}", 1, "Expecting value");
    refuse_syntax("{\xef\xbb\xbf}", 1, "Expecting property name");
    refuse_syntax("\xef\xbb\xbf", 3, "Expecting value");
    assert_false(json_is_valid("\xef\xbb\xbf[]", 5));
}

static void test_long_rows(void **state)
{
    (void)state;
    static char body[FLOATS_MAX * 12];
    char *at = body + sprintf(body, "{\"image\": [[");
    for (int y = 0; y < 8; y++) {
        at += sprintf(at, "%s[", y ? ", " : "");
        for (int x = 0; x < 500; x++)
            at += sprintf(at, "%s%d",
                          x == 0  ? ""
                          : x % 3 ? ","
                                  : ", ",
                          (y * 7919 + x * x * 31) % 12000000);
        at += sprintf(at, "]");
    }
    snprintf(at, 4, "]]}");
    accept(1, 1, body, "float32[1, 8, 500]");
    for (int y = 0; y < 8; y++)
        for (int x = 0; x < 500; x++)
            assert_true(got.values[y * 500 + x] == (float)((y * 7919 + x * x * 31) % 12000000));
}

static void test_syntax(void **state)
{
    (void)state;
    refuse_syntax(" ", 1, "Expecting value");
    refuse_syntax("x", 0, "Expecting value");
    refuse_syntax("{", 1, "property name");
    refuse_syntax("{,", 1, "property name");
    refuse_syntax("{1:2}", 1, "property name");
    refuse_syntax("{\"a\"", 4, "':' delimiter");
    refuse_syntax("{\"a\" 1}", 5, "':' delimiter");
    refuse_syntax("{\"a\":}", 5, "Expecting value");
    refuse_syntax("{\"a\":1", 6, "',' delimiter");
    refuse_syntax("{\"a\":1]", 6, "',' delimiter");
    refuse_syntax("{\"a\":1,}", 7, "property name");
    refuse_syntax("{\"a\":[1,]}", 8, "Expecting value");
    refuse_syntax("{\"a\":[1}", 7, "',' delimiter");
    refuse_syntax("{\"image\":[[[1,]]]}", 14, "Expecting value");
    refuse_syntax("{\"image\":[[[1 2]]]}", 14, "',' delimiter");
    refuse_syntax("{\"image\":[[[1]]]}x", 17, "Extra data");
    refuse_syntax("{\"image\":[[[1]]]}{}", 17, "Extra data");
    refuse_syntax("{\"image\":[[[1]]]", 16, "',' delimiter");
    refuse_syntax("{\"image\":[[[1,2", 15, "',' delimiter");
}

static void test_syntax_of_scalars(void **state)
{
    (void)state;
    static const char *const numbers[] = {"01",  "-",   "+1",  ".5",  "1.",   "1.e1", "1e",
                                          "1e+", "--1", "1-1", "-01", "1..2", "0x1"};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        char body[64];
        snprintf(body, sizeof body, "{\"a\":%s}", numbers[i]);
        refuse(1, 1, body, "json_invalid", "");
        snprintf(body, sizeof body, "{\"image\":[[[%s,1,1,1,1,1,1]]]}", numbers[i]);
        refuse(1, 1, body, "json_invalid", "");
        /* in the middle of a row too, where integers have a reader of their own */
        snprintf(body, sizeof body, "{\"image\":[[[1,%s,1,1,1,1,1,1,1,1,1,1]]]}", numbers[i]);
        refuse(1, 1, body, "json_invalid", "");
    }
    refuse_syntax("{\"a\":nul}", 5, "Expecting value");
    refuse_syntax("{\"a\":truE}", 5, "Expecting value");
    refuse_syntax("{\"a\":nullx}", 9, "',' delimiter");
    refuse_syntax("{\"a\":fals", 5, "Expecting value");
    refuse_syntax("{\"a\":\"b", 5, "Unterminated string");
    refuse_syntax("{\"a\":\"b\\", 5, "Unterminated string");
    refuse_syntax("{\"a\":\"b\n\"}", 7, "control character");
    refuse_syntax("{\"a\":\"\\x\"}", 7, "escape");
    refuse_syntax("{\"a\":\"\\u12g4\"}", 10, "escape");
    refuse_syntax("{\"a\":\"\xff\"}", 6, "UTF-8");
    refuse_syntax("{\"a\":\"\xc3\"}", 7, "UTF-8");
    refuse_syntax("{\"a\":\"\xed\xa0\x80\"}", 7, "UTF-8");
    refuse_syntax("{\"a\":NaN}", 5, "NaN");
    refuse_syntax("{\"a\":-Infinity}", 5, "NaN and Infinity");
    accept(1, 1,
           "{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83c\\udf33\\ud800\\ud800x\\udc00 "
           "\xf0\x9f\x8c\xb3\",\"image\":[[[-0]]]}",
           "float32[1, 1, 1]");
}

/* Keys and strings are decoded; the scanner shows to what. */
static void test_strings_are_decoded(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text;
    } cases[] = {
        {"\"\\ud83c\\udf33\"", "\xf0\x9f\x8c\xb3"},
        {"\"\\ud83cx\"", "\xef\xbf\xbdx"},
        {"\"\\ud83c\\n\"", "\xef\xbf\xbd\n"},
        {"\"\\ud83c\\ud83c\\udf33\"", "\xef\xbf\xbd\xf0\x9f\x8c\xb3"},
        {"\"\\udf33\\ud83c\"", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\"\\u00E9\\u20ac\\t\xc3\xa9\"", "\xc3\xa9\xe2\x82\xac\t\xc3\xa9"},
        {"\"\\ud83c\xc3\xa9\"", "\xef\xbf\xbd\xc3\xa9"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct json_scan scan;
        const char *json = cases[i].json;
        struct json_piece piece = {json, json, json + strlen(json)};
        json_scan_init(&scan);
        assert_int_equal(json_scan_next(&scan, &piece), SCAN_STRING);
        assert_int_equal(scan.text_size, strlen(cases[i].text));
        assert_memory_equal(scan.text, cases[i].text, scan.text_size);
        assert_int_equal(json_scan_next(&scan, &piece), SCAN_MORE);
        assert_int_equal(json_scan_finish(&scan), SCAN_END);
    }
}

static void test_depth(void **state)
{
    (void)state;
    for (int lists = 62; lists <= 65; lists++) {
        char body[256] = "{\"a\":", open[80], close[80];
        memset(open, '[', sizeof open);
        memset(close, ']', sizeof close);
        snprintf(body, sizeof body, "{\"a\":%.*s%.*s,\"image\":[[[1]]]}", lists, open, lists,
                 close);
        if (lists < JSON_DEPTH_MAX)
            accept(1, 1, body, "float32[1, 1, 1]");
        else
            refuse_syntax(body, 5 + 63, "deeper than 64");
    }
}

static void test_document(void **state)
{
    (void)state;
    refuse(1, 1, "", "\"type\":\"missing\",\"loc\":[\"body\"]", "\"input\":null");
    refuse(1, 1, "{}", "\"missing\",\"loc\":[\"body\",\"image\"]", "Field required");
    refuse(1, 1, "{\"a\":{\"image\":[[[1]]]}}", "\"missing\",\"loc\":[\"body\",\"image\"]",
           "Field required");
    refuse(1, 1, "[1]", "\"model_attributes_type\",\"loc\":[\"body\"]", "\"input\":null");
    refuse(1, 1, "7", "\"model_attributes_type\",\"loc\":[\"body\"]", "\"input\":7");
    refuse(1, 1, "\"x\"", "\"model_attributes_type\",\"loc\":[\"body\"]", "\"input\":\"x\"");
    refuse(1, 1, "null", "\"model_attributes_type\",\"loc\":[\"body\"]", "\"input\":null");
    refuse(1, 1, "{\"image\":[[[1]]],\"im\\u0061ge\":[[[1]]]}", "\"loc\":[\"body\",\"image\"]",
           "twice");
    char key[900] = "{\"";
    memset(key + 2, 'k', 600);
    snprintf(key + 602, sizeof key - 602, "\":1,\"image\":[[[1]]]}");
    accept(1, 1, key, "float32[1, 1, 1]");
}

static void test_lengths(void **state)
{
    (void)state;
    refuse(2, 1, "{\"image\":[[[1]]]}", "\"too_short\",\"loc\":[\"body\",\"image\"]",
           "at least 2 items after validation, not 1");
    refuse(2, 1, "{\"image\":[[[1]],[[1]],[[1]]]}", "\"too_long\",\"loc\":[\"body\",\"image\"]",
           "at most 2 items");
    refuse(2, 2, "{\"image\":[[[[1]],[[1]]],[[[1]]]]}",
           "\"too_short\",\"loc\":[\"body\",\"image\",1]", "not 1");
    refuse(1, 1, "{\"image\":[[[1,2],[3]]]}", "\"too_short\",\"loc\":[\"body\",\"image\",0,1]",
           "at least 2 items");
    refuse(1, 1, "{\"image\":[[[1,2],[3,4,5]]]}", "\"too_long\",\"loc\":[\"body\",\"image\",0,1]",
           "at most 2 items");
    refuse(2, 1, "{\"image\":[[[1],[2]],[[3]]]}", "\"too_short\",\"loc\":[\"body\",\"image\",1]",
           "at least 2 items");
    refuse(2, 1, "{\"image\":[[[1],[2]],[[3],[4],[5]]]}",
           "\"too_long\",\"loc\":[\"body\",\"image\",1]", "at most 2");
    refuse(1, 1, "{\"image\":[]}", "\"too_short\",\"loc\":[\"body\",\"image\"]",
           "at least 1 item after validation, not 0");
    refuse(1, 1, "{\"image\":[[]]}", "\"too_short\",\"loc\":[\"body\",\"image\",0]", "not 0");
    refuse(1, 1, "{\"image\":[[[]]]}", "\"too_short\",\"loc\":[\"body\",\"image\",0,0]", "not 0");
    refuse(1, 1, "{\"image\":[[[1],[]]]}", "\"too_short\",\"loc\":[\"body\",\"image\",0,1]",
           "not 0");
}

static void test_nesting_and_types(void **state)
{
    (void)state;
    refuse(1, 1, "{\"image\":5}", "\"list_type\",\"loc\":[\"body\",\"image\"]", "\"input\":5");
    refuse(1, 1, "{\"image\":\"abc\"}", "\"list_type\",\"loc\":[\"body\",\"image\"]", "in base64");
    refuse(1, 1, "{\"image\":null}", "\"list_type\",\"loc\":[\"body\",\"image\"]",
           "\"input\":null");
    refuse(1, 1, "{\"image\":{\"a\":1}}", "\"list_type\",\"loc\":[\"body\",\"image\"]",
           "valid list");
    refuse(1, 1, "{\"image\":[5]}", "\"list_type\",\"loc\":[\"body\",\"image\",0]", "\"input\":5");
    refuse(1, 1, "{\"image\":[[5,6]]}", "\"list_type\",\"loc\":[\"body\",\"image\",0,0]",
           "\"input\":5");
    refuse(1, 1, "{\"image\":[[[1],2]]}", "\"list_type\",\"loc\":[\"body\",\"image\",0,1]",
           "\"input\":2");
    refuse(1, 4, "{\"image\":[[[[1],2]]]}", "\"list_type\",\"loc\":[\"body\",\"image\",0,0,1]",
           "\"input\":2");
    refuse(1, 4, "{\"image\":[[[1,[2]]]]}", "\"float_type\",\"loc\":[\"body\",\"image\",0,0,1]",
           "valid number");
    refuse(1, 1, "{\"image\":[[[1,\"5\"]]]}", "\"float_type\",\"loc\":[\"body\",\"image\",0,0,1]",
           "\"input\":\"5\"");
    refuse(1, 1, "{\"image\":[[[1,true]]]}", "\"float_type\",\"loc\":[\"body\",\"image\",0,0,1]",
           "\"input\":true");
    refuse(1, 1, "{\"image\":[[[1,null]]]}", "\"float_type\",\"loc\":[\"body\",\"image\",0,0,1]",
           "\"input\":null");
    refuse(1, 1, "{\"image\":[[[1,{}]]]}", "\"float_type\",\"loc\":[\"body\",\"image\",0,0,1]",
           "valid number");
}

static void test_not_finite(void **state)
{
    (void)state;
    static const char *const values[] = {
        "NaN",   "Infinity",     "-Infinity", "1e39",
        "-1e39", "3.4028236e38", "1e400",     "1e999999999999999999999"};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char body[96];
        snprintf(body, sizeof body, "{\"image\":[[[1,2],[3,%s]]]}", values[i]);
        refuse(1, 1, body, "\"finite_number\",\"loc\":[\"body\",\"image\",0,1,1]", "finite number");
    }
}

static void test_sides(void **state)
{
    (void)state;
    struct unetserve_interface interface = model(1, 1);
    interface.size_min = 2;
    interface.size_max = 6;
    interface.size_multiple = 2;
    read_every_way(&interface, "{\"image\":[[[1,2],[1,2],[1,2],[1,2]]]}", &got);
    assert_int_equal(got.status, 0);
    static const struct {
        const char *body, *answer;
    } cases[] = {
        {"{\"image\":[[[1,2,3],", "width 3 is not a multiple of 2"},
        {"{\"image\":[[[1],", "at least 2 items"},
        {"{\"image\":[[[1,2,3,4,5,6,7,", "at most 6 items"},
        {"{\"image\":[[[1,2],[1,2],[1,2]]", "height 3 is not a multiple of 2"},
        {"{\"image\":[[[1,2]]", "at least 2 items"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        read_every_way(&interface, cases[i].body, &got);
        assert_int_equal(got.problem.status, 422);
        if (!strstr(got.problem.body, cases[i].answer))
            fail_msg("%s: %s", cases[i].body, got.problem.body);
    }
}

static void test_model_without_float32(void **state)
{
    (void)state;
    struct unetserve_interface interface = model(1, 1);
    interface.input_dtypes = 1u << UNETSERVE_U8;
    read_every_way(&interface, "{\"image\":[[[1]]]}", &got);
    assert_int_equal(got.problem.status, 422);
    assert_non_null(strstr(got.problem.body, "uint8"));
}

/* ---- numbers against strtof ---- */

static void assert_like_strtof(const char *text)
{
    float expected = strtof(text, NULL), value = 0;
    int status = json_number_parse(text, strlen(text), &value);
    if (isinf(expected)) {
        assert_int_equal(status, -ERANGE);
    } else if (status || value != expected || signbit(value) != signbit(expected)) {
        fail_msg("%s became %a, expected %a", text, (double)value, (double)expected);
    }
}

static uint64_t random_bits(void)
{
    uint64_t bits = 0;
    for (int i = 0; i < 5; i++)
        bits = bits << 15 ^ (uint64_t)(rand() & 0x7fff);
    return bits;
}

/* Decimal spellings of doubles, of floats, of exact midpoints between floats and of their
 * neighbours. */
static void test_numbers_near_floats(void **state)
{
    (void)state;
    srand(20240611);
    for (int i = 0; i < 60000; i++) {
        char text[JSON_TOKEN_MAX + 1];
        uint32_t bits = (uint32_t)random_bits() & 0x7fffffff;
        float low, high;
        memcpy(&low, &bits, sizeof low);
        if (!isfinite(low))
            continue;
        high = nextafterf(low, INFINITY);
        double middle = isinf(high) ? (double)low : ((double)low + (double)high) / 2;
        if (i % 4 == 1)
            middle = nextafter(middle, INFINITY);
        if (i % 4 == 2)
            middle = nextafter(middle, 0);
        static const int digits[] = {1, 6, 9, 17, 18, 25, 60, 120};
        snprintf(text, sizeof text, "%.*e", digits[i % 8], i % 4 == 3 ? (double)low : middle);
        assert_like_strtof(text);
        if (bits > 0x30000000 && bits < 0x50000000) {
            snprintf(text, sizeof text, "%.*f", digits[(i >> 3) % 8], middle);
            assert_like_strtof(text);
        }
    }
}

static void test_numbers_of_any_spelling(void **state)
{
    (void)state;
    srand(77);
    for (int i = 0; i < 60000; i++) {
        char text[JSON_TOKEN_MAX + 1];
        char *at = text;
        if (rand() % 4 == 0)
            *at++ = '-';
        int whole = rand() % (i % 50 == 0 ? 200 : 12), fraction = rand() % (i % 50 == 0 ? 150 : 12);
        if (whole == 0)
            *at++ = '0';
        for (int k = 0; k < whole; k++)
            *at++ = (char)((k == 0 ? '1' : '0') + rand() % 9);
        if (fraction)
            *at++ = '.';
        for (int k = 0; k < fraction; k++)
            *at++ = (char)(rand() % 3 == 0 ? '0' : '0' + rand() % 10);
        *at = '\0';
        if (rand() % 2)
            sprintf(at, "%c%s%d", rand() % 2 ? 'e' : 'E',
                    rand() % 3 == 0 ? "+"
                    : rand() % 2    ? "-"
                                    : "",
                    rand() % 60);
        assert_like_strtof(text);
    }
}

static void test_numbers_at_the_edges(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "0",
        "-0",
        "0.0",
        "-0.0e5",
        "0e999999999999",
        "16777216",
        "16777217",
        "16777219",
        "9007199254740993",
        "18446744073709551615",
        "18446744073709551616",
        "3.4028234663852886e38",
        "3.4028235677973366e38",
        "3.4028235677973365e38",
        "340282356779733661637539395458142568447",
        "340282356779733661637539395458142568448",
        "1.401298464324817e-45",
        "0.7006492321624085e-45",
        "7.006492321624085e-46",
        "7.0064923216240854e-46",
        "1e-999999999",
        "1.17549435e-38",
        "1.1754942807573642e-38",
        "1000000000000000000000e-21",
        "0.000000000000000000000000000001e30",
        "8388608.5",
        "8388609.5",
        "8388609.50000000000000000000000000000000000001",
        "1e22",
        "1e23",
        "123456789012345678901234567890e-20",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_like_strtof(texts[i]);
}

static void test_number_lengths(void **state)
{
    (void)state;
    static char body[1024];
    for (int digits = 398; digits <= 402; digits++) {
        char *at = body + sprintf(body, "{\"image\":[[[0.");
        memset(at, '3', (size_t)digits - 2);
        snprintf(at + digits - 2, 5, "]]]}");
        if (digits <= JSON_TOKEN_MAX) {
            accept(1, 1, body, "float32[1, 1, 1]");
            assert_true(got.values[0] == 0x1.555556p-2f);
        } else {
            refuse_syntax(body, 12, "longer than 400");
        }
    }
}

/* Integers through the row reader, at every length of what follows. */
static void test_integers_in_rows(void **state)
{
    (void)state;
    static const char row[] = "{\"image\":[[[0,9, 10,99,100,1234567,12345678,123456789,1,  2,3.5,4 "
                              ",-5,0.25,1e2,7,00000008]]]}";
    struct unetserve_interface interface = model(1, 1);
    read_every_way(&interface, row, &got);
    assert_int_equal(got.problem.status, 422); /* the last one has leading zeros */
    accept(1, 1,
           "{\"image\":[[[0,9, 10,99,100,1234567,12345678,123456789,1,  2,3.5,4 ,-5,0.25,1e2,7]]]}",
           "float32[1, 1, 16]");
    static const float expected[] = {0, 9, 10,   99, 100, 1234567, 12345678, 123456792,
                                     1, 2, 3.5f, 4,  -5,  0.25f,   100,      7};
    assert_memory_equal(got.values, expected, sizeof expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rank_3),
        cmocka_unit_test(test_rank_4),
        cmocka_unit_test(test_white_space_and_other_keys),
        cmocka_unit_test(test_byte_order_mark),
        cmocka_unit_test(test_long_rows),
        cmocka_unit_test(test_syntax),
        cmocka_unit_test(test_syntax_of_scalars),
        cmocka_unit_test(test_strings_are_decoded),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_document),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_nesting_and_types),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_sides),
        cmocka_unit_test(test_model_without_float32),
        cmocka_unit_test(test_numbers_near_floats),
        cmocka_unit_test(test_numbers_of_any_spelling),
        cmocka_unit_test(test_numbers_at_the_edges),
        cmocka_unit_test(test_number_lengths),
        cmocka_unit_test(test_integers_in_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
