/*
 * JSON's grammar (RFC 8259) as a stream of events, resumable at every byte, without memory for the
 * document. Numbers and strings longer than JSON_TOKEN_MAX: a number is an error, a string is
 * checked to its end and only its beginning is kept. Python's NaN, Infinity and -Infinity are told
 * as events of their own: the caller decides. A UTF-8 byte order mark in front is passed over.
 */
#ifndef JSON_SCAN_H
#define JSON_SCAN_H

#include "unetserve/body_reader.h"

enum json_event {
    SCAN_MORE, /* the piece is used up */
    SCAN_OPEN_LIST,
    SCAN_CLOSE_LIST,
    SCAN_OPEN_OBJECT,
    SCAN_CLOSE_OBJECT,
    SCAN_COMMA,      /* between two values of a list */
    SCAN_KEY,        /* scan->text: decoded, valid until the next call */
    SCAN_STRING,     /* the same */
    SCAN_TEXT,       /* scan->text: more of a string value, if scan->pieces was set before it; its
                        last piece is SCAN_STRING's text */
    SCAN_NUMBER,     /* scan->text: a number by the grammar */
    SCAN_LITERAL,    /* true, false, null: scan->text */
    SCAN_NOT_FINITE, /* NaN, Infinity, -Infinity: scan->text */
    SCAN_END,        /* json_scan_finish only */
    SCAN_ERROR       /* scan->error, scan->error_offset; nothing may be called after it */
};

/* A piece of the body and how far it has been read. */
struct json_piece {
    const char *start;
    const char *at;
    const char *end;
};

void json_scan_init(struct json_scan *scan);

/* The next event of this piece. After SCAN_MORE comes the next piece (scan->offset has moved on).
 */
enum json_event json_scan_next(struct json_scan *scan, struct json_piece *piece);

/* The text is whole: SCAN_NUMBER once if it ends with a bare number, then SCAN_END; or SCAN_ERROR.
 */
enum json_event json_scan_finish(struct json_scan *scan);

/* May a value of a list begin here? Then a caller may read values itself... */
bool json_scan_in_list_before_value(const struct json_scan *scan);

/* ...and say how far it came: just past a comma (closing: false), or just past a value. */
void json_scan_skip_values(struct json_scan *scan, bool after_value);

/* Is it one whole JSON value (without NaN and infinities)? */
bool json_is_valid(const char *text, size_t size);

#endif
