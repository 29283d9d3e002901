/*
 * Answers made smaller: which coding a client takes (Accept-Encoding), and a compressor that works
 * in pieces, so that no answer, however large, keeps the gateway's loop for long.
 */
#ifndef GATEWAY_COMPRESS_H
#define GATEWAY_COMPRESS_H

#include "unetserve/config.h"
#include "unetserve/problem.h"

#include <stdbool.h>
#include <sys/types.h>

/* Bytes of an answer that one call of compressor_read takes at most. */
#define COMPRESS_PIECE (256u << 10)

enum coding { CODING_IDENTITY, CODING_GZIP, CODING_ZSTD };

/* From here on for all answers of the process. The configuration is kept by reference; NULL: off.
 */
void compress_configure(const struct config *config);

/* The coding that Accept-Encoding (NULL: absent) and the configuration agree on, of equal ones the
 * cheaper. 0 with *coding; or -1 with *problem (406) where not even the answer as it is will do. */
int compress_choose(const char *accept_encoding, enum coding *coding, struct problem *problem);

/* May answers of that type and size be compressed at all, for whoever asks for it? */
bool compress_fits(const char *type, size_t size);

/* As Content-Encoding has it. */
const char *compress_name(enum coding coding);

struct compressor;

/* Takes over body (malloc'd), and frees it at compressor_close. NULL: no memory, and body is still
 * the caller's. */
struct compressor *compressor_open(enum coding coding, void *body, size_t size);

/* The next bytes, at least one; 0 at the end, or -EIO. */
ssize_t compressor_read(struct compressor *compressor, void *buffer, size_t size);

/* The body is the caller's again if keep_body. */
void compressor_close(struct compressor *compressor, bool keep_body);

#endif
