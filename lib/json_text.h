/*
 * JSON written into a buffer of fixed size. What does not fit is left out in whole units, so that
 * the text stays valid JSON: never half an escape, never half a UTF-8 sequence.
 */
#ifndef JSON_TEXT_H
#define JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_text {
    char *start;
    size_t size;   /* of the buffer */
    size_t length; /* written, without the terminator */
};

/* An empty text over a buffer of at least one byte; it is terminated after every call. */
void json_text_init(struct json_text *text, char *buffer, size_t size);

/* Append as it is: all of it, or nothing when it does not fit. Returns whether it fitted. */
bool json_text_raw(struct json_text *text, const char *piece);

/* Append an unsigned number, all or nothing. */
bool json_text_number(struct json_text *text, uint64_t number);

/* Append a finite number as Python's repr writes a float: the shortest digits that read back to the
 * same number; a point or an exponent always; an exponent from 1e16 on and below 1e-4. */
bool json_text_float(struct json_text *text, double number);

/* Append a JSON string, quotes included, in at most budget bytes (at least 5); a longer one is cut
 * and ends with "...". Bytes that are not UTF-8 become U+FFFD. Returns false, with nothing
 * appended, only when even the budget does not fit. */
bool json_text_quote(struct json_text *text, const char *string, size_t string_size, size_t budget);

#endif
