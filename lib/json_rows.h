/*
 * Rows of numbers in a JSON array, "0.25, 7,-1e3]", from text to float32 as fast as the processor
 * can. Three ways from one contract: plain C a number at a time, AVX2 and AVX-512 by windows of 64
 * bytes (json_rows_body.h), chosen by CPUID. All round as strtof does, and none takes what JSON's
 * grammar does not allow: what is not simple is left where it stands, for the scanner.
 */
#ifndef JSON_ROWS_H
#define JSON_ROWS_H

#include <stdbool.h>
#include <stddef.h>

/* Where a reader is in a row: before a value. */
struct json_row {
    const char *begin; /* of the piece of text, which may be read from here... */
    const char *at;
    const char *end; /* ...to here */
    float *out;      /* moves on with each number */
    size_t room;     /* floats that still fit */
    size_t stored;
    bool ended; /* the value before `at` was the last one: a bracket follows */
};

/* Reads as far as it is simple and there is room. Leaves row->at just past a comma, or (ended) at
 * the closing bracket, or where it was. */
typedef void json_rows_read(struct json_row *row);

/* One number, whatever its spelling. False: it is not whole, or not simple; nothing has changed. */
bool json_rows_step(struct json_row *row);

enum json_rows_kind { JSON_ROWS_PLAIN, JSON_ROWS_AVX2, JSON_ROWS_AVX512, JSON_ROWS_KINDS };

void json_rows_read_plain(struct json_row *row);
void json_rows_read_avx2(struct json_row *row);
void json_rows_read_avx512(struct json_row *row);

/* Has this processor what that way needs? */
bool json_rows_usable(enum json_rows_kind kind);

/* The best way for this processor; after json_rows_force, for tests, the one that it named. */
json_rows_read *json_rows_best(void);
void json_rows_force(enum json_rows_kind kind);

#endif
