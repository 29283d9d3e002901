#include "lib/json_number.h"

#include "unetserve/body_reader.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DIGITS_MAX = 19,       /* significant digits that always fit 64 bits */
    EXPONENT_CLAMP = 9999, /* more than any float32 with JSON_TOKEN_MAX digits can need */
    POWER_MAX = 22         /* largest power of ten that a double holds exactly */
};

/* A number taken apart: its value is about mantissa * 10^exponent, exactly so if nothing was
 * dropped. */
struct decimal {
    uint64_t mantissa; /* the first DIGITS_MAX significant digits */
    int exponent;
    int digits;
    int dropped; /* digits that mantissa has no room for */
    bool negative;
};

static void add_digit(struct decimal *decimal, char c)
{
    if (decimal->digits == DIGITS_MAX) {
        decimal->dropped++;
        return;
    }
    decimal->mantissa = decimal->mantissa * 10 + (uint64_t)(c - '0');
    decimal->digits += decimal->mantissa != 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int parse_exponent(const char *text, const char *end)
{
    bool negative = *text == '-';
    if (*text == '-' || *text == '+')
        text++;
    int value = 0;
    for (; text < end; text++)
        if (value < EXPONENT_CLAMP)
            value = value * 10 + (*text - '0');
    if (value > EXPONENT_CLAMP)
        value = EXPONENT_CLAMP;
    return negative ? -value : value;
}

static struct decimal take_apart(const char *text, size_t size)
{
    const char *end = text + size;
    struct decimal decimal = {.negative = *text == '-'};
    if (decimal.negative)
        text++;
    for (; text < end && is_digit(*text); text++)
        add_digit(&decimal, *text);
    if (text < end && *text == '.')
        for (text++; text < end && is_digit(*text); text++) {
            add_digit(&decimal, *text);
            decimal.exponent--;
        }
    decimal.exponent += decimal.dropped;
    if (text < end)
        decimal.exponent += parse_exponent(text + 1, end);
    return decimal;
}

/* All digits without the point and the exponent that goes with them: so strtof sees no point, and
 * the locale's does not matter. */
static float round_by_library(const char *text, size_t size)
{
    char copy[JSON_TOKEN_MAX + 16];
    size_t length = 0;
    int exponent = 0;
    bool fraction = false;
    const char *end = text + size;
    for (; text < end && *text != 'e' && *text != 'E'; text++) {
        if (*text == '.') {
            fraction = true;
            continue;
        }
        exponent -= fraction;
        copy[length++] = *text;
    }
    if (text < end)
        exponent += parse_exponent(text + 1, end);
    snprintf(copy + length, sizeof copy - length, "e%d", exponent);
    return strtof(copy, NULL);
}

/*
 * mantissa / 10^n or * 10^n in double is off by less than two units in its last place (one half
 * each for the mantissa and the operation, next to nothing for dropped digits). Rounding that to
 * float32 is right unless a midpoint between two floats lies within the error: a midpoint is a
 * double whose low 29 bits are 1000...0.
 */
static bool round_by_double(const struct decimal *decimal, float *out)
{
    static const double powers[POWER_MAX + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                 1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                                 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (decimal->exponent < -POWER_MAX || decimal->exponent > POWER_MAX)
        return false;
    double value = (double)decimal->mantissa;
    value = decimal->exponent < 0 ? value / powers[-decimal->exponent]
                                  : value * powers[decimal->exponent];
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    int64_t from_midpoint = (int64_t)(bits & 0x1fffffff) - 0x10000000;
    if ((from_midpoint > -8 && from_midpoint < 8) || value > 3e38)
        return false;
    *out = (float)value; /* at least 1e-22: never subnormal */
    return true;
}

int json_number_parse(const char *text, size_t size, float *out)
{
    assert(size > 0 && size <= JSON_TOKEN_MAX);
    struct decimal decimal = take_apart(text, size);
    float value;
    if (decimal.mantissa == 0) {
        value = 0;
    } else if (decimal.exponent == 0 && decimal.dropped == 0) {
        value = (float)decimal.mantissa;
    } else if (!round_by_double(&decimal, &value)) {
        value = fabsf(round_by_library(text, size));
        if (isinf(value))
            return -ERANGE;
    }
    *out = decimal.negative ? -value : value;
    return 0;
}

/* Eight bytes with digits' values, the first digit in the lowest byte, as one number. */
static uint32_t join_digits(uint64_t digits)
{
    const uint64_t mask = UINT64_C(0x000000ff000000ff);
    digits = digits * 10 + (digits >> 8); /* pairs, in every second byte */
    uint64_t high = (digits & mask) * UINT64_C(0x000f424000000064);        /* 1000000 and 100 */
    uint64_t low = ((digits >> 16) & mask) * UINT64_C(0x0000271000000001); /* 10000 and 1 */
    return (uint32_t)((high + low) >> 32);
}

const char *json_number_read_integers(const char *text, const char *end, float *out, size_t room,
                                      size_t *stored, bool *ended)
{
    size_t count = 0;
    *ended = false;
    /* Ten bytes: a space, seven digits and what follows them, and eight of them are loaded at once.
     */
    while (count < room && end - text >= 10) {
        const char *number = text + (*text == ' ');
        uint64_t word;
        memcpy(&word, number, sizeof word);
        uint64_t digits = le64toh(word) ^ UINT64_C(0x3030303030303030);
        /* The lowest byte above 9 gets its top bit set here; what carries do above it does not
         * matter. */
        uint64_t other = ((digits + UINT64_C(0x7676767676767676)) | digits) &
                         UINT64_C(0x8080808080808080);
        if (other == 0)
            break;
        unsigned bits = (unsigned)__builtin_ctzll(other) - 7;
        unsigned length = bits / 8;
        if (bits == 0 || ((digits & 0xff) == 0 && length > 1))
            break;
        char after = number[length];
        out[count] = (float)join_digits(digits << (64 - bits));
        if (after != ',') {
            *ended = after == ']';
            count += *ended;
            text = *ended ? number + length : text;
            break;
        }
        count++;
        text = number + length + 1;
    }
    *stored = count;
    return text;
}
