/*
 * A strict reader of the byte stream of one HTTP/1 connection: request heads, body framing, and the
 * next head after that. It keeps no text but the few values that decide about framing. Its purpose
 * is that two readers of one connection (a proxy before us, libmicrohttpd behind) can never
 * disagree about where a request ends: whatever the grammar of RFC 9112 leaves to the receiver's
 * kindness is refused here.
 *
 * Pure: no I/O, no allocation, any split of the stream into pieces gives the same verdict.
 */
#ifndef GATEWAY_HEAD_GATE_H
#define GATEWAY_HEAD_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAD_GATE_HEAD_MAX      16384 /* bytes of a head, its last CRLF included */
#define HEAD_GATE_TARGET_MAX    8192
#define HEAD_GATE_HEADERS_MAX   100
#define HEAD_GATE_EXTENSION_MAX 128  /* bytes of one chunk's extension */
#define HEAD_GATE_TRAILER_MAX   2048 /* bytes of all trailer fields */
#define HEAD_GATE_NAME_KEPT     20
#define HEAD_GATE_VALUE_KEPT    24

enum head_gate_state {
    GATE_START, /* before a request: one empty line is tolerated, as RFC 9112 asks */
    GATE_START_LF,
    GATE_METHOD,
    GATE_TARGET,
    GATE_VERSION,
    GATE_VERSION_LF,
    GATE_LINE, /* first byte of a field line, or the CR of the empty one */
    GATE_NAME,
    GATE_BEFORE_VALUE,
    GATE_VALUE,
    GATE_VALUE_LF,
    GATE_HEAD_LF,
    GATE_BODY, /* Content-Length bytes */
    GATE_CHUNK_SIZE,
    GATE_CHUNK_EXTENSION,
    GATE_CHUNK_SIZE_LF,
    GATE_CHUNK_DATA,
    GATE_CHUNK_CR,
    GATE_CHUNK_LF,
    GATE_REFUSED,
};

struct head_gate {
    enum head_gate_state state;
    uint32_t requests;   /* complete ones so far */
    uint32_t head_bytes; /* of this head; of the trailer section while in_trailer */
    uint32_t part_bytes; /* of the method, target, version, chunk size or extension being read */
    uint32_t headers;
    uint64_t body_left; /* of the body or the chunk */
    uint8_t minor;      /* HTTP/1.minor */
    bool empty_line_seen, in_trailer, has_length, has_coding;
    uint32_t hosts;
    uint32_t name_size, value_size; /* true sizes; what is kept is cut */
    char name[HEAD_GATE_NAME_KEPT]; /* lower case */
    char value[HEAD_GATE_VALUE_KEPT];
};

struct head_gate_report {
    int status;         /* 0, or the status to refuse with: 400, 414, 431, 505 */
    const char *reason; /* a sentence, static; NULL if status is 0 */
    size_t whole; /* bytes of this piece up to the end of the last request that it completed; 0 if
                     none */
};

void head_gate_init(struct head_gate *gate);

/* Read the next piece. Returns how many bytes of it are in order: size if report->status is 0, else
 * the offset of the byte that was refused. After a refusal the gate refuses everything. */
size_t head_gate_feed(struct head_gate *gate, const void *bytes, size_t size,
                      struct head_gate_report *report);

/* Between two requests, no byte of the next one seen? */
bool head_gate_idle(const struct head_gate *gate);

/* Has a head begun that is not complete yet? */
bool head_gate_in_head(const struct head_gate *gate);

#endif
