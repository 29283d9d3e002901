/*
 * Rows of numbers, each way that this processor has: the floats are strtof's to the bit, what JSON
 * does not allow is not taken, however the text is split, and memory beyond it is not read.
 */
#include "lib/json_rows.h"

#include "lib/json_array.h"
#include "lib/json_number.h"
#include "unetserve/body_reader.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VALUES = 700, TEXT_MAX = VALUES * 48, ROUNDS = 400, NUMBERS = 3000000 };

static json_rows_read *const ways[JSON_ROWS_KINDS] = {json_rows_read_plain, json_rows_read_avx2,
                                                      json_rows_read_avx512};

static uint64_t state_of_dice = 88172645463325252u;

static uint64_t dice(void)
{
    state_of_dice ^= state_of_dice << 13;
    state_of_dice ^= state_of_dice >> 7;
    state_of_dice ^= state_of_dice << 17;
    return state_of_dice;
}

/* ---- numbers ---- */

static size_t write_digits(char *at, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        at[i] = (char)('0' + dice() % 10);
    at[count] = '\0';
    return count;
}

/* As programs write them, mostly; sometimes as they might. */
static size_t write_number(char *at, unsigned kind)
{
    uint32_t bits = (uint32_t)dice();
    float value;
    memcpy(&value, &bits, sizeof value);
    switch (kind % 9) {
    case 0: return (size_t)sprintf(at, "%u", (unsigned)(dice() % 10001));
    case 1: return (size_t)sprintf(at, "%.17g", (double)(dice() >> 11) * 0x1p-53);
    case 2:
        return (size_t)sprintf(at, "%.*f", (int)(dice() % 12), (double)(int64_t)dice() * 0x1p-50);
    case 3: return (size_t)sprintf(at, "%d", (int)dice());
    case 4: return (size_t)sprintf(at, "%llu", (unsigned long long)(dice() >> dice() % 64));
    case 5:
        return (size_t)sprintf(at, "%.*g", 1 + (int)(dice() % 20),
                               isfinite(value) ? (double)value : 0.5);
    case 6: { /* halfway between two floats, or next to it */
        float low = (float)(dice() % 100000) / 64, high = nextafterf(low, 1e9f);
        return (size_t)sprintf(at, "%.*f", 8 + (int)(dice() % 24),
                               ((double)low + (double)high) / 2);
    }
    case 7: { /* many digits */
        size_t size = (size_t)sprintf(at, "%u.", (unsigned)(dice() % 4));
        return size + write_digits(at + size, 1 + (unsigned)(dice() % 34));
    }
    default: break;
    }
    return (size_t)sprintf(at, "%s0.%0*u", dice() % 2 ? "-" : "", (int)(dice() % 12) + 1,
                           (unsigned)(dice() % 1000));
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void test_each_number_is_strtofs(void **state)
{
    (void)state;
    static char text[TEXT_MAX];
    static float expected[VALUES], got[VALUES];
    for (unsigned done = 0; done < NUMBERS; done += VALUES) {
        size_t size = 0;
        unsigned kind = dice() % 10; /* 9: mixed */
        for (unsigned i = 0; i < VALUES; i++) {
            size_t length = write_number(text + size, kind < 9 ? kind : (unsigned)(dice() % 9));
            expected[i] = strtof(text + size, NULL);
            assert_true(isfinite(expected[i]));
            size += length;
            text[size++] = i + 1 < VALUES ? ',' : ']';
            if (dice() % 2)
                text[size++] = ' ';
        }
        for (int way = 0; way < JSON_ROWS_KINDS; way++) {
            struct json_row row = {text, text, text + size, got, VALUES, 0, false};
            if (!json_rows_usable((enum json_rows_kind)way))
                continue;
            ways[way](&row);
            assert_int_equal(row.stored, VALUES);
            assert_true(row.ended && *row.at == ']');
            for (unsigned i = 0; i < VALUES; i++)
                if (bits_of(got[i]) != bits_of(expected[i]))
                    fail_msg("way %d, number %u: %a, expected %a", way, i, (double)got[i],
                             (double)expected[i]);
        }
    }
}

/* ---- whole documents, in pieces ---- */

struct result {
    int status;
    struct unetserve_shape shape;
    size_t bytes;
    float values[4 * VALUES];
    struct problem problem;
};

/* Each piece is an allocation of its own, so that a sanitizer sees a read beyond it. */
static void read_document(const char *text, size_t size, size_t piece_max, struct result *result)
{
    static const struct unetserve_interface interface = {.input_dtypes = 1u << UNETSERVE_F32,
                                                         .input_field = "image",
                                                         .channels = 2,
                                                         .size_multiple = 1,
                                                         .size_min = 1,
                                                         .max_batch = 2};
    struct body_reader reader;
    memset(result, 0, sizeof *result);
    result->status = -1;
    if (body_reader_init(&reader, &interface, BODY_JSON, NULL, result->values,
                         sizeof result->values, NULL, NULL, &result->problem))
        return;
    for (size_t at = 0, length; at < size; at += length) {
        length = 1 + dice() % piece_max;
        length = length < size - at ? length : size - at;
        char *piece = malloc(length);
        assert_non_null(piece);
        memcpy(piece, text + at, length);
        int refused = body_reader_feed(&reader, piece, length, &result->problem);
        free(piece);
        if (refused)
            return;
    }
    result->status = body_reader_finish(&reader, &result->shape, &result->bytes, &result->problem);
}

static const char *space(void)
{
    static const char *const spaces[] = {"", "", "", "", " ", " ", "\n", "  ", "\t", "\r\n"};
    return spaces[dice() % (dice() % 8 ? 6 : 10)];
}

/* {"image": 2 x height x width} */
static size_t write_document(char *text, unsigned width, unsigned height, unsigned kind)
{
    size_t size = (size_t)sprintf(text, "{\"image\":%s[", space());
    for (unsigned c = 0; c < 2; c++) {
        size += (size_t)sprintf(text + size, "%s[%s", c ? "," : "", space());
        for (unsigned y = 0; y < height; y++) {
            size += (size_t)sprintf(text + size, "%s%s[%s", y ? "," : "", space(), space());
            for (unsigned x = 0; x < width; x++) {
                size += (size_t)sprintf(text + size, "%s%s", x ? "," : "", space());
                size += write_number(text + size, kind < 9 ? kind : (unsigned)(dice() % 9));
                size += (size_t)sprintf(text + size, "%s", dice() % 50 ? "" : space());
            }
            size += (size_t)sprintf(text + size, "]%s", space());
        }
        size += (size_t)sprintf(text + size, "]");
    }
    return size + (size_t)sprintf(text + size, "]}");
}

/* Something goes wrong in it, perhaps. */
static void spoil(char *text, size_t size)
{
    static const char bytes[] = "0019.-+eE,,]][{}\" \n\tx";
    text[dice() % size] = bytes[dice() % (sizeof bytes - 1)];
}

static void assert_same(const struct result *a, const struct result *b, const char *text)
{
    if (a->status != b->status || a->problem.status != b->problem.status ||
        strcmp(a->problem.body, b->problem.body) != 0)
        fail_msg("%d %s or %d %s: %.300s", a->status, a->problem.body, b->status, b->problem.body,
                 text);
    assert_int_equal(a->bytes, b->bytes);
    assert_memory_equal(&a->shape, &b->shape, sizeof a->shape);
    if (a->status == 0)
        assert_memory_equal(a->values, b->values, a->bytes);
}

/* Byte by byte nothing but the scanner reads: that is what the others are held against. */
static void test_all_ways_and_pieces_come_to_the_same(void **state)
{
    (void)state;
    static char text[TEXT_MAX];
    static struct result alone, other;
    unsigned accepted = 0, refused = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned width = 1 + (unsigned)(dice() % 90), height = 1 + (unsigned)(dice() % 3);
        size_t size = write_document(text, width, height, (unsigned)(dice() % 10));
        if (dice() % 2)
            spoil(text, size);
        json_rows_force(JSON_ROWS_PLAIN);
        read_document(text, size, 1, &alone);
        accepted += alone.status == 0;
        refused += alone.status != 0;
        for (int way = 0; way < JSON_ROWS_KINDS; way++) {
            static const size_t pieces[] = {TEXT_MAX, 7, 70, 200, 1000};
            if (!json_rows_usable((enum json_rows_kind)way))
                continue;
            json_rows_force((enum json_rows_kind)way);
            for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
                read_document(text, size, pieces[i], &other);
                assert_same(&alone, &other, text);
            }
        }
    }
    assert_true(accepted > ROUNDS / 4 && refused > ROUNDS / 8);
}

