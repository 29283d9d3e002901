#include "unetserve/wire.h"

#include <errno.h>
#include <string.h>

/* A baton is five fixed little pieces of msgpack, so they are written and read here byte by byte:
 * nothing is allocated, whatever a message claims. Type bytes as in the msgpack specification. */
enum {
    PACK_ARRAY_OF_4 = 0x94,
    PACK_STRING_OF_3 = 0xa3,
    PACK_FIXINT_MAX = 0x7f,
    PACK_UINT8 = 0xcc,
    PACK_UINT16 = 0xcd,
    PACK_UINT32 = 0xce,
    PACK_UINT64 = 0xcf,
};

static unsigned char *write_big_endian(unsigned char *out, uint64_t value, size_t size)
{
    for (size_t i = size; i-- > 0; value >>= 8)
        out[i] = (unsigned char)value;
    return out + size;
}

static unsigned char *write_uint(unsigned char *out, uint64_t value)
{
    if (value <= PACK_FIXINT_MAX) {
        *out = (unsigned char)value;
        return out + 1;
    }
    if (value <= UINT32_MAX) {
        *out = PACK_UINT32;
        return write_big_endian(out + 1, value, 4);
    }
    *out = PACK_UINT64;
    return write_big_endian(out + 1, value, 8);
}

size_t wire_baton_write(const struct wire_baton *baton, unsigned char *bytes)
{
    static const unsigned char head[] = {PACK_ARRAY_OF_4, PACK_STRING_OF_3, 'j', 'o', 'b'};
    memcpy(bytes, head, sizeof head);
    unsigned char *end = bytes + sizeof head;
    end = write_uint(end, baton->slot);
    end = write_uint(end, baton->word);
    end = write_uint(end, baton->model);
    return (size_t)(end - bytes);
}

struct wire_cursor {
    const unsigned char *at;
    size_t left;
};

static int take(struct wire_cursor *cursor, size_t size, const unsigned char **out)
{
    if (cursor->left < size)
        return -EBADMSG;
    *out = cursor->at;
    cursor->at += size;
    cursor->left -= size;
    return 0;
}

/* Any of msgpack's forms of an unsigned integer: a client in another language may choose a longer
 * one than needed. */
static int read_uint(struct wire_cursor *cursor, uint64_t max, uint64_t *out)
{
    const unsigned char *type;
    const unsigned char *bytes;
    if (take(cursor, 1, &type))
        return -EBADMSG;
    uint64_t value = *type;
    if (*type > PACK_FIXINT_MAX) {
        if (*type < PACK_UINT8 || *type > PACK_UINT64)
            return -EBADMSG;
        size_t size = (size_t)1 << (*type - PACK_UINT8);
        if (take(cursor, size, &bytes))
            return -EBADMSG;
        value = 0;
        for (size_t i = 0; i < size; i++)
            value = value << 8 | bytes[i];
    }
    if (value > max)
        return -EBADMSG;
    *out = value;
    return 0;
}

/* "job", as a short string or as one with a length byte (str 8). */
static int read_kind(struct wire_cursor *cursor)
{
    const unsigned char *type;
    const unsigned char *text;
    if (take(cursor, 1, &type))
        return -EBADMSG;
    if (*type == 0xd9) {
        const unsigned char *length;
        if (take(cursor, 1, &length) || *length != 3)
            return -EBADMSG;
    } else if (*type != PACK_STRING_OF_3) {
        return -EBADMSG;
    }
    return take(cursor, 3, &text) || memcmp(text, "job", 3) != 0 ? -EBADMSG : 0;
}

int wire_baton_read(const void *bytes, size_t size, struct wire_baton *out)
{
    struct wire_cursor cursor = {bytes, size};
    const unsigned char *head;
    uint64_t slot;
    uint64_t word;
    uint64_t model;
    if (size > WIRE_BATON_MAX || take(&cursor, 1, &head) || *head != PACK_ARRAY_OF_4)
        return -EBADMSG;
    if (read_kind(&cursor) || read_uint(&cursor, UINT32_MAX, &slot) ||
        read_uint(&cursor, UINT64_MAX, &word) || read_uint(&cursor, UINT32_MAX, &model))
        return -EBADMSG;
    if (cursor.left)
        return -EBADMSG;
    *out = (struct wire_baton){.slot = (uint32_t)slot, .model = (uint32_t)model, .word = word};
    return 0;
}
