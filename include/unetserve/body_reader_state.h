/*
 * What a body reader keeps between two pieces of a body. Included by body_reader.h so that a
 * connection can embed it; only the reader's own sources touch what is inside.
 */
#ifndef BODY_READER_STATE_H
#define BODY_READER_STATE_H

#include "unetserve/body_reader.h"

#include "lib/base64.h"

#define JSON_DEPTH_MAX 64
#define JSON_TOKEN_MAX 400 /* bytes of one number, or of one string that is looked at */

/* Where the decoded bytes go. */
struct body_sink {
    char *data;
    size_t capacity;
    body_grow *grow;
    void *opaque;
    uint64_t copied; /* bytes written there, or kept for a moment */
};

/* The grammar of JSON, resumable at every byte. */
struct json_scan {
    uint64_t offset;       /* of the current piece's first byte in the whole body */
    uint64_t objects;      /* bit d - 1: the container at depth d is an object, else a list */
    uint64_t token_offset; /* where the current number, string or literal began */
    uint64_t error_offset;
    const char *error; /* static text; NULL: none */
    const char *text;  /* the last event's number or decoded string: in the piece or in token */
    size_t text_size;
    size_t token_size;
    uint32_t escape;    /* \uXXXX so far */
    uint32_t surrogate; /* a first half that waits for its second; 0: none */
    uint8_t depth;
    uint8_t state; /* enum json_state, in json_scan.c */
    uint8_t literal;
    uint8_t matched; /* characters of the literal, or hex digits of the escape */
    uint8_t
        utf8_left; /* continuation bytes still to come, the next one within [utf8_low, utf8_high] */
    uint8_t utf8_low;
    uint8_t utf8_high;
    bool in_key;
    bool pieces;    /* the next value, if it is a string, comes as SCAN_TEXTs */
    bool token_cut; /* the string was longer than token */
    char token[JSON_TOKEN_MAX];
};

/* Takes a piece of a string that stands in the array's place. 0, or -1 with *problem. */
typedef int json_array_text(void *opaque, const char *text, size_t size, struct problem *problem);

/* One array of numbers in a JSON document. */
struct json_array {
    struct json_scan scan;
    const struct unetserve_interface *interface;
    uint64_t values;   /* stored so far */
    uint64_t count[4]; /* items so far in the open list of each level */
    uint64_t least[4]; /* how many it must have at least, and at most; equal once they are known */
    uint64_t most[4];
    uint32_t level;        /* open lists inside the field */
    uint32_t rank;         /* 0 until the first number */
    bool started;          /* the top-level object is open */
    bool inside;           /* within the field's value */
    bool seen;             /* the field came */
    bool is_text;          /* and its value is a string */
    bool in_kind;          /* it is "image_data", as LitServe's ImageInput has it */
    json_array_text *text; /* takes that string; NULL: it must be an array */
    void *opaque;
};

/* The elements of an npy or raw body. */
struct body_elements {
    struct unetserve_shape shape; /* as sent */
    uint64_t total;
    uint64_t done;
    size_t source_size; /* bytes of an element as sent */
    size_t stored_size; /* and as stored */
    bool swap;
    uint8_t partial_size; /* bytes of an element that a piece ended within */
    char partial[8];
};

struct body_form;

struct body_reader {
    const struct unetserve_interface *interface;
    enum body_format format; /* of the content */
    enum body_format
        wrap; /* what that comes in: BODY_JSON, a form's; else BODY_DOCUMENT, nothing */
    struct body_form *form; /* malloc'd; or NULL */
    struct body_sink sink;
    size_t
        header_needed; /* npy: bytes of header to collect before it can be looked at; 0: past it */
    size_t used;       /* bytes collected of that header, or of a document or file */
    enum image_file file;       /* that an input of BODY_FILE has turned out to be */
    struct unetserve_shape raw; /* of BODY_FILE, if it is neither npy nor an image */
    struct json_array json;
    struct base64 base64; /* of a file in a JSON string */
    struct body_elements elements;
};

#endif
