/*
 * Where values lie in one stretch of memory whose parts are used again as soon as nobody needs what
 * was there. Pure arithmetic.
 */
#ifndef ARENA_H
#define ARENA_H

#include <stddef.h>

#define ARENA_ALIGN_BYTES 4096u /* of the CPU's */

/* Something that is in use from step `first` to step `last`. */
struct arena_block {
    size_t bytes; /* 0: it needs no place; is rounded up */
    size_t first; /* SIZE_MAX: never */
    size_t last;
    size_t offset;  /* is set */
    size_t *result; /* is set to it too; or NULL */
};

/* Place them, the largest first, each at the first address that is free while it is in use. order:
 * room for `count` pointers. Offsets are multiples of align_bytes. The bytes that they need
 * together. */
size_t arena_place(struct arena_block *blocks, struct arena_block **order, size_t count,
                   size_t align_bytes);

#endif