/* ---- what is not simple ---- */

static void test_what_is_no_number_stays(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "01,2]",   "00,2]",   "-,2]",  "-01,2]", "1.,2]",   ".5,2]",   "1.2.3,4]", "1e,2]",
        "1e+,2]",  "1 2,3]",  ",1]",   "]",      "+1,2]",   "1-2,3]",  "--1,2]",   "0x1,2]",
        "1e99,2]", "NaN,1]",  "1",     "1.5",    "12 ,3]",  "[1,2]",   "1}",       "\"1\",2]",
        "- 1,2]",  "1. 5,2]", "1..5]", "0-1]",   "0.-1,2]", "1e5.5,2]"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        for (int way = 0; way < JSON_ROWS_KINDS; way++) {
            char text[160];
            float values[80] = {0};
            if (!json_rows_usable((enum json_rows_kind)way))
                continue;
            /* Behind enough others that whole windows are read, and before some. */
            size_t size = (size_t)sprintf(text, "%s",
                                          "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16, 17, ");
            size_t before = size;
            size += (size_t)sprintf(text + size, "%s", texts[i]);
            struct json_row row = {text, text, text + size, values, 80, 0, false};
            ways[way](&row);
            assert_int_equal(row.stored, 17);
            assert_false(row.ended);
            assert_true(row.at <= text + before && row.at >= text + before - 1);
            for (unsigned k = 0; k < 17; k++)
                assert_true(values[k] == (float)(k + 1));
        }
    }
}

