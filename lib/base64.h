/* Base64 (RFC 4648, 4) in pieces: with padding, white space between the letters passed over. */
#ifndef BASE64_H
#define BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct base64 {
    uint32_t bits;   /* of the letters that wait for the rest of their four */
    uint8_t letters; /* how many there are, padding included */
    uint8_t padding; /* once there is any, nothing else may follow */
};

/* Bytes that size letters make at most, whatever came before. */
#define BASE64_MADE(size) (((size) / 4 + 1) * 3)

/* The next letters, into out, which has room for BASE64_MADE(size) bytes. 0, or -1: this is no
 * base64. Either way *made bytes came of what stands before. */
int base64_feed(struct base64 *base64, const char *text, size_t size, char *out, size_t *made);

/* Did it end with four letters, and where padding stands? */
bool base64_whole(const struct base64 *base64);

/* Letters that encode size bytes. */
#define BASE64_LETTERS(size) (((size) + 2) / 3 * 4)

/* Encode all of size bytes into BASE64_LETTERS(size) letters, without a terminator. */
void base64_encode(const void *bytes, size_t size, char *out);

#endif
