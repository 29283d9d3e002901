#include "arena.h"

#include <stdlib.h>

static int larger_first(const void *a, const void *b)
{
    const struct arena_block *x = *(const struct arena_block *const *)a;
    const struct arena_block *y = *(const struct arena_block *const *)b;
    if (x->bytes != y->bytes) {
        return x->bytes > y->bytes ? -1 : 1;
    }
    return x < y ? -1 : x > y;
}

/* First fit among the blocks that are already placed (order[0..placed), by offset) and live at the
 * same time. */
static size_t first_fit(struct arena_block *const *order, size_t placed,
                        const struct arena_block *block)
{
    size_t offset = 0;
    for (size_t i = 0; i < placed; i++) {
        const struct arena_block *other = order[i];
        if (other->last < block->first || other->first > block->last) {
            continue;
        }
        if (other->offset >= offset + block->bytes) {
            break;
        }
        size_t end = other->offset + other->bytes;
        offset = end > offset ? end : offset;
    }
    return offset;
}

size_t arena_place(struct arena_block *blocks, struct arena_block **order, size_t count,
                   size_t align_bytes)
{
    size_t needed = 0;
    for (size_t i = 0; i < count; i++) {
        blocks[i].bytes = (blocks[i].bytes + align_bytes - 1) / align_bytes * align_bytes;
        order[i] = &blocks[i];
    }
    qsort(order, count, sizeof(struct arena_block *), larger_first);
    for (size_t i = 0; i < count && order[i]->bytes > 0; i++) {
        struct arena_block *block = order[i];
        block->offset = first_fit(order, i, block);
        if (block->result != NULL) {
            *block->result = block->offset;
        }
        size_t end = block->offset + block->bytes;
        needed = end > needed ? end : needed;
        size_t at = i;
        while (at > 0 && order[at - 1]->offset > block->offset) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = block;
    }
    return needed;
}