static void test_room_is_kept(void **state)
{
    (void)state;
    static const char text[] =
        "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,"
        "27,28,29,30,31,32,33,34,35,36,37,38,39,40]";
    for (int way = 0; way < JSON_ROWS_KINDS; way++)
        for (size_t room = 0; room <= 41; room++) {
            if (!json_rows_usable((enum json_rows_kind)way))
                continue;
            float *values = malloc((room + 1) * sizeof *values);
            assert_non_null(values);
            values[room] = -1;
            struct json_row row = {text, text, text + sizeof text - 1, values, room, 0, false};
            ways[way](&row);
            size_t most = room < 40 ? room : 40;
            assert_int_equal(row.stored, most);
            assert_int_equal(row.room, room - most);
            assert_int_equal(row.ended, room >= 40);
            assert_true(values[room] == -1);
            for (size_t i = 0; i < most; i++)
                assert_true(values[i] == (float)(i + 1));
            free(values);
        }
}

static void test_eight_digits(void **state)
{
    (void)state;
    uint32_t value = 0;
    assert_true(json_number_join_eight("12345678", &value));
    assert_int_equal(value, 12345678);
    char text[] = "00000000";
    for (int place = 0; place < 8; place++)
        for (int byte = 0; byte < 256; byte++) {
            text[place] = (char)byte;
            assert_int_equal(json_number_join_eight(text, &value), byte >= '0' && byte <= '9');
            text[place] = '0';
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_number_is_strtofs),
        cmocka_unit_test(test_all_ways_and_pieces_come_to_the_same),
        cmocka_unit_test(test_what_is_no_number_stays),
        cmocka_unit_test(test_room_is_kept),
        cmocka_unit_test(test_eight_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
