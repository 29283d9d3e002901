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
    POWER_MAX = 22,        /* largest power of ten that a double holds exactly */
    STEPS_MAX = 4          /* of powers up to that one */
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
 * mantissa * 10^exponent in double takes one rounding of the mantissa and one each for at most
 * STEPS_MAX operations, so it is off by less than six units in its last place (next to nothing for
 * dropped digits). Rounding that to float32 is right unless a midpoint between two floats lies
 * within the error: a midpoint is a double whose low 29 bits are 1000...0. Subnormal floats have
 * others.
 */
bool json_number_round(uint64_t mantissa, int exponent, float *out)
{
    static const double powers[POWER_MAX + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                 1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                                 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    double value = (double)mantissa;
    if (mantissa == 0 || exponent == 0) {
        *out = (float)mantissa;
        return true;
    }
    if (exponent < -STEPS_MAX * POWER_MAX || exponent > STEPS_MAX * POWER_MAX)
        return false;
    for (; exponent < -POWER_MAX; exponent += POWER_MAX)
        value /= powers[POWER_MAX];
    for (; exponent > POWER_MAX; exponent -= POWER_MAX)
        value *= powers[POWER_MAX];
    value = exponent < 0 ? value / powers[-exponent] : value * powers[exponent];
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    int64_t from_midpoint = (int64_t)(bits & 0x1fffffff) - 0x10000000;
    if ((from_midpoint > -8 && from_midpoint < 8) || value > 3e38 || value < 1.2e-38)
        return false;
    *out = (float)value;
    return true;
}

int json_number_parse(const char *text, size_t size, float *out)
{
    assert(size > 0 && size <= JSON_TOKEN_MAX);
    struct decimal decimal = take_apart(text, size);
    float value;
    /* With digits dropped the mantissa alone is not the number. */
    bool whole = decimal.dropped == 0 || decimal.exponent != 0;
    if (!whole || !json_number_round(decimal.mantissa, decimal.exponent, &value)) {
        value = fabsf(round_by_library(text, size));
        if (isinf(value))
            return -ERANGE;
    }
    *out = decimal.negative ? -value : value;
    return 0;
}

bool json_number_join_eight(const char *text, uint32_t *out)
{
    uint64_t digits;
    memcpy(&digits, text, sizeof digits);
    digits = le64toh(digits) ^ UINT64_C(0x3030303030303030);
    /* A byte above 9, or what carries into one, gets its top bit set. */
    if (((digits + UINT64_C(0x7676767676767676)) | digits) & UINT64_C(0x8080808080808080))
        return false;
    *out = json_number_join(digits);
    return true;
}
