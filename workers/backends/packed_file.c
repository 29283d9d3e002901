#include "packed_file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct head {
    char magic[4];
    uint32_t order;              /* BYTE_ORDER_MARK, as this machine writes it */
    struct packed_hash checksum; /* of everything from version to data_offset */
    uint32_t version;
    uint32_t count;
    struct packed_hash key;
    struct packed_hash data_checksum; /* of everything from data_offset on */
    uint64_t data_offset;
    uint64_t file_bytes;
};

#define BYTE_ORDER_MARK 0x01020304u
#define CHECKED_FROM    offsetof(struct head, version)

static const char magic[4] = {'U', 'N', 'S', 'P'};

_Static_assert(sizeof(struct head) == 80 && sizeof(struct packed_section) == 40,
               "the file's structures have no padding");

static struct packed_hash hash_from(XXH128_hash_t hash)
{
    return (struct packed_hash){hash.low64, hash.high64};
}

struct packed_hash packed_hash_of(const void *data, size_t bytes)
{
    return hash_from(XXH3_128bits(data, bytes));
}

static bool same_hash(const struct packed_hash *a, const struct packed_hash *b)
{
    return a->low == b->low && a->high == b->high;
}

static uint64_t round_up(uint64_t value, uint64_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

static uint64_t data_offset_for(size_t count)
{
    uint64_t end = sizeof(struct head) + count * sizeof(struct packed_section);
    return round_up(end, PACKED_PAGE_BYTES);
}

/* Of a head whose data_offset lies within what is there. */
static struct packed_hash head_checksum(const struct head *head)
{
    return packed_hash_of((const uint8_t *)head + CHECKED_FROM,
                          (size_t)head->data_offset - CHECKED_FROM);
}

/* ---- reading ---- */

static const char *check_head(const struct head *head, size_t bytes, const struct packed_hash *key)
{
    if (memcmp(head->magic, magic, sizeof magic) != 0 || head->order != BYTE_ORDER_MARK) {
        return "no file of packed weights";
    }
    if (head->version != PACKED_VERSION) {
        return "another version";
    }
    if (head->file_bytes != bytes) {
        return "cut off, or grown";
    }
    if (head->count == 0 || head->count > PACKED_MAX_SECTIONS ||
        head->data_offset != data_offset_for(head->count) || head->data_offset > bytes) {
        return "impossible sizes";
    }
    struct packed_hash found = head_checksum(head);
    if (!same_hash(&found, &head->checksum)) {
        return "a damaged head";
    }
    return same_hash(&head->key, key) ? NULL : "other weights";
}

static bool section_fits(const struct packed_section *section, const struct head *head)
{
    return section->offset >= head->data_offset && section->offset <= head->file_bytes &&
           section->offset % PACKED_ALIGN_BYTES == 0 && section->bytes > 0 &&
           section->bytes <= head->file_bytes - section->offset;
}

int packed_file_read(const void *data, size_t bytes, const struct packed_hash *key,
                     struct packed_view *out, const char **why)
{
    const struct head *head = (const struct head *)data;
    const char *problem = bytes < sizeof *head ? "too short" : check_head(head, bytes, key);
    if (problem != NULL) {
        *why = problem;
        return -EBADMSG;
    }
    const struct packed_section *sections = (const struct packed_section *)(head + 1);
    for (size_t i = 0; i < head->count; i++) {
        if (!section_fits(&sections[i], head)) {
            *why = "a section outside the file";
            return -EBADMSG;
        }
    }
    const uint8_t *first = (const uint8_t *)data + head->data_offset;
    struct packed_hash found = packed_hash_of(first, bytes - head->data_offset);
    if (!same_hash(&found, &head->data_checksum)) {
        *why = "damaged weights";
        return -EBADMSG;
    }
    *out = (struct packed_view){sections, head->count, (const uint8_t *)data, bytes};
    return 0;
}

const struct packed_section *packed_file_find(const struct packed_view *view, uint32_t layer,
                                              enum packed_part part, const struct packed_hash *form)
{
    for (size_t i = 0; i < view->count; i++) {
        const struct packed_section *section = &view->sections[i];
        if (section->layer == layer && section->part == (uint32_t)part &&
            same_hash(&section->form, form)) {
            return section;
        }
    }
    return NULL;
}

/* ---- writing ---- */

/* What the reader will find when it hashes the sections and the zeros between them. */
static int hash_pieces(const struct packed_section *sections, const void *const *pieces,
                       size_t count, struct packed_hash *out)
{
    static const uint8_t zeros[PACKED_ALIGN_BYTES];
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) {
        return -ENOMEM;
    }
    (void)XXH3_128bits_reset(state);
    for (size_t i = 0; i < count; i++) {
        uint64_t end = sections[i].offset + sections[i].bytes;
        (void)XXH3_128bits_update(state, pieces[i], (size_t)sections[i].bytes);
        if (i + 1 < count) {
            (void)XXH3_128bits_update(state, zeros, (size_t)(sections[i + 1].offset - end));
        }
    }
    *out = hash_from(XXH3_128bits_digest(state));
    (void)XXH3_freeState(state);
    return 0;
}

static void place_sections(struct packed_section *sections, size_t count, uint64_t from,
                           uint64_t *file_bytes)
{
    uint64_t end = from;
    for (size_t i = 0; i < count; i++) {
        sections[i].offset = round_up(end, PACKED_ALIGN_BYTES);
        end = sections[i].offset + sections[i].bytes;
    }
    *file_bytes = end;
}

int packed_file_head(const struct packed_hash *key, struct packed_section *sections,
                     const void *const *pieces, size_t count, void **head, size_t *head_bytes,
                     uint64_t *file_bytes)
{
    if (count == 0 || count > PACKED_MAX_SECTIONS) {
        return -EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        if (sections[i].bytes == 0) {
            return -EINVAL;
        }
    }
    struct head made = {.order = BYTE_ORDER_MARK,
                        .version = PACKED_VERSION,
                        .count = (uint32_t)count,
                        .key = *key,
                        .data_offset = data_offset_for(count)};
    memcpy(made.magic, magic, sizeof magic);
    place_sections(sections, count, made.data_offset, &made.file_bytes);
    uint8_t *bytes = (uint8_t *)calloc(1, (size_t)made.data_offset);
    if (bytes == NULL || hash_pieces(sections, pieces, count, &made.data_checksum) != 0) {
        free(bytes);
        return -ENOMEM;
    }
    memcpy(bytes, &made, sizeof made);
    memcpy(bytes + sizeof made, sections, count * sizeof *sections);
    packed_file_seal(bytes, (size_t)made.data_offset);
    *head = bytes;
    *head_bytes = (size_t)made.data_offset;
    *file_bytes = made.file_bytes;
    return 0;
}

void packed_file_seal(void *data, size_t bytes)
{
    struct head *head = (struct head *)data;
    if (bytes < sizeof *head || head->data_offset < sizeof *head || head->data_offset > bytes) {
        return;
    }
    if (head->file_bytes == bytes) {
        const uint8_t *first = (const uint8_t *)data + head->data_offset;
        head->data_checksum = packed_hash_of(first, bytes - (size_t)head->data_offset);
    }
    head->checksum = head_checksum(head);
}
