/* An engine of cuDNN's as it is kept, and what is refused of bytes that are no engine. */
#include "workers/backends/cudnn/gpu_engine.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct gpu_engine some = {
    .id = 41, .knob_count = 3, .knobs = {{0, 1}, {7, -1}, {31, INT64_C(1) << 40}}};

static int read_back(const uint8_t *data, size_t bytes)
{
    struct gpu_engine engine;
    return gpu_engine_read(data, bytes, &engine);
}

static void written_and_read(void **state)
{
    (void)state;
    uint8_t data[GPU_ENGINE_MOST_BYTES];
    struct gpu_engine engine = {.id = -1};
    size_t bytes = gpu_engine_write(&some, data);
    assert_int_equal(bytes, 12 + 3 * 12);
    assert_int_equal(gpu_engine_read(data, bytes, &engine), 0);
    assert_int_equal(engine.id, some.id);
    assert_int_equal(engine.knob_count, some.knob_count);
    for (uint32_t i = 0; i < some.knob_count; i++) {
        assert_int_equal(engine.knobs[i].type, some.knobs[i].type);
        assert_int_equal(engine.knobs[i].value, some.knobs[i].value);
    }
}

static void every_other_length_is_refused(void **state)
{
    (void)state;
    uint8_t data[2 * GPU_ENGINE_MOST_BYTES] = {0};
    size_t bytes = gpu_engine_write(&some, data);
    for (size_t length = 0; length < sizeof data; length++) {
        assert_int_equal(read_back(data, length), length == bytes ? 0 : -EBADMSG);
    }
}

static void wrong_numbers_are_refused(void **state)
{
    (void)state;
    uint8_t data[GPU_ENGINE_MOST_BYTES];
    struct gpu_engine engine = some;
    engine.id = -1;
    assert_int_equal(read_back(data, gpu_engine_write(&engine, data)), -EBADMSG);
    engine.id = INT64_C(1) << 40;
    assert_int_equal(read_back(data, gpu_engine_write(&engine, data)), -EBADMSG);
    engine = some;
    engine.knobs[2].type = engine.knobs[0].type; /* set twice */
    assert_int_equal(read_back(data, gpu_engine_write(&engine, data)), -EBADMSG);
    engine.knobs[2].type = -5;
    assert_int_equal(read_back(data, gpu_engine_write(&engine, data)), -EBADMSG);
    size_t bytes = gpu_engine_write(&some, data);
    memset(data + 8, 0xff, 4); /* 2^32 - 1 knobs */
    assert_int_equal(read_back(data, bytes), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_and_read),
        cmocka_unit_test(every_other_length_is_refused),
        cmocka_unit_test(wrong_numbers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
