#include "lib/base64.h"

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

enum { NO_LETTER = -1, SPACE = -2, PADDING = -3 };

static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    switch (c) {
    case '+': return 62;
    case '/': return 63;
    case '=': return PADDING;
    case ' ':
    case '\t':
    case '\r':
    case '\n': return SPACE;
    default: return NO_LETTER;
    }
}

/* Four letters are there. */
static size_t give(struct base64 *base64, char *out)
{
    size_t count = 3 - base64->padding;
    for (size_t i = 0; i < count; i++)
        out[i] = (char)(base64->bits >> (16 - 8 * i));
    base64->bits = 0;
    base64->letters = 0;
    return count;
}

int base64_feed(struct base64 *base64, const char *text, size_t size, char *out, size_t *made)
{
    *made = 0;
    for (size_t i = 0; i < size; i++) {
        int value = value_of(text[i]);
        if (value == SPACE)
            continue;
        bool ended = base64->padding && base64->letters == 0;
        if (value == NO_LETTER || ended || (value != PADDING && base64->padding) ||
            (value == PADDING && base64->letters < 2))
            return -1;
        base64->padding += value == PADDING;
        base64->bits = base64->bits << 6 | (value == PADDING ? 0u : (uint32_t)value);
        if (++base64->letters == 4)
            *made += give(base64, out + *made);
    }
    return 0;
}

bool base64_whole(const struct base64 *base64)
{
    return base64->letters == 0;
}

void base64_encode(const void *bytes, size_t size, char *out)
{
    const uint8_t *from = bytes;
    for (size_t i = 0; i < size; i += 3, out += 4) {
        size_t left = size - i;
        uint32_t bits = (uint32_t)from[i] << 16 | (left > 1 ? (uint32_t)from[i + 1] << 8 : 0) |
                        (left > 2 ? from[i + 2] : 0);
        out[0] = letters[bits >> 18];
        out[1] = letters[bits >> 12 & 63];
        out[2] = left > 1 ? letters[bits >> 6 & 63] : '=';
        out[3] = left > 2 ? letters[bits & 63] : '=';
    }
}
