/* A gateway's end of a stream over whatever a broken worker wrote: counters and bytes are the
 * input. */
#include "gateway/items.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CAPACITY = 96 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ring_counts counts;
    struct items items;
    uint64_t produced;
    if (size < sizeof produced + 1)
        return 0;
    unsigned char *bytes = calloc(1, CAPACITY);
    if (!bytes)
        return 0;
    memcpy(&produced, data, sizeof produced);
    unsigned finish_after = data[sizeof produced];
    size_t rest = size - sizeof produced - 1;
    if (rest)
        memcpy(bytes, data + sizeof produced + 1, rest < CAPACITY ? rest : CAPACITY);
    ring_clear(&counts);
    atomic_store(&counts.produced, produced);
    items_begin(&items, &counts, bytes, CAPACITY);
    /* No more items than empty ones fit, the sentence, and the end. */
    for (unsigned i = 0; i < CAPACITY; i++) {
        const char *item;
        size_t item_size;
        bool wake;
        if (i == finish_after && items.live)
            items_finish(&items);
        enum items_next next = items_take(&items, &item, &item_size, &wake);
        if (next == ITEMS_END || next == ITEMS_BROKEN)
            break;
        if (next == ITEMS_ONE && item_size > PROBLEM_BODY_MAX)
            abort();
    }
    items_free(&items);
    free(bytes);
    return 0;
}
