/* JSON's decimal numbers as float32. */
#ifndef JSON_NUMBER_H
#define JSON_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Round a number (by JSON's grammar, at most JSON_TOKEN_MAX bytes, not terminated) to the nearest
 * float32, ties to even, as strtof does. 0 with *out, or -ERANGE when it is beyond float32's range.
 * Too small ones become subnormal or zero. */
int json_number_parse(const char *text, size_t size, float *out);

/* Round mantissa * 10^exponent to the nearest float32, as strtof does; quick, and false where it is
 * not sure. */
bool json_number_round(uint64_t mantissa, int exponent, float *out);

/* Eight bytes with digits' values, the first digit in the lowest byte, as one number. */
static inline uint32_t json_number_join(uint64_t digits)
{
    const uint64_t mask = UINT64_C(0x000000ff000000ff);
    digits = digits * 10 + (digits >> 8); /* pairs, in every second byte */
    uint64_t high = (digits & mask) * UINT64_C(0x000f424000000064);        /* 1000000 and 100 */
    uint64_t low = ((digits >> 16) & mask) * UINT64_C(0x0000271000000001); /* 10000 and 1 */
    return (uint32_t)((high + low) >> 32);
}

/* Eight digits as one number; false if the eight bytes are something else. */
bool json_number_join_eight(const char *text, uint32_t *out);

#endif
