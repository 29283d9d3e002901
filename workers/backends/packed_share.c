#include "packed_share.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long a worker waits for another one that packs the same weights, before it packs its own. */
#define PACKING_WAIT_MS 30000u
#define NOTE_BYTES      512

struct sharing {
    const struct backend_options *options;
    const struct packed_hash *key;
    const struct packed_maker *maker;
};

static void say(const struct sharing *s, int level, const char *text)
{
    if (s->options->log != NULL && text[0] != '\0') {
        s->options->log(s->options->opaque, level, text);
    }
}

/* From the file, if it is there and good. If not, text says what is wrong with it. */
static int adopt(const struct sharing *s, void **out, char *text, size_t size)
{
    const char *directory = s->options->cache_dir;
    struct packed_map packed;
    int code = packed_cache_map(directory, s->key, &packed, text, size);
    if (code != 0) {
        return code;
    }
    size_t bytes = packed.view.bytes;
    code = s->maker->adopt(s->maker->opaque, &packed, out);
    if (code != 0) {
        packed_cache_unmap(&packed);
        snprintf(text, size, "packed weights in %s do not fit: %s", directory, strerror(-code));
        return code;
    }
    snprintf(text, size, "packed weights mapped from %s, %zu bytes", directory, bytes);
    say(s, 6, text);
    return 0;
}

/* Pack, write the file, and go over to it, so that this worker too has no copy of its own. */
static int pack_and_share(const struct sharing *s, struct packed_draft *draft, void **out)
{
    const struct packed_maker *maker = s->maker;
    char text[NOTE_BYTES] = "";
    void *shared = NULL;
    int code = maker->pack(maker->opaque, out);
    if (code != 0) {
        packed_cache_abandon(draft);
        return code;
    }
    if (maker->write(maker->opaque, *out, draft, text, sizeof text) != 0) {
        say(s, 4, text);
        return 0;
    }
    snprintf(text, sizeof text, "packed weights written to %s", s->options->cache_dir);
    say(s, 6, text);
    if (adopt(s, &shared, text, sizeof text) != 0) {
        say(s, 4, text);
        return 0;
    }
    maker->destroy(*out);
    *out = shared;
    (void)malloc_trim(0); /* a worker that packed shall not be larger than the others for ever */
    return 0;
}

int packed_share(const struct backend_options *options, const struct packed_hash *key,
                 const struct packed_maker *maker, void **instance)
{
    struct sharing s = {options, key, maker};
    char text[NOTE_BYTES] = "";
    char reason[NOTE_BYTES] = "";
    struct packed_draft draft;
    if (options->cache_dir == NULL) {
        return maker->pack(maker->opaque, instance);
    }
    int code = adopt(&s, instance, text, sizeof text);
    if (code == 0) {
        return 0;
    }
    code = packed_cache_begin(options->cache_dir, key, PACKING_WAIT_MS, options->tick,
                              options->opaque, &draft, reason, sizeof reason);
    if (code == 0 && adopt(&s, instance, text, sizeof text) == 0) {
        packed_cache_abandon(&draft); /* another finished between our look and our lock */
        return 0;
    }
    if (code == 0) {
        say(&s, 4, text);
        return pack_and_share(&s, &draft, instance);
    }
    if (code == -EEXIST && adopt(&s, instance, reason, sizeof reason) == 0) {
        return 0;
    }
    say(&s, 4, reason);
    return maker->pack(maker->opaque, instance);
}

/* ---- writing ---- */

void packed_collection_begin(struct packed_collection *all, size_t most)
{
    all->sections = (struct packed_section *)calloc(most, sizeof *all->sections);
    all->pieces = (const void **)calloc(most, sizeof *all->pieces);
    all->count = 0;
}

void packed_collect(struct packed_collection *all, uint32_t layer, enum packed_part part,
                    struct packed_hash form, const void *data, size_t bytes)
{
    if (all->sections == NULL || all->pieces == NULL) {
        return;
    }
    all->sections[all->count] = (struct packed_section){
        .layer = layer, .part = (uint32_t)part, .form = form, .bytes = bytes};
    all->pieces[all->count++] = data;
}

int packed_collection_commit(struct packed_collection *all, struct packed_draft *draft, char *note,
                             size_t note_size)
{
    int error = -ENOMEM;
    if (all->sections == NULL || all->pieces == NULL) {
        snprintf(note, note_size, "out of memory");
        packed_cache_abandon(draft);
    } else {
        error = packed_cache_commit(draft, all->sections, all->pieces, all->count, note, note_size);
    }
    free(all->sections);
    free((void *)all->pieces);
    return error;
}
