#include "gateway/items.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void items_begin(struct items *items, struct ring_counts *counts, void *bytes, uint64_t capacity)
{
    *items = (struct items){.live = true,
                            .ring = {.counts = counts, .bytes = bytes, .capacity = capacity}};
}

void items_free(struct items *items)
{
    free(items->rest);
    free(items->item);
    *items = (struct items){.live = false};
}

/* Nothing more from the ring. */
static void drop_ring(struct items *items)
{
    ring_clear(&items->counts);
    items->ring = (struct ring){.counts = &items->counts};
}

void items_break(struct items *items, const char *sentence, bool cut)
{
    items->live = false;
    items->broken = true;
    items->sentence = sentence;
    if (cut)
        drop_ring(items);
}

bool items_ready(const struct items *items)
{
    size_t size;
    return !items->live || ring_next(&items->ring, &size) != -EAGAIN;
}

void items_finish(struct items *items)
{
    size_t size;
    items->live = false;
    if (ring_size(&items->ring, &size)) {
        items_break(items, "The model's stream makes no sense", true);
        return;
    }
    items->rest = malloc(size ? size : 1);
    if (!items->rest)
        items_break(items, "Out of memory", true);
    else
        ring_detach(&items->ring, &items->counts, items->rest, size);
}

static enum items_next say_the_end(struct items *items, const char **bytes, size_t *size)
{
    if (!items->broken)
        return ITEMS_END;
    if (!items->sentence)
        return ITEMS_BROKEN;
    problem_set(&items->said, 500, "%s", items->sentence);
    items->sentence = NULL;
    *bytes = items->said.body;
    *size = strlen(items->said.body);
    return ITEMS_ONE;
}

static bool make_room(struct items *items, size_t size)
{
    if (size <= items->item_room && items->item)
        return true;
    void *larger = realloc(items->item, size ? size : 1);
    if (!larger)
        return false;
    items->item = larger;
    items->item_room = size;
    return true;
}

enum items_next items_take(struct items *items, const char **bytes, size_t *size, bool *wake)
{
    *wake = false;
    int error = ring_next(&items->ring, size);
    if (error == 0 && make_room(items, *size)) {
        *wake = ring_take(&items->ring, items->item, *size);
        *bytes = items->item;
        return ITEMS_ONE;
    }
    if (error != -EAGAIN)
        items_break(items, error ? "The model's stream makes no sense" : "Out of memory", true);
    return items->live ? ITEMS_NOT_YET : say_the_end(items, bytes, size);
}
