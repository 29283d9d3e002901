/* Messages one after another: lines and npy arrays, as their bytes come in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/message.h"
#include "unetserve/mask_writer.h"

#include <errno.h>
#include <string.h>

static char error[200];

static int measure(const void *data, size_t size, size_t seen, size_t max, struct message *out)
{
    error[0] = '\0';
    return message_measure(data, size, seen, max, out, error, sizeof error);
}

static void test_lines(void **state)
{
    const char *text = "one\ntwo\r\n";
    struct message message = {MESSAGE_NPY, 0};
    (void)state;
    for (size_t size = 0; size < 4; size++)
        assert_int_equal(measure(text, size, 0, 100, &message), -EAGAIN);
    assert_int_equal(measure(text, 9, 0, 100, &message), 0);
    assert_int_equal(message.kind, MESSAGE_LINE);
    assert_int_equal(message.bytes, 4);
    assert_int_equal(measure(text + 4, 5, 3, 100, &message), 0);
    assert_int_equal(message.bytes, 5);
    /* A line of max bytes is taken, one more is too long, whether or not its end is there. */
    assert_int_equal(measure(text, 9, 0, 4, &message), 0);
    assert_int_equal(measure(text, 9, 0, 3, &message), -EFBIG);
    assert_int_equal(measure("abc", 3, 0, 3, &message), -EFBIG);
    assert_string_equal(error, "it is longer than 3 bytes");
}

static void test_arrays(void **state)
{
    char data[600];
    const struct unetserve_shape shape = {UNETSERVE_U16, 3, {2, 3, 4}};
    struct message message = {MESSAGE_LINE, 0};
    (void)state;
    memset(data, '\n', sizeof data);
    int header = npy_header_write(&shape, data, sizeof data);
    assert_true(header > 0);
    size_t whole = (size_t)header + 48;
    for (size_t size = 1; size < whole; size++)
        assert_int_equal(measure(data, size, size, 1000, &message), -EAGAIN);
    assert_int_equal(measure(data, sizeof data, 0, whole, &message), 0);
    assert_int_equal(message.kind, MESSAGE_NPY);
    assert_int_equal(message.bytes, whole);
    assert_int_equal(measure(data, sizeof data, 0, whole - 1, &message), -EFBIG);
    /* A header that promises more than can be is refused at once, before its bytes are waited for.
     */
    const struct unetserve_shape huge = {UNETSERVE_F64, 3, {1 << 20, 1 << 20, 1 << 20}};
    header = npy_header_write(&huge, data, sizeof data);
    assert_int_equal(measure(data, (size_t)header, 0, SIZE_MAX / 2, &message), -EFBIG);
    data[1] = 'X';
    assert_int_equal(measure(data, sizeof data, 0, 1000, &message), -EBADMSG);
    assert_true(strlen(error) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lines), cmocka_unit_test(test_arrays)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
