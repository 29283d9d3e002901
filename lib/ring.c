#include "unetserve/ring.h"

#include <errno.h>
#include <string.h>

#define LENGTH_BYTES 4u

void ring_clear(struct ring_counts *counts)
{
    atomic_store_explicit(&counts->produced, 0, memory_order_relaxed);
    atomic_store_explicit(&counts->consumed, 0, memory_order_relaxed);
    atomic_store_explicit(&counts->waiting, 0, memory_order_relaxed);
}

static void copy_in(struct ring *ring, uint64_t at, const void *bytes, size_t size)
{
    size_t place = (size_t)(at % ring->capacity);
    size_t first = size < ring->capacity - place ? size : (size_t)(ring->capacity - place);
    if (first)
        memcpy(ring->bytes + place, bytes, first);
    if (size > first)
        memcpy(ring->bytes, (const char *)bytes + first, size - first);
}

static void copy_out(const struct ring *ring, uint64_t at, void *bytes, size_t size)
{
    size_t place = (size_t)(at % ring->capacity);
    size_t first = size < ring->capacity - place ? size : (size_t)(ring->capacity - place);
    if (first)
        memcpy(bytes, ring->bytes + place, first);
    if (size > first)
        memcpy((char *)bytes + first, ring->bytes, size - first);
}

/* ---- producer ---- */

int ring_put(struct ring *ring, const void *bytes, size_t size)
{
    if (ring->capacity < LENGTH_BYTES || size > ring->capacity - LENGTH_BYTES || size > UINT32_MAX)
        return -EMSGSIZE;
    /* Acquire: what is written next comes after the consumer's last look at that place. */
    uint64_t used = ring->own - atomic_load_explicit(&ring->counts->consumed, memory_order_acquire);
    if (used > ring->capacity)
        return -EBADMSG;
    if (size + LENGTH_BYTES > ring->capacity - used)
        return -EAGAIN;
    const unsigned char length[LENGTH_BYTES] = {(unsigned char)size, (unsigned char)(size >> 8),
                                                (unsigned char)(size >> 16),
                                                (unsigned char)(size >> 24)};
    copy_in(ring, ring->own, length, LENGTH_BYTES);
    copy_in(ring, ring->own + LENGTH_BYTES, bytes, size);
    ring->own += LENGTH_BYTES + size;
    atomic_store_explicit(&ring->counts->produced, ring->own, memory_order_release);
    return 0;
}

bool ring_wait(struct ring *ring, size_t size)
{
    /* Sequentially consistent, as in ring_take: one of the two sees the other's store. */
    atomic_store(&ring->counts->waiting, 1);
    uint64_t used = ring->own - atomic_load(&ring->counts->consumed);
    return used > ring->capacity || size + LENGTH_BYTES <= ring->capacity - used;
}

/* ---- consumer ---- */

int ring_next(const struct ring *ring, size_t *size)
{
    uint64_t there = atomic_load_explicit(&ring->counts->produced, memory_order_acquire) -
                     ring->own;
    if (there == 0)
        return -EAGAIN;
    if (there > ring->capacity || there < LENGTH_BYTES)
        return -EBADMSG;
    unsigned char length[LENGTH_BYTES];
    copy_out(ring, ring->own, length, LENGTH_BYTES);
    size_t item = length[0] | (size_t)length[1] << 8 | (size_t)length[2] << 16 |
                  (size_t)length[3] << 24;
    if (item > there - LENGTH_BYTES)
        return -EBADMSG;
    *size = item;
    return 0;
}

bool ring_take(struct ring *ring, void *bytes, size_t size)
{
    copy_out(ring, ring->own + LENGTH_BYTES, bytes, size);
    ring->own += LENGTH_BYTES + size;
    atomic_store(&ring->counts->consumed, ring->own);
    return atomic_load(&ring->counts->waiting) && atomic_exchange(&ring->counts->waiting, 0);
}

int ring_size(const struct ring *ring, size_t *size)
{
    uint64_t there = atomic_load_explicit(&ring->counts->produced, memory_order_acquire) -
                     ring->own;
    if (there > ring->capacity)
        return -EBADMSG;
    *size = (size_t)there;
    return 0;
}

void ring_detach(struct ring *ring, struct ring_counts *counts, void *bytes, size_t size)
{
    if (size)
        copy_out(ring, ring->own, bytes, size);
    ring_clear(counts);
    atomic_store_explicit(&counts->produced, size, memory_order_relaxed);
    *ring = (struct ring){.counts = counts, .bytes = bytes, .capacity = size};
}
