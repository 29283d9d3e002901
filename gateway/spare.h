/*
 * Memory of one size, kept for the next who needs it. malloc takes its slow way for more than a
 * kilobyte, and a tiny request needs two such pieces: that was a thirtieth of its time.
 */
#ifndef GATEWAY_SPARE_H
#define GATEWAY_SPARE_H

#include <stddef.h>
#include <stdint.h>

/* A sanitizer should see each piece end. */
#ifdef __SANITIZE_ADDRESS__
#define SPARE_MAX 0u
#else
#define SPARE_MAX 64u
#endif

struct spare {
    size_t size;
    uint32_t count;
    void *pieces[SPARE_MAX + 1];
};

/* A piece with anything in it; NULL: no memory. */
void *spare_take(struct spare *spare);

/* Back again. NULL is allowed. */
void spare_give(struct spare *spare, void *piece);

/* All that is kept goes back to malloc. */
void spare_free(struct spare *spare);

#endif
