/* Forms in any pieces: as parts, as documents, as an image; and forms that are none. */
#include "unetserve/body_reader.h"

#include "lib/base64.h"
#include "lib/json_scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROOM ((size_t)200000)

static struct {
    char data[ROOM];
    size_t bytes;
    struct unetserve_shape shape;
    enum image_file file;
    struct problem problem;
} got;

static struct unetserve_interface documents = {.input_kind = UNETSERVE_DOCUMENT};
static struct unetserve_interface files = {.input_kind = UNETSERVE_DOCUMENT,
                                           .flags = UNETSERVE_TAKES_FILES};
static struct unetserve_interface images = {.input_kind = UNETSERVE_TENSOR,
                                            .input_field = "image",
                                            .input_dtypes = 0xfe,
                                            .channels = 1,
                                            .size_multiple = 1,
                                            .max_batch = 1};

static int read_in_steps(const struct unetserve_interface *interface, enum body_format format,
                         const char *type, const struct unetserve_shape *raw, const char *body,
                         size_t size, size_t step)
{
    struct body_reader reader;
    int failed = body_reader_init(&reader, interface, format, raw, got.data, ROOM, NULL, NULL,
                                  &got.problem) ||
                 body_reader_begin_form(&reader, type, &got.problem);
    for (size_t at = 0; at < size && !failed; at += step) {
        size_t length = size - at < step ? size - at : step;
        char *copy = malloc(length); /* so that ASan sees its end */
        assert_non_null(copy);
        memcpy(copy, body + at, length);
        failed = body_reader_feed(&reader, copy, length, &got.problem);
        free(copy);
    }
    failed = failed || body_reader_finish(&reader, &got.shape, &got.bytes, &got.problem);
    if (!failed)
        got.file = body_reader_file(&reader);
    body_reader_close(&reader);
    return failed ? got.problem.status : 0;
}

/* The same in any steps; 0 or the refusal's status. */
static int read_form(const struct unetserve_interface *interface, enum body_format format,
                     const char *type, const struct unetserve_shape *raw, const char *body,
                     size_t size)
{
    static const size_t steps[] = {1, 2, 3, 7, 64, SIZE_MAX};
    static char first[ROOM];
    int status = 0;
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        int now = read_in_steps(interface, format, type, raw, body, size, steps[i]);
        if (i == 0) {
            status = now;
            bytes = got.bytes;
            memcpy(first, got.data, status ? 0 : bytes);
        }
        assert_int_equal(now, status);
        if (!status) {
            assert_int_equal(got.bytes, bytes);
            assert_memory_equal(got.data, first, bytes);
        }
    }
    return status;
}

static void expect_document(const struct unetserve_interface *interface, enum body_format format,
                            const char *body, size_t size, const char *document)
{
    int status = read_form(interface, format, "multipart/form-data; boundary=XX", NULL, body, size);
    if (status)
        fail_msg("%s: %s", body, got.problem.body);
    if (got.bytes != strlen(document) || memcmp(got.data, document, got.bytes) != 0)
        fail_msg("%s became %.*s, not %s", body, (int)got.bytes, got.data, document);
    assert_true(got.bytes == 0 || json_is_valid(got.data, got.bytes));
}

static void expect_refusal(const struct unetserve_interface *interface, enum body_format format,
                           const char *type, const char *body, int status, const char *word)
{
    int came = read_form(interface, format, type, NULL, body, strlen(body));
    if (came != status || !strstr(got.problem.body, word))
        fail_msg("%s: %d %s, not %d with %s", body, came, came ? got.problem.body : "", status,
                 word);
    assert_true(json_is_valid(got.problem.body, strlen(got.problem.body)));
}

/* ---- urlencoded ---- */

