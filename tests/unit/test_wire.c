#include "unetserve/wire.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void check_round_trip(uint32_t slot, uint64_t word, uint32_t model)
{
    unsigned char bytes[WIRE_BATON_MAX];
    struct wire_baton out = {0};
    size_t size = wire_baton_write(&(struct wire_baton){.slot = slot, .word = word, .model = model},
                                   bytes);
    assert_in_range(size, 8, WIRE_BATON_MAX);
    assert_int_equal(wire_baton_read(bytes, size, &out), 0);
    assert_int_equal(out.slot, slot);
    assert_true(out.word == word);
    assert_int_equal(out.model, model);
}

static void batons_survive_the_wire(void **state)
{
    (void)state;
    check_round_trip(0, 0, 0);
    check_round_trip(127, 128, 1);
    check_round_trip(4095, UINT64_C(0x0000000700000102), 15);
    check_round_trip(UINT32_MAX, UINT64_MAX, UINT32_MAX);
}

static void bytes_are_the_documented_msgpack(void **state)
{
    (void)state;
    unsigned char bytes[WIRE_BATON_MAX];
    static const unsigned char expected[] = {0x94, 0xa3, 'j', 'o', 'b', 5,    0xcf, 0,
                                             0,    0,    2,   0,   0,   0x01, 0x02, 1};
    size_t size = wire_baton_write(
        &(struct wire_baton){.slot = 5, .word = UINT64_C(0x200000102), .model = 1}, bytes);
    assert_int_equal(size, sizeof expected);
    assert_memory_equal(bytes, expected, size);
}

static void every_cut_is_refused(void **state)
{
    (void)state;
    unsigned char bytes[WIRE_BATON_MAX];
    size_t size = wire_baton_write(
        &(struct wire_baton){.slot = 300, .word = UINT64_MAX, .model = 70000}, bytes);
    for (size_t cut = 0; cut < size; cut++) {
        struct wire_baton out = {.slot = 99};
        assert_int_equal(wire_baton_read(bytes, cut, &out), -EBADMSG);
        assert_int_equal(out.slot, 99);
    }
}

static void what_is_no_baton_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } cases[] = {
        {"\xdd\xff\xff\xff\xff", 5},          /* an array that claims four thousand million */
        {"\x94\xa3job\x01\x02\x03\x04", 9},   /* something behind it */
        {"\x95\xa3job\x01\x02\x03\x04", 9},   /* five elements */
        {"\x94\xa3jab\x01\x02\x03", 8},       /* another word */
        {"\x94\xd9\x04joba\x01\x02\x03", 10}, /* a longer word */
        {"\x94\xa3job\xff\x02\x03", 8},       /* a negative slot */
        {"\x94\xa3job\xcf\1\1\1\1\1\1\1\1\2\3", 16}, /* a slot beyond 32 bits */
        {"\x94\xa3job\xc0\x02\x03", 8},              /* nil */
        {"\x94\xa3job\xca\0\0\0\0\x02\x03", 12},     /* a float */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct wire_baton out;
        assert_int_equal(wire_baton_read(cases[i].bytes, cases[i].size, &out), -EBADMSG);
    }
    struct wire_baton out;
    char large[WIRE_BATON_MAX + 1] = {0};
    assert_int_equal(wire_baton_read(large, sizeof large, &out), -EBADMSG);
}

static void longer_forms_than_needed_are_read(void **state)
{
    (void)state;
    struct wire_baton out;
    assert_int_equal(wire_baton_read("\x94\xd9\x03job\xcc\x07\xcd\x00\x08\xce\0\0\0\x09", 16, &out),
                     0);
    assert_int_equal(out.slot, 7);
    assert_int_equal(out.word, 8);
    assert_int_equal(out.model, 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batons_survive_the_wire),
        cmocka_unit_test(bytes_are_the_documented_msgpack),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(what_is_no_baton_is_refused),
        cmocka_unit_test(longer_forms_than_needed_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
