/*
 * Request bodies that come compressed (Content-Encoding), unpacked as they arrive and handed on in
 * pieces. However much a few bytes unpack to, a call makes a bounded amount of it and then leaves
 * the rest of its input for the next one, so that no body keeps the gateway's loop for long. What
 * one body, and all bodies together, may take is bounded too.
 */
#ifndef GATEWAY_DECODING_H
#define GATEWAY_DECODING_H

#include "unetserve/problem.h"

#include <stddef.h>
#include <stdint.h>

/* For the header Accept-Encoding of a 415 (RFC 9110, 15.5.16). */
#define DECODING_ACCEPTED "gzip, deflate, zstd"

/* About as much is unpacked by one call of decoder_feed. */
#define DECODING_A_CALL (1u << 20)

/* A zstd frame that wants a larger window is refused (RFC 9659 has that limit for HTTP). */
#define DECODING_ZSTD_WINDOW_LOG 23

/* What all zstd decoders of the process may hold together; beyond it 503. */
#define DECODING_MEMORY_MAX ((size_t)64 << 20)

enum body_coding { BODY_PLAIN, BODY_GZIP, BODY_DEFLATE, BODY_ZSTD };

/* By Content-Encoding (NULL: absent). 0 with *coding, or -1 with *problem: 415 for what is not
 * known and for several codings, one over the other. */
int decoding_choose(const char *content_encoding, enum body_coding *coding,
                    struct problem *problem);

struct decoder;

/* Takes a piece of the unpacked body. 0, or -1 with *problem. */
typedef int decoder_take(void *opaque, const void *bytes, size_t size, struct problem *problem);

/* coding is not BODY_PLAIN; most_bytes: what the body may unpack to. NULL: no memory. */
struct decoder *decoder_open(enum body_coding coding, uint64_t most_bytes);

/* The next bytes. 0 with *used, how many of them are done with (feed the others again, in a later
 * call), or -1 with *problem: 400 broken, 413 too large, 503 no memory, or what take said. */
int decoder_feed(struct decoder *decoder, const void *bytes, size_t size, size_t *used,
                 decoder_take *take, void *opaque, struct problem *problem);

/* The body is over: is the compressed stream? 0, or -1 with *problem (400). */
int decoder_finish(const struct decoder *decoder, struct problem *problem);

void decoder_close(struct decoder *decoder); /* NULL is allowed */

#endif
