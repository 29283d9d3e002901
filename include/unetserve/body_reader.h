/*
 * Request bodies decoded as they arrive, straight into their destination (a slot's input area): a
 * JSON document with an array of numbers, an npy file, raw bytes with their shape given beside, a
 * file that is one of several kinds, or a document that is kept as it is. Works on any split of the
 * body into pieces, down to single bytes, and never holds more than a few hundred bytes of it. No
 * allocation.
 *
 * JSON: {"image": [[[...]]]}, any other keys skipped (but they must be valid JSON, nesting at most
 * 64 deep); rank 3 or 4; every list of one level of equal length; numbers only (no NaN, no
 * Infinity, none beyond float32's range). Becomes float32. Numbers are rounded to nearest, as
 * strtof does. The field twice is refused. In place of the array a string may stand, under that key
 * or under "image_data": a file (below) in base64. npy: versions 1 to 3, C order, (u)int8/16,
 * float16/32/64 (float64 becomes float32), either byte order; rank 3 or 4. raw: little-endian;
 * shape and type come from headers; int8..float64 as above. file: npy, or an image file (TIFF,
 * PNG), by its first bytes; or raw, if a shape was given and it is none of them. Image files are
 * kept as they are, to be expanded in a worker; they are refused here if what their heads say does
 * not fit the model. Forms (multipart, urlencoded): of an image model the one file in it, read as
 * above; of a model that takes documents the object of its fields (lib/form_document.h).
 * Floating-point bodies must be finite: NaN and infinities are refused with the
 * position of the first.
 */
#ifndef BODY_READER_H
#define BODY_READER_H

#include "unetserve/image_file.h"
#include "unetserve/model.h"
#include "unetserve/problem.h"

#include <stdbool.h>

enum body_format {
    BODY_JSON,
    BODY_NPY,
    BODY_RAW,
    BODY_DOCUMENT,
    BODY_FILE,
    BODY_MULTIPART,
    BODY_URLENCODED
};

/* Asks for a destination of at least `needed` bytes whose first `used` bytes equal those of the
 * current one (the callee copies them). Returns it and writes *capacity, or NULL after filling
 * *problem (413, 503). */
typedef void *body_grow(void *opaque, size_t used, size_t needed, size_t *capacity,
                        struct problem *problem);

struct body_reader; /* defined at the end, for embedding; touch nothing inside */

/* Start. interface: what the model takes (kept by reference). shape: from the headers, for
 * BODY_RAW; of BODY_FILE and BODY_MULTIPART the same, or of rank 0. The destination is 64-byte
 * aligned. 0, or -1 with *problem (a raw shape or type that the model does not take: 4xx at once).
 */
int body_reader_init(struct body_reader *reader, const struct unetserve_interface *interface,
                     enum body_format format, const struct unetserve_shape *shape,
                     void *destination, size_t capacity, body_grow *grow, void *grow_opaque,
                     struct problem *problem);

/* Forms only, and they must, between init and the first piece: a form's state is more than a reader
 * embeds, and is allocated here. content_type: for the boundary of BODY_MULTIPART. 0, or -1 with
 * *problem (400, 503). */
int body_reader_begin_form(struct body_reader *reader, const char *content_type,
                           struct problem *problem);

/* Frees what that allocated; of a reader that has none nothing. */
void body_reader_close(struct body_reader *reader);

/* The next piece of the body. 0, or -1 with *problem, as early as the bytes allow (an npy header
 * with the wrong shape is refused before its data). After -1 nothing else may be called. */
int body_reader_feed(struct body_reader *reader, const void *bytes, size_t size,
                     struct problem *problem);

/* Is the shape known that body_reader_finish will tell? Of raw bytes and documents at once, of npy
 * after its header, of JSON never before the end. */
bool body_reader_shape(const struct body_reader *reader, struct unetserve_shape *shape);

/* The body is whole. 0 with *shape (rank 0 for documents; of an image file the shape of what is in
 * it, once it is expanded) and *input_bytes, or -1 with *problem (truncated, key missing, wrong
 * shape). */
int body_reader_finish(struct body_reader *reader, struct unetserve_shape *shape,
                       size_t *input_bytes, struct problem *problem);

/* Bytes that it has written, decoded: of a binary body as many as came, but for elements that are
 * cut by the ends of pieces, which are written twice, and float64, which is halved. */
uint64_t body_reader_copied(const struct body_reader *reader);

/* After that: what kind of image file the input is; IMAGE_FILE_NONE: the tensor itself, or a
 * document. */
enum image_file body_reader_file(const struct body_reader *reader);

/* And: was it LitServe's {"image_data": "..."}? Then the answer is wanted in kind. */
bool body_reader_in_kind(const struct body_reader *reader);

/* Does a tensor fit what the model takes (type, rank, channels, sizes, multiple, batch)? 0, or -1
 * with *problem: 422 and a sentence with what was expected and what came. Also used by the ZeroMQ
 * front. */
int body_check_shape(const struct unetserve_interface *interface,
                     const struct unetserve_shape *shape, struct problem *problem);

/* The shape and type of a raw body from its two headers' values ("12,256,256", "uint16"). 0, or -1
 * with *problem (400). */
int body_parse_raw_headers(const char *shape_text, const char *dtype_text,
                           struct unetserve_shape *shape, struct problem *problem);

#include "unetserve/body_reader_state.h"

#endif