static void test_urlencoded(void **state)
{
    (void)state;
    static const struct {
        const char *body, *document;
    } cases[] = {
        {"input=4.0", "{\"input\":\"4.0\"}"},
        {"a=1&b=2", "{\"a\":\"1\",\"b\":\"2\"}"},
        {"a=&b&&c=%20+x", "{\"a\":\"\",\"b\":\"\",\"c\":\"  x\"}"},
        {"a%3Db=c%3dd=e", "{\"a=b\":\"c=d=e\"}"},
        {"q=%22%5C%0a%00%7f", "{\"q\":\"\\\"\\\\\\u000a\\u0000\x7f\"}"},
        {"u=%C3%A9\xc3\xa9%F0%9F%98%80", "{\"u\":\"\xc3\xa9\xc3\xa9\xf0\x9f\x98\x80\"}"},
        {"u=%C3(%E2%82%ff", "{\"u\":\"\xef\xbf\xbd(\xef\xbf\xbd\xef\xbf\xbd\"}"},
        {"u=%C3", "{\"u\":\"\xef\xbf\xbd\"}"},
        {"u=%zz%4", "{\"u\":\"%zz%4\"}"},
        {"=x", "{\"\":\"x\"}"},
        {"", ""},
        {" \r\n{\"input\": 4.0}", "{\"input\": 4.0}"}, /* curl -d: JSON that is called a form */
        {"[1]", "[1]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_document(&documents, BODY_URLENCODED, cases[i].body, strlen(cases[i].body),
                        cases[i].document);
}

static void test_urlencoded_bounds(void **state)
{
    (void)state;
    char name[200], many[3000] = "";
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    expect_refusal(&documents, BODY_URLENCODED, NULL, name, 400, "less than 128");
    expect_refusal(&documents, BODY_URLENCODED, NULL, "a%00b=1", 400, "name");
    for (size_t i = 0; i < 1001; i++)
        memcpy(many + 2 * i, "a&", 3);
    expect_refusal(&documents, BODY_URLENCODED, NULL, many, 400, "more than 1000");
    static char value[150000] = "v=";
    memset(value + 2, 'x', sizeof value - 3);
    assert_int_equal(read_form(&documents, BODY_URLENCODED, NULL, NULL, value, sizeof value - 1),
                     0);
    assert_int_equal(got.bytes, sizeof value - 3 + strlen("{\"v\":\"\"}"));
}

/* ---- multipart ---- */

#define PART(name, content)                                                                        \
    "--XX\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n" content "\r\n"
#define FILE_PART(name, file, content)                                                             \
    "--XX\r\nContent-Disposition: form-data; name=\"" name "\"; filename=\"" file "\"\r\n"         \
    "Content-Type: text/x\r\n\r\n" content "\r\n"

static void test_multipart(void **state)
{
    (void)state;
    static const struct {
        const char *body, *document;
    } cases[] = {
        {PART("a", "1") PART("b", "") "--XX--\r\n", "{\"a\":\"1\",\"b\":\"\"}"},
        {"--XX--", "{}"},
        {"before\r\n--XX \t\r\nContent-Disposition:form-data;name=a\r\n\r\n1\r\n--XX--after",
         "{\"a\":\"1\"}"},
        {PART("a", "\r\n--X\r\r\n--XY\r\n") "--XX--", "{\"a\":\"\\u000d\\u000a--X\\u000d\\u000d"
                                                      "\\u000a--XY\\u000d\\u000a\"}"},
        {PART("a\\\"b", "1") PART("%22", "2") "--XX--", "{\"a\\\"b\":\"1\",\"%22\":\"2\"}"},
        /* an empty part whose delimiter comes at once */
        {"--XX\r\ncontent-disposition: FORM-DATA; NAME=a\r\n\r\n--XX--", "{\"a\":\"\"}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_document(&documents, BODY_MULTIPART, cases[i].body, strlen(cases[i].body),
                        cases[i].document);
    static const char body[] = FILE_PART("f", "a b.txt", "fooba") PART("x", "\xff") "--XX--";
    expect_document(&files, BODY_MULTIPART, body, sizeof body - 1,
                    "{\"f\":{\"unetserve.UploadFile\":{\"filename\":\"a b.txt\","
                    "\"content_type\":\"text/x\",\"data\":\"Zm9vYmE=\"}},\"x\":\"\xef\xbf\xbd\"}");
}

static void test_a_long_file(void **state)
{
    (void)state;
    static char body[100200], letters[BASE64_LETTERS(100000)];
    static const char head[] =
        "--XX\r\nContent-Disposition: form-data; name=f; filename=\"\"\r\n\r\n";
    size_t at = sizeof head - 1;
    memcpy(body, head, at);
    for (size_t i = 0; i < 100000; i++)
        body[at + i] = (char)(i * i / 3);
    base64_encode(body + at, 100000, letters);
    static const char tail[] = "\r\n--XX--";
    memcpy(body + at + 100000, tail, sizeof tail);
    assert_int_equal(read_form(&files, BODY_MULTIPART, "multipart/form-data; boundary=\"XX\"", NULL,
                               body, at + 100008),
                     0);
    assert_non_null(memmem(got.data, got.bytes, letters, sizeof letters));
}

static void test_boundaries(void **state)
{
    (void)state;
    static const char *const bad[] = {"multipart/form-data",
                                      "multipart/form-data; boundary=",
                                      "multipart/form-data; boundary=\"",
                                      "multipart/form-data; boundary=a\"b",
                                      "multipart/form-data; boundary=\"a \"",
                                      "multipart/form-data; boundary=\"a\r\nb\"",
                                      "multipart/form-data; bound=x",
                                      "multipart/form-data boundary=x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        expect_refusal(&documents, BODY_MULTIPART, bad[i], "--a--", 400, "boundary");
    char type[] = "multipart/form-data; boundary=0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF";
    char longer[sizeof type + 32];
    snprintf(longer, sizeof longer, "%s0123456789ABCDEF0123456", type);
    expect_refusal(&documents, BODY_MULTIPART, longer, "--a--", 400, "boundary");
    longer[strlen(longer) - 1] = '\0';
    expect_refusal(&documents, BODY_MULTIPART, longer, "--a--", 400, "truncated");
    static const char *const good[] = {
        "multipart/form-data;boundary=a:b",
        "x/y; charset=utf-8; Boundary=\"a:b\"; z=1",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_int_equal(
            read_form(&documents, BODY_MULTIPART, good[i], NULL, "--a:b--", strlen("--a:b--")), 0);
}

static void test_multipart_that_is_none(void **state)
{
    (void)state;
    static char long_line[2200] = "--XX\r\nX: ", many_lines[9000] = "--XX\r\n";
    static const char type[] = "multipart/form-data; boundary=XX";
    memset(long_line + strlen(long_line), 'y', 2000);
    for (size_t i = 0; i < 1100; i++)
        memcpy(many_lines + 6 + 8 * i, "Xxx: y\r\n", 9);
    const struct {
        const char *body;
        int status;
        const char *word;
    } cases[] = {
        {"", 400, "truncated"},
        {"no boundary at all", 400, "truncated"},
        {PART("a", "1"), 400, "truncated"},
        {PART("a", "1") "--XX-", 400, "truncated"},
        {PART("a", "1") "--XX-x", 400, "follows a boundary"},
        {"--XXX\r\n", 400, "follows a boundary"},
        {"--XX\r\n\r\n", 400, "without Content-Disposition"},
        {"--XX\r\nContent-Disposition: form-data\r\n\r\n", 400, "without a name"},
        {"--XX\r\nContent-Disposition: form-data; name=\"a\r\n\r\n", 400, "without a name"},
        {"--XX\r\nContent-Disposition: attachment; name=a\r\n\r\n", 400, "form-data"},
        {"--XX\r\nContent-Disposition: form-data; name=a; name=b\r\n\r\n", 400, "twice"},
        {"--XX\r\nContent-Disposition: form-data; name=a\n\r\n", 400, "CR LF"},
        {"--XX\r\n folded: x\r\n", 400, ""},
        {"--XX\r\nno field\r\n", 400, "no field"},
        {"--XX\r\nContent-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: "
         "base64\r\n\r\n",
         400, "Transfer-Encoding"},
        {long_line, 400, "too long"},
        {many_lines, 400, "too long"},
        {FILE_PART("f", "x", "y") "--XX--", 422, "The field f is a file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_refusal(&documents, BODY_MULTIPART, type, cases[i].body, cases[i].status,
                       cases[i].word);
}

/* ---- images ---- */

static const char png[] = "\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\2\0\0\0\2\x08\0\0\0\0crc-IDAT";

static size_t image_form(char *body, const char *part, const void *content, size_t size)
{
    static const char tail[] = "\r\n" PART("more", "x") "--XX--\r\n";
    size_t at = (size_t)sprintf(
        body, PART("note", "\x89PNG") "--XX\r\nContent-Disposition: form-data; %s\r\n\r\n", part);
    memcpy(body + at, content, size);
    memcpy(body + at + size, tail, sizeof tail);
    return at + size + sizeof tail - 1;
}

static void test_images_in_forms(void **state)
{
    (void)state;
    static const char type[] = "multipart/form-data; boundary=XX";
    static const char *const parts[] = {"name=\"image\"; filename=\"x.png\"", "name=image",
                                        "name=other; filename=y"};
    char body[1000];
    for (size_t i = 0; i < 3; i++) {
        size_t size = image_form(body, parts[i], png, sizeof png - 1);
        assert_int_equal(read_form(&images, BODY_MULTIPART, type, NULL, body, size), 0);
        assert_int_equal(got.file, IMAGE_FILE_PNG);
        assert_int_equal(got.bytes, sizeof png - 1);
        assert_memory_equal(got.data, png, sizeof png - 1);
    }
    /* Raw elements, whose shape the request's own header tells. */
    struct unetserve_shape raw = {.dtype = UNETSERVE_U16, .rank = 3, .dims = {1, 2, 4}};
    size_t size = image_form(body, parts[0], "0123456789abcdef", 16);
    assert_int_equal(read_form(&images, BODY_MULTIPART, type, &raw, body, size), 0);
    assert_memory_equal(&got.shape, &raw, sizeof raw);
    assert_memory_equal(got.data, "0123456789abcdef", 16);
    assert_int_equal(read_form(&images, BODY_MULTIPART, type, NULL, body, size), 415);
    expect_refusal(&images, BODY_MULTIPART, type, PART("note", "x") "--XX--", 422,
                   "Field required");
    expect_refusal(&images, BODY_MULTIPART, type, PART("image", "") "--XX--", 400, "0 bytes");
    expect_refusal(&images, BODY_MULTIPART, type,
                   FILE_PART("a", "b", "") FILE_PART("image", "c", "") "--XX--", 422,
                   "more than one");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_urlencoded),      cmocka_unit_test(test_urlencoded_bounds),
        cmocka_unit_test(test_multipart),       cmocka_unit_test(test_a_long_file),
        cmocka_unit_test(test_boundaries),      cmocka_unit_test(test_multipart_that_is_none),
        cmocka_unit_test(test_images_in_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
