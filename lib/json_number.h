/* JSON's decimal numbers as float32. */
#ifndef JSON_NUMBER_H
#define JSON_NUMBER_H

#include <stdbool.h>
#include <stddef.h>

/* Round a number (by JSON's grammar, at most JSON_TOKEN_MAX bytes, not terminated) to the nearest
 * float32, ties to even, as strtof does. 0 with *out, or -ERANGE when it is beyond float32's range.
 * Too small ones become subnormal or zero. */
int json_number_parse(const char *text, size_t size, float *out);

/* Reads "7,42, 1000,..." (integers of up to seven digits, at most one space before each) as far as
 * it is simple, into at most room floats. Starts before a value; returns how far it read: either
 * just past a comma, or (*ended) just past a value that a closing bracket follows. *stored may be
 * 0. */
const char *json_number_read_integers(const char *text, const char *end, float *out, size_t room,
                                      size_t *stored, bool *ended);

#endif
