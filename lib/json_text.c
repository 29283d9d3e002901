#include "lib/json_text.h"

#include "lib/utf8.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void json_text_init(struct json_text *text, char *buffer, size_t size)
{
    assert(size > 0);
    *text = (struct json_text){.start = buffer, .size = size};
    buffer[0] = '\0';
}

static bool append(struct json_text *text, const char *bytes, size_t count)
{
    if (count >= text->size - text->length)
        return false;
    memcpy(text->start + text->length, bytes, count);
    text->length += count;
    text->start[text->length] = '\0';
    return true;
}

bool json_text_raw(struct json_text *text, const char *piece)
{
    return append(text, piece, strlen(piece));
}

bool json_text_number(struct json_text *text, uint64_t number)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%" PRIu64, number);
    return json_text_raw(text, digits);
}

/* "d.ddde+xx" without zeros at the end. Every decimal of up to 15 digits comes back from a double,
 * so 15 digits that read back to the number are its shortest ones, but for those zeros. */
static void shortest_digits(double number, char *digits, size_t size)
{
    for (int count = 15; count <= 17; count++) {
        snprintf(digits, size, "%.*e", count - 1, number);
        if (strtod(digits, NULL) == number)
            break;
    }
    char *exponent = strchr(digits, 'e');
    char *last = exponent - 1;
    while (*last == '0')
        last--;
    if (*last == '.')
        last--;
    memmove(last + 1, exponent, strlen(exponent) + 1);
}

bool json_text_float(struct json_text *text, double number)
{
    char digits[32];
    char plain[32];
    assert(isfinite(number));
    shortest_digits(number, digits, sizeof digits);
    const char *at = strchr(digits, 'e');
    int exponent = atoi(at + 1);
    if (exponent < -4 || exponent >= 16)
        return json_text_raw(text, digits);
    int sign = digits[0] == '-';
    int count = (int)(at - digits) - sign;
    int decimals = (count > 1 ? count - 2 : 0) - exponent;
    snprintf(plain, sizeof plain, "%.*f", decimals > 0 ? decimals : 1, number);
    return json_text_raw(text, plain);
}

/* One unit of a JSON string for what stands at the start of from: *used source bytes become *count
 * bytes at unit. */
static void quote_unit(const char *from, size_t size, char unit[8], size_t *count, size_t *used)
{
    unsigned char c = (unsigned char)from[0];
    size_t length = utf8_sequence_length(from, size);
    *used = length ? length : 1;
    if (length == 0) {
        *count = (size_t)snprintf(unit, 8, "\\ufffd");
    } else if (c == '"' || c == '\\') {
        unit[0] = '\\';
        unit[1] = (char)c;
        *count = 2;
    } else if (c < 0x20 || c == 0x7f) {
        *count = (size_t)snprintf(unit, 8, "\\u%04x", c);
    } else {
        memcpy(unit, from, length);
        *count = length;
    }
}

/* Bytes that the whole string takes between its quotes, or anything above limit when it is more
 * than that. */
static size_t quoted_size(const char *string, size_t size, size_t limit)
{
    size_t total = 0;
    for (size_t at = 0; at < size && total <= limit;) {
        char unit[8];
        size_t count, used;
        quote_unit(string + at, size - at, unit, &count, &used);
        total += count;
        at += used;
    }
    return total;
}

bool json_text_quote(struct json_text *text, const char *string, size_t string_size, size_t budget)
{
    static const char cut_mark[] = "...";
    assert(budget >= 2 + sizeof cut_mark - 1);
    size_t inner = budget - 2;
    bool cut = quoted_size(string, string_size, inner) > inner;
    if (cut)
        inner -= sizeof cut_mark - 1;
    else
        budget = 2 + quoted_size(string, string_size, inner);
    if (budget >= text->size - text->length)
        return false;

    append(text, "\"", 1);
    for (size_t at = 0, total = 0; at < string_size;) {
        char unit[8];
        size_t count, used;
        quote_unit(string + at, string_size - at, unit, &count, &used);
        if (total + count > inner)
            break;
        append(text, unit, count);
        total += count;
        at += used;
    }
    if (cut)
        append(text, cut_mark, sizeof cut_mark - 1);
    append(text, "\"", 1);
    return true;
}
