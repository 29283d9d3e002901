/*
 * A directory of packed weights, one file a key (LAYOUT_PACKED_PREFIX begins its name), shared by
 * the workers of a server, and by one server after the other.
 *
 * A file is written under another name, whole, and then renamed: what has its final name is never
 * written to and never cut, only unlinked, so a mapping of it cannot lose its pages. It belongs to
 * this user and nobody else can open it; a directory in which somebody else could put files is not
 * used. Of several workers that miss the same file one writes it, under a lock that goes with its
 * process, and the others wait for a bounded time. Nothing here is ever needed: a worker without
 * cache packs its own.
 */
#ifndef PACKED_CACHE_H
#define PACKED_CACHE_H

#include "packed_file.h"

#include <stdbool.h>

/* When a file is written, others go: those not used for so long, and beyond so many bytes, or a
 * quarter of the file system, those not used for longest. */
#define PACKED_CACHE_DAYS      30
#define PACKED_CACHE_MAX_BYTES (UINT64_C(1) << 30)

/* A file, mapped for reading and shared. */
struct packed_map {
    struct packed_view view;
};

/* The right to write a file. */
struct packed_draft {
    int directory;
    int fd;
    struct packed_hash key;
};

/* Map the file of that key. 0 with *out (give it back with packed_cache_unmap); -ENOENT: there is
 * none; another negative errno with a sentence in note: it is no good, or the directory is not. */
int packed_cache_map(const char *directory, const struct packed_hash *key, struct packed_map *out,
                     char *note, size_t note_size);
void packed_cache_unmap(struct packed_map *map);

/* Wait until this process alone may write the file of that key (look once more then: somebody may
 * have written it before this call), calling tick(opaque) (NULL: not) at
 * least ten times a second. 0 with *out, to be ended by packed_cache_commit or
 * packed_cache_abandon; -EEXIST: another process has written it meanwhile; -ETIMEDOUT: another
 * holds the right for longer than wait_ms; or another negative errno with a sentence in note. */
int packed_cache_begin(const char *directory, const struct packed_hash *key, uint32_t wait_ms,
                       void (*tick)(void *), void *opaque, struct packed_draft *out, char *note,
                       size_t note_size);

/* Write the file and let it appear; then remove what is old (see above). Ends the draft in every
 * case. 0, or a negative errno with a sentence in note, and there is no file. */
int packed_cache_commit(struct packed_draft *draft, struct packed_section *sections,
                        const void *const *pieces, size_t count, char *note, size_t note_size);
void packed_cache_abandon(struct packed_draft *draft);

#endif
