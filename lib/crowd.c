#include "unetserve/crowd.h"

#include "unetserve/queue.h"

#define COUNT_BITS 20

_Static_assert(sizeof(((struct crowd_block *)0)->addresses[0]) == 64, "a set is a cache line");
_Static_assert((CROWD_SETS & (CROWD_SETS - 1)) == 0, "a hash's low bits choose the set");

/* The set and the tag take different bits. */
static uint64_t tag_of(uint64_t hash)
{
    uint64_t tag = hash >> COUNT_BITS;
    return (tag ? tag : 1) << COUNT_BITS;
}

void crowd_open(struct crowd *crowd, const struct queue *queue, uint32_t seats, uint32_t seat,
                uint16_t index)
{
    *crowd = (struct crowd){.queue = queue,
                            .seats = seats < CROWD_GATEWAYS ? seats : CROWD_GATEWAYS};
    if (!queue->crowds || seat >= crowd->seats)
        return;
    struct crowd_block *mine = crowd->mine = &queue->crowds[seat];
    atomic_store(&mine->holder, 0);
    atomic_store(&mine->count, 0);
    atomic_store(&mine->waiting, 0);
    /* What was never used stays memory that the kernel need not find. */
    for (size_t i = 0; atomic_load(&mine->used) && i < CROWD_SETS; i++)
        for (size_t way = 0; way < CROWD_WAYS; way++)
            atomic_store_explicit(&mine->addresses[i][way], 0, memory_order_relaxed);
    atomic_store(&mine->used, 0);
    atomic_store(&mine->holder, index);
}

/* Does whoever wrote that block live? An index may be another seat's by now. */
static bool block_counts(const struct crowd *crowd, uint32_t seat)
{
    const struct queue *queue = crowd->queue;
    uint32_t holder = atomic_load(&queue->crowds[seat].holder);
    return holder && queue_process_is(queue, holder, QUEUE_GATEWAY) &&
           atomic_load(&queue->processes[holder].seat) == seat;
}

/* The next one after *seat that is not ours and counts; false: that was all. */
static bool other_next(const struct crowd *crowd, uint32_t *seat)
{
    if (!crowd->mine)
        return false;
    while (++*seat < crowd->seats)
        if (&crowd->queue->crowds[*seat] != crowd->mine && block_counts(crowd, *seat))
            return true;
    return false;
}

#define NO_SEAT UINT32_MAX /* one before the first */

uint32_t crowd_total(const struct crowd *crowd)
{
    uint32_t total = crowd->count;
    for (uint32_t seat = NO_SEAT; other_next(crowd, &seat);)
        total += atomic_load(&crowd->queue->crowds[seat].count);
    return total;
}

static void count_tell(struct crowd *crowd)
{
    if (crowd->mine)
        atomic_store(&crowd->mine->count, crowd->count);
}

bool crowd_take(struct crowd *crowd, uint32_t most)
{
    crowd->count++;
    count_tell(crowd);
    if (crowd_total(crowd) <= most)
        return true;
    crowd_give(crowd);
    return false;
}

void crowd_give(struct crowd *crowd)
{
    crowd->count--;
    count_tell(crowd);
}

void crowd_wait(struct crowd *crowd, bool waiting)
{
    if (crowd->mine)
        atomic_store(&crowd->mine->waiting, waiting);
}

bool crowd_somebody_waits(const struct crowd *crowd)
{
    if (crowd->mine && atomic_load(&crowd->mine->waiting))
        return true;
    for (uint32_t seat = NO_SEAT; other_next(crowd, &seat);)
        if (atomic_load(&crowd->queue->crowds[seat].waiting))
            return true;
    return false;
}

_Atomic uint64_t *crowd_address_place(struct crowd *crowd, uint64_t hash)
{
    if (!crowd->mine)
        return NULL;
    _Atomic uint64_t *set = crowd->mine->addresses[hash % CROWD_SETS];
    for (unsigned i = 0; i < CROWD_WAYS; i++)
        if (atomic_load_explicit(&set[i], memory_order_relaxed) == 0) {
            atomic_store(&crowd->mine->used, 1);
            return &set[i];
        }
    return NULL;
}

void crowd_address_set(_Atomic uint64_t *place, uint64_t hash, uint32_t count)
{
    if (place)
        atomic_store(place, count ? tag_of(hash) | (count & CROWD_COUNT_MAX) : 0);
}

uint32_t crowd_address_elsewhere(const struct crowd *crowd, uint64_t hash)
{
    uint32_t count = 0;
    for (uint32_t seat = NO_SEAT; other_next(crowd, &seat);) {
        const _Atomic uint64_t *set = crowd->queue->crowds[seat].addresses[hash % CROWD_SETS];
        for (unsigned i = 0; i < CROWD_WAYS; i++) {
            uint64_t word = atomic_load(&set[i]);
            if (word >> COUNT_BITS << COUNT_BITS == tag_of(hash))
                count += (uint32_t)(word & CROWD_COUNT_MAX);
        }
    }
    return count;
}
