/*
 * An instance of a backend whose packed weights all workers share: from the file of its key if
 * there is one, else it packs them and writes the file, if no other worker is doing so.
 */
#ifndef PACKED_SHARE_H
#define PACKED_SHARE_H

#include "backend.h"
#include "packed_cache.h"

/* How a backend makes its instances; each returns 0 or a negative errno. */
struct packed_maker {
    void *opaque;
    /* With the file's weights. On success the mapping is the instance's to unmap. */
    int (*adopt)(void *opaque, const struct packed_map *packed, void **instance);
    int (*pack)(void *opaque, void **instance); /* with weights of its own */
    /* Write the instance's weights. Ends the draft. */
    int (*write)(void *opaque, void *instance, struct packed_draft *draft, char *note,
                 size_t note_size);
    void (*destroy)(void *instance);
};

/* options->cache_dir says where; without one the instance packs for itself. What the maker
 * returned, if nothing else helps. */
int packed_share(const struct backend_options *options, const struct packed_hash *key,
                 const struct packed_maker *maker, void **instance);

/* The sections of a file that is to be written. */
struct packed_collection {
    struct packed_section *sections; /* NULL, as pieces may be: out of memory */
    const void **pieces;
    size_t count;
};

void packed_collection_begin(struct packed_collection *all, size_t most);

/* Add one; at most as many as packed_collection_begin was told. The bytes must stay where they are
 * until packed_collection_commit. */
void packed_collect(struct packed_collection *all, uint32_t layer, enum packed_part part,
                    struct packed_hash form, const void *data, size_t bytes);

/* Write them; ends the draft and the collection. 0, or a negative errno with a sentence in note. */
int packed_collection_commit(struct packed_collection *all, struct packed_draft *draft, char *note,
                             size_t note_size);

#endif
