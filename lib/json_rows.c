#include "lib/json_rows.h"

#include "unetserve/body_reader.h"

#include "lib/json_number.h"

#include <endian.h>
#include <stdint.h>
#include <string.h>

enum { DIGITS_MAX = 19, EXPONENT_DIGITS_MAX = 4 };

/* A number that is being read. */
struct number {
    const char *at, *end;
    uint64_t mantissa;
    unsigned digits; /* of it, without zeros in front */
};

static bool is_digit_at(const struct number *number)
{
    return number->at < number->end && *number->at >= '0' && *number->at <= '9';
}

static bool take(struct number *number, char c)
{
    bool there = number->at < number->end && *number->at == c;
    number->at += there;
    return there;
}

/* Any digits. False: there is none. What has more than fit overflows, and is read again by another.
 */
static bool take_digits(struct number *number)
{
    const char *first = number->at;
    while (number->mantissa == 0 && take(number, '0'))
        ;
    const char *from = number->at;
    uint32_t eight;
    while (number->end - number->at >= 8 && json_number_join_eight(number->at, &eight)) {
        number->mantissa = number->mantissa * 100000000 + eight;
        number->at += 8;
    }
    for (; is_digit_at(number); number->at++)
        number->mantissa = number->mantissa * 10 + (uint64_t)(*number->at - '0');
    number->digits += (unsigned)(number->at - from);
    return number->at > first;
}

/* False: there is something that is no exponent, or a long one. */
static bool take_exponent(struct number *number, int *exponent)
{
    if (!take(number, 'e') && !take(number, 'E'))
        return true;
    bool negative = take(number, '-');
    if (!negative)
        take(number, '+');
    const char *first = number->at;
    int value = 0;
    for (; is_digit_at(number); number->at++) {
        if (number->at - first == EXPONENT_DIGITS_MAX)
            return false;
        value = value * 10 + (*number->at - '0');
    }
    *exponent += negative ? -value : value;
    return number->at > first;
}

static bool is_leading_zero(const struct number *number)
{
    return number->end - number->at >= 2 && number->at[0] == '0' && number->at[1] >= '0' &&
           number->at[1] <= '9';
}

/* By JSON's grammar. *exponent goes with the mantissa. */
static bool take_number(struct number *number, bool *negative, int *exponent)
{
    *exponent = 0;
    *negative = take(number, '-');
    if (is_leading_zero(number) || !take_digits(number))
        return false;
    if (take(number, '.')) {
        const char *fraction = number->at;
        if (!take_digits(number))
            return false;
        *exponent = -(int)(number->at - fraction);
    }
    return take_exponent(number, exponent);
}

bool json_rows_step(struct json_row *row)
{
    struct number number = {.at = row->at, .end = row->end};
    while (take(&number, ' ') || take(&number, '\n') || take(&number, '\r') || take(&number, '\t'))
        ;
    const char *first = number.at;
    bool negative;
    int exponent;
    if (number.end - first > JSON_TOKEN_MAX)
        number.end = first + JSON_TOKEN_MAX;
    if (row->room == 0 || !take_number(&number, &negative, &exponent) || number.at == number.end ||
        (*number.at != ',' && *number.at != ']'))
        return false;
    float value = 0;
    bool rounded = number.digits <= DIGITS_MAX &&
                   json_number_round(number.mantissa, exponent, &value);
    if (rounded)
        value = negative ? -value : value;
    else if (json_number_parse(first, (size_t)(number.at - first), &value))
        return false;
    *row->out++ = value;
    row->room--;
    row->stored++;
    row->ended = *number.at == ']';
    row->at = number.at + !row->ended;
    return true;
}

/* The common case: at most one space, one to seven digits, and what follows them. */
static bool step_small(struct json_row *row)
{
    if (row->room == 0 || row->end - row->at < 10)
        return false;
    const char *number = row->at + (*row->at == ' ');
    uint64_t digits;
    memcpy(&digits, number, sizeof digits);
    digits = le64toh(digits) ^ UINT64_C(0x3030303030303030);
    /* The lowest byte above 9 gets its top bit set here; what carries do above it does not matter.
     */
    uint64_t other = ((digits + UINT64_C(0x7676767676767676)) | digits) &
                     UINT64_C(0x8080808080808080);
    unsigned bits = other ? (unsigned)__builtin_ctzll(other) - 7 : 0;
    bool leading_zero = (digits & 0xff) == 0 && bits > 8;
    char after = number[bits / 8];
    if (bits == 0 || leading_zero || (after != ',' && after != ']'))
        return false;
    *row->out++ = (float)json_number_join(digits << (64 - bits));
    row->room--;
    row->stored++;
    row->ended = after == ']';
    row->at = number + bits / 8 + !row->ended;
    return true;
}

void json_rows_read_plain(struct json_row *row)
{
    while (!row->ended && (step_small(row) || json_rows_step(row)))
        ;
}

/* ---- which ---- */

static json_rows_read *const ways[JSON_ROWS_KINDS] = {
    [JSON_ROWS_PLAIN] = json_rows_read_plain,
    [JSON_ROWS_AVX2] = json_rows_read_avx2,
    [JSON_ROWS_AVX512] = json_rows_read_avx512,
};

bool json_rows_usable(enum json_rows_kind kind)
{
    bool bits = __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                __builtin_cpu_supports("popcnt");
    switch (kind) {
    case JSON_ROWS_AVX512:
        return bits && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2");
    case JSON_ROWS_AVX2: return bits && __builtin_cpu_supports("avx2");
    case JSON_ROWS_PLAIN:
    case JSON_ROWS_KINDS: break;
    }
    return kind == JSON_ROWS_PLAIN;
}

static json_rows_read *chosen;

json_rows_read *json_rows_best(void)
{
    if (chosen)
        return chosen;
    int kind = JSON_ROWS_AVX512;
    while (!json_rows_usable((enum json_rows_kind)kind))
        kind--;
    json_rows_force((enum json_rows_kind)kind);
    return chosen;
}

void json_rows_force(enum json_rows_kind kind)
{
    chosen = ways[kind];
}
