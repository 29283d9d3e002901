#include "lib/utf8.h"

#include <assert.h>

int utf8_lead(uint8_t byte, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (byte < 0x80)
        return 0;
    if (byte >= 0xc2 && byte <= 0xdf)
        return 1;
    if (byte >= 0xe0 && byte <= 0xef) {
        if (byte == 0xe0)
            *low = 0xa0; /* below: overlong */
        if (byte == 0xed)
            *high = 0x9f; /* above: surrogates */
        return 2;
    }
    if (byte >= 0xf0 && byte <= 0xf4) {
        if (byte == 0xf0)
            *low = 0x90; /* below: overlong */
        if (byte == 0xf4)
            *high = 0x8f; /* above: beyond U+10FFFF */
        return 3;
    }
    return -1;
}

size_t utf8_sequence_length(const char *text, size_t size)
{
    uint8_t low, high;
    int more = utf8_lead((uint8_t)text[0], &low, &high);
    if (more < 0 || (size_t)more + 1 > size)
        return 0;
    for (int i = 1; i <= more; i++) {
        uint8_t byte = (uint8_t)text[i];
        if (byte < low || byte > high)
            return 0;
        low = 0x80;
        high = 0xbf;
    }
    return (size_t)more + 1;
}

size_t utf8_encode(uint32_t code_point, char out[4])
{
    assert(code_point < 0x110000 && (code_point < 0xd800 || code_point > 0xdfff));
    if (code_point < 0x80) {
        out[0] = (char)code_point;
        return 1;
    }
    size_t more = code_point < 0x800 ? 1 : code_point < 0x10000 ? 2 : 3;
    static const uint8_t lead[4] = {0, 0xc0, 0xe0, 0xf0};
    for (size_t i = more; i > 0; i--) {
        out[i] = (char)(0x80 | (code_point & 0x3f));
        code_point >>= 6;
    }
    out[0] = (char)(lead[more] | code_point);
    return more + 1;
}
