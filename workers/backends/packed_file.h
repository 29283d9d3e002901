/*
 * The file that holds a network's packed weights: a header, a table of sections, then the sections'
 * bytes. It is written once and mapped by every worker, so there is one copy in memory however many
 * there are. Its reader believes nothing: magic, version, sizes, two checksums and every offset are
 * checked before a byte of it is used. Numbers are this machine's own (the magic tells another
 * byte order): such a file is never carried from one machine to the next, it is made again.
 *
 * Pure: no system call, no device library.
 */
#ifndef PACKED_FILE_H
#define PACKED_FILE_H

#include <stddef.h>
#include <stdint.h>

/* Raise it with every change of this layout, and with every change of what folding or packing
 * makes of the same weights file. */
#define PACKED_VERSION      2u
#define PACKED_MAX_SECTIONS 4096u
#define PACKED_ALIGN_BYTES  64u   /* of a section */
#define PACKED_PAGE_BYTES   4096u /* where the first section begins */

/* A 128-bit hash (XXH3): of whatever decides what a file holds, or of a form. */
struct packed_hash {
    uint64_t low;
    uint64_t high;
};

enum packed_part { PACKED_WEIGHTS, PACKED_BIAS, PACKED_SCALES, PACKED_ENGINE };

/* One piece of the packed weights, in the table and to its writer. */
struct packed_section {
    uint32_t layer;
    uint32_t part;           /* enum packed_part */
    struct packed_hash form; /* how its bytes are laid out; the backend's */
    uint64_t offset;         /* in the file; a multiple of PACKED_ALIGN_BYTES */
    uint64_t bytes;
};

/* A file that was found to be whole. Points into the caller's memory. */
struct packed_view {
    const struct packed_section *sections;
    size_t count;
    const uint8_t *data; /* the file's first byte */
    size_t bytes;
};

/* The hash of some bytes. */
struct packed_hash packed_hash_of(const void *data, size_t bytes);

/* Check a file from front to back; data must lie at an address that is a multiple of 8. 0 with
 * *out, or -EBADMSG with *why, a few words in static storage. */
int packed_file_read(const void *data, size_t bytes, const struct packed_hash *key,
                     struct packed_view *out, const char **why);

/* The section of that layer, part and form, or NULL. */
const struct packed_section *packed_file_find(const struct packed_view *view, uint32_t layer,
                                              enum packed_part part,
                                              const struct packed_hash *form);

/* Everything that precedes the sections' bytes, to be written in front of them. sections[i].bytes,
 * layer, part and form are given and offset is set; pieces[i] are the bytes. Gaps between sections
 * are zeros, and the file ends with the last section. *file_bytes is its size. The head is
 * *head_bytes long; free it with free(). 0, -ENOMEM, -EINVAL (too many sections, an empty one). */
int packed_file_head(const struct packed_hash *key, struct packed_section *sections,
                     const void *const *pieces, size_t count, void **head, size_t *head_bytes,
                     uint64_t *file_bytes);

/* Give a file, or a head alone, checksums that fit again: for tests and fuzzers, which would else
 * never get past them. Its size is believed no more than by the reader. */
void packed_file_seal(void *data, size_t bytes);

#endif
