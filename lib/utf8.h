/* UTF-8 as the Unicode standard defines it: no overlong forms, no surrogates, nothing above
 * U+10FFFF. */
#ifndef UTF8_H
#define UTF8_H

#include <stddef.h>
#include <stdint.h>

/* How many continuation bytes follow a first byte, with the bounds of the first of them; -1 for a
 * byte that begins nothing. */
int utf8_lead(uint8_t byte, uint8_t *low, uint8_t *high);

/* Length of the sequence at the start of text (1 to 4), or 0 if it is malformed or goes beyond
 * size. size is at least 1. */
size_t utf8_sequence_length(const char *text, size_t size);

/* Write a code point below 0x110000 that is no surrogate. Returns the bytes written, 1 to 4. */
size_t utf8_encode(uint32_t code_point, char out[4]);

#endif
