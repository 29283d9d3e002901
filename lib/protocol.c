/*
 * Heads are written by msgpack-c into the caller's buffer and read here by hand: msgpack-c's reader
 * allocates what an array header claims before it looks whether the bytes are there. This reader
 * allocates nothing, and never goes further than the bytes do.
 */
#include "unetserve/protocol.h"

#include <errno.h>
#include <math.h>
#include <msgpack.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char *const op_names[] = {"predict", "status"};
static const char *const accept_names[] = {"tensor", "json", "npy", "png"};

#define OP_COUNT     (sizeof op_names / sizeof *op_names)
#define ACCEPT_COUNT (sizeof accept_names / sizeof *accept_names)

/* ---- writing ---- */

struct head_buffer {
    unsigned char *bytes;
    size_t size;
    size_t used;
    bool full;
};

static int head_buffer_append(void *data, const char *bytes, size_t count)
{
    struct head_buffer *buffer = data;
    if (buffer->full || count > buffer->size - buffer->used) {
        buffer->full = true;
        return -1;
    }
    memcpy(buffer->bytes + buffer->used, bytes, count);
    buffer->used += count;
    return 0;
}

static void pack_text(msgpack_packer *packer, const char *text)
{
    size_t length = strlen(text);
    msgpack_pack_str(packer, length);
    msgpack_pack_str_body(packer, text, length);
}

static void pack_text_pair(msgpack_packer *packer, const char *key, const char *value)
{
    pack_text(packer, key);
    pack_text(packer, value);
}

static void pack_shape_pairs(msgpack_packer *packer, const struct unetserve_shape *shape)
{
    pack_text_pair(packer, "dtype", unetserve_dtype_name(shape->dtype));
    pack_text(packer, "shape");
    msgpack_pack_array(packer, shape->rank);
    for (uint32_t i = 0; i < shape->rank && i < UNETSERVE_MAX_DIMS; i++)
        msgpack_pack_uint64(packer, shape->dims[i]);
}

static void pack_time_pair(msgpack_packer *packer, const char *key, double milliseconds)
{
    pack_text(packer, key);
    msgpack_pack_double(packer, milliseconds);
}

static void pack_version_pair(msgpack_packer *packer)
{
    pack_text(packer, "v");
    msgpack_pack_uint64(packer, PROTOCOL_VERSION);
}

long protocol_request_write(const struct protocol_request *request, unsigned char *bytes,
                            size_t size)
{
    struct head_buffer buffer = {bytes, size, 0, false};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &buffer, head_buffer_append);
    bool shaped = request->shape.rank > 0;
    msgpack_pack_map(&packer, 3u + (request->id[0] != 0) + (request->model[0] != 0) +
                                  (shaped ? 2u : 0u) + (request->timeout_ms != 0));
    pack_version_pair(&packer);
    pack_text_pair(&packer, "op", op_names[request->op]);
    if (request->id[0])
        pack_text_pair(&packer, "id", request->id);
    if (request->model[0])
        pack_text_pair(&packer, "model", request->model);
    if (shaped)
        pack_shape_pairs(&packer, &request->shape);
    pack_text_pair(&packer, "accept", accept_names[request->accept]);
    if (request->timeout_ms) {
        pack_text(&packer, "timeout");
        msgpack_pack_uint64(&packer, request->timeout_ms);
    }
    return buffer.full ? -ENOSPC : (long)buffer.used;
}

long protocol_reply_write(const struct protocol_reply *reply, unsigned char *bytes, size_t size)
{
    struct head_buffer buffer = {bytes, size, 0, false};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &buffer, head_buffer_append);
    bool shaped = reply->shape.rank > 0;
    msgpack_pack_map(&packer, 4u + (shaped ? 2u : 0u) + (reply->type[0] != 0));
    pack_version_pair(&packer);
    pack_text_pair(&packer, "id", reply->id);
    pack_text(&packer, "status");
    msgpack_pack_uint32(&packer, reply->status);
    if (shaped)
        pack_shape_pairs(&packer, &reply->shape);
    if (reply->type[0])
        pack_text_pair(&packer, "type", reply->type);
    pack_text(&packer, "times");
    msgpack_pack_map(&packer, 4);
    pack_time_pair(&packer, "receive", reply->receive_ms);
    pack_time_pair(&packer, "queue", reply->queue_ms);
    pack_time_pair(&packer, "forward", reply->forward_ms);
    pack_time_pair(&packer, "encode", reply->encode_ms);
    return buffer.full ? -ENOSPC : (long)buffer.used;
}

/* ---- reading: one token after the other ---- */

struct head_cursor {
    const unsigned char *at;
    const unsigned char *end;
};

enum token_kind { TOKEN_UINT, TOKEN_REAL, TOKEN_TEXT, TOKEN_ARRAY, TOKEN_MAP, TOKEN_OTHER };

struct token {
    enum token_kind kind;
    uint64_t number; /* TOKEN_UINT: the value; TOKEN_TEXT: bytes; TOKEN_ARRAY: elements; TOKEN_MAP:
                        pairs */
    double real;
    const char *text; /* not terminated */
};

static const unsigned char *cursor_take(struct head_cursor *cursor, uint64_t count)
{
    if (count > (uint64_t)(cursor->end - cursor->at))
        return NULL;
    const unsigned char *bytes = cursor->at;
    cursor->at += count;
    return bytes;
}

/* A big-endian number of width bytes. */
static bool cursor_take_number(struct head_cursor *cursor, size_t width, uint64_t *out)
{
    const unsigned char *bytes = cursor_take(cursor, width);
    if (!bytes)
        return false;
    uint64_t number = 0;
    for (size_t i = 0; i < width; i++)
        number = number << 8 | bytes[i];
    *out = number;
    return true;
}

static bool token_read_text(struct head_cursor *cursor, uint64_t length, struct token *out)
{
    const unsigned char *bytes = cursor_take(cursor, length);
    if (!bytes)
        return false;
    *out = (struct token){.kind = TOKEN_TEXT, .number = length, .text = (const char *)bytes};
    return true;
}

static bool token_read_other(struct head_cursor *cursor, uint64_t length, struct token *out)
{
    *out = (struct token){.kind = TOKEN_OTHER};
    return cursor_take(cursor, length) != NULL;
}

/* Every element takes at least one byte, so a count that the bytes cannot hold is a lie. */
static bool token_read_count(struct head_cursor *cursor, enum token_kind kind, uint64_t count,
                             struct token *out)
{
    uint64_t values = kind == TOKEN_MAP ? 2 * count : count;
    *out = (struct token){.kind = kind, .number = count};
    return values <= (uint64_t)(cursor->end - cursor->at);
}

static bool token_read_real(struct head_cursor *cursor, size_t width, struct token *out)
{
    uint64_t bits;
    if (!cursor_take_number(cursor, width, &bits))
        return false;
    double real;
    if (width == 4) {
        uint32_t narrow = (uint32_t)bits;
        float single;
        memcpy(&single, &narrow, sizeof single);
        real = (double)single;
    } else {
        memcpy(&real, &bits, sizeof real);
    }
    *out = (struct token){.kind = TOKEN_REAL, .real = real};
    return true;
}

/* int8..int64: what is negative is of no use here, what is not is a number like any other. */
static bool token_read_signed(struct head_cursor *cursor, size_t width, struct token *out)
{
    uint64_t number;
    if (!cursor_take_number(cursor, width, &number))
        return false;
    bool negative = number >> (8 * width - 1) & 1;
    *out = (struct token){.kind = negative ? TOKEN_OTHER : TOKEN_UINT, .number = number};
    return true;
}

/* Types 0xc0 to 0xdf: a type byte, then a number or a length. */
static bool token_read_typed(struct head_cursor *cursor, unsigned char type, struct token *out)
{
    uint64_t length = 0;
    switch (type) {
    case 0xc0: /* nil, false, true */
    case 0xc2:
    case 0xc3: return token_read_other(cursor, 0, out);
    case 0xc4: /* bin: length in 1, 2 or 4 bytes */
    case 0xc5:
    case 0xc6:
        return cursor_take_number(cursor, (size_t)1 << (type - 0xc4), &length) &&
               token_read_other(cursor, length, out);
    case 0xc7: /* ext: length, a type byte, the bytes */
    case 0xc8:
    case 0xc9:
        return cursor_take_number(cursor, (size_t)1 << (type - 0xc7), &length) &&
               token_read_other(cursor, length + 1, out);
    case 0xca: return token_read_real(cursor, 4, out);
    case 0xcb: return token_read_real(cursor, 8, out);
    case 0xcc: /* uint */
    case 0xcd:
    case 0xce:
    case 0xcf:
        *out = (struct token){.kind = TOKEN_UINT};
        return cursor_take_number(cursor, (size_t)1 << (type - 0xcc), &out->number);
    case 0xd0: /* int */
    case 0xd1:
    case 0xd2:
    case 0xd3: return token_read_signed(cursor, (size_t)1 << (type - 0xd0), out);
    case 0xd4: /* fixext of 1, 2, 4, 8, 16 bytes and a type byte */
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8: return token_read_other(cursor, ((uint64_t)1 << (type - 0xd4)) + 1, out);
    case 0xd9: /* str */
    case 0xda:
    case 0xdb:
        return cursor_take_number(cursor, (size_t)1 << (type - 0xd9), &length) &&
               token_read_text(cursor, length, out);
    case 0xdc: /* array, map: length in 2 or 4 bytes */
    case 0xdd:
        return cursor_take_number(cursor, (size_t)2 << (type - 0xdc), &length) &&
               token_read_count(cursor, TOKEN_ARRAY, length, out);
    case 0xde:
    case 0xdf:
        return cursor_take_number(cursor, (size_t)2 << (type - 0xde), &length) &&
               token_read_count(cursor, TOKEN_MAP, length, out);
    default: return false; /* 0xc1 is no type */
    }
}

/* Read one token; arrays and maps give their count, and their elements come next. False: no
 * msgpack. */
static bool token_read(struct head_cursor *cursor, struct token *out)
{
    const unsigned char *byte = cursor_take(cursor, 1);
    if (!byte)
        return false;
    unsigned char type = *byte;
    if (type <= 0x7f) {
        *out = (struct token){.kind = TOKEN_UINT, .number = type};
        return true;
    }
    if (type <= 0x8f)
        return token_read_count(cursor, TOKEN_MAP, type & 0x0f, out);
    if (type <= 0x9f)
        return token_read_count(cursor, TOKEN_ARRAY, type & 0x0f, out);
    if (type <= 0xbf)
        return token_read_text(cursor, type & 0x1f, out);
    if (type >= 0xe0)
        return token_read_other(cursor, 0, out);
    return token_read_typed(cursor, type, out);
}

/* Go past one value with everything in it. No recursion: what is still to come is a number, and
 * bounded by the bytes. */
static bool value_skip(struct head_cursor *cursor)
{
    uint64_t pending = 1;
    while (pending > 0) {
        struct token token;
        if (!token_read(cursor, &token))
            return false;
        pending--;
        if (token.kind == TOKEN_ARRAY)
            pending += token.number;
        else if (token.kind == TOKEN_MAP)
            pending += 2 * token.number;
        if (pending > (uint64_t)(cursor->end - cursor->at))
            return false;
    }
    return true;
}

/* ---- reading: values of a head ---- */

static int complain(char *error, size_t error_size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int complain(char *error, size_t error_size, const char *format, ...)
{
    if (error_size > 0) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error, error_size, format, arguments);
        va_end(arguments);
    }
    return -EBADMSG;
}

static bool token_is(const struct token *token, const char *text)
{
    return token->number == strlen(text) && memcmp(token->text, text, token->number) == 0;
}

static bool value_read_uint(struct head_cursor *cursor, uint64_t *out)
{
    struct token token;
    if (!token_read(cursor, &token) || token.kind != TOKEN_UINT)
        return false;
    *out = token.number;
    return true;
}

/* Text without control characters, terminated: it goes into logs and HTTP-like fields. */
static bool value_read_text(struct head_cursor *cursor, char *out, size_t size)
{
    struct token token;
    if (!token_read(cursor, &token) || token.kind != TOKEN_TEXT || token.number >= size)
        return false;
    for (uint64_t i = 0; i < token.number; i++)
        if ((unsigned char)token.text[i] < 0x20 || token.text[i] == 0x7f)
            return false;
    memcpy(out, token.text, token.number);
    out[token.number] = 0;
    return true;
}

/* One of the names; its position. */
static bool value_read_name(struct head_cursor *cursor, const char *const *names, size_t count,
                            uint32_t *out)
{
    struct token token;
    if (!token_read(cursor, &token) || token.kind != TOKEN_TEXT)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (token_is(&token, names[i])) {
            *out = (uint32_t)i;
            return true;
        }
    }
    return false;
}

static bool value_read_dtype(struct head_cursor *cursor, uint32_t *out)
{
    char name[16];
    if (!value_read_text(cursor, name, sizeof name))
        return false;
    uint32_t dtype = unetserve_dtype_parse(name);
    if (dtype == UNETSERVE_NONE)
        return false;
    *out = dtype;
    return true;
}

static bool value_read_dims(struct head_cursor *cursor, struct unetserve_shape *shape)
{
    struct token token;
    if (!token_read(cursor, &token) || token.kind != TOKEN_ARRAY || token.number == 0 ||
        token.number > UNETSERVE_MAX_DIMS)
        return false;
    uint64_t dims[UNETSERVE_MAX_DIMS] = {0};
    for (uint64_t i = 0; i < token.number; i++)
        if (!value_read_uint(cursor, &dims[i]))
            return false;
    shape->rank = (uint32_t)token.number;
    memcpy(shape->dims, dims, sizeof dims);
    return true;
}

static bool value_read_times(struct head_cursor *cursor, struct protocol_reply *reply)
{
    struct token map;
    if (!token_read(cursor, &map) || map.kind != TOKEN_MAP)
        return false;
    const char *const names[] = {"receive", "queue", "forward", "encode"};
    double *const fields[] = {&reply->receive_ms, &reply->queue_ms, &reply->forward_ms,
                              &reply->encode_ms};
    for (uint64_t pair = 0; pair < map.number; pair++) {
        struct token key;
        struct token value;
        if (!token_read(cursor, &key) || key.kind != TOKEN_TEXT || !token_read(cursor, &value))
            return false;
        double time = value.kind == TOKEN_UINT ? (double)value.number : value.real;
        if ((value.kind != TOKEN_UINT && value.kind != TOKEN_REAL) || !isfinite(time))
            return false;
        for (size_t i = 0; i < 4; i++)
            if (token_is(&key, names[i]))
                *fields[i] = time;
    }
    return true;
}

/* ---- reading: the map ---- */

/* What a head turns into while it is read, and what it said. */
struct head_reading {
    struct protocol_request request;
    struct protocol_reply reply;
    bool has_version;
    bool has_op;
    bool has_status;
    bool has_dtype;
    bool has_shape;
    const char *expected; /* of the first value that did not fit */
};

/* Note what was expected unless the value fitted; the first such note is the one that is told. */
static bool field_note(struct head_reading *reading, bool fits, const char *expected)
{
    if (!fits && !reading->expected)
        reading->expected = expected;
    return fits;
}

/* Fields that requests and replies share; shape and id are those of whichever is read. */
static void field_read_common(struct head_cursor *cursor, const struct token *key, char *id,
                              struct unetserve_shape *shape, struct head_reading *reading)
{
    uint64_t version;
    if (token_is(key, "v"))
        reading->has_version = field_note(
            reading, value_read_uint(cursor, &version) && version == PROTOCOL_VERSION,
            "'v' must be 1, the version of the protocol");
    else if (token_is(key, "id"))
        field_note(reading, value_read_text(cursor, id, sizeof reading->request.id),
                   "'id' must be text of at most 63 printable bytes");
    else if (token_is(key, "dtype"))
        reading->has_dtype = field_note(
            reading, value_read_dtype(cursor, &shape->dtype),
            "'dtype' must be uint8, int8, uint16, int16, float16, float32 or float64");
    else if (token_is(key, "shape"))
        reading->has_shape = field_note(reading, value_read_dims(cursor, shape),
                                        "'shape' must be an array of 1 to 6 unsigned integers");
}

static void field_read_request(struct head_cursor *cursor, const struct token *key,
                               struct head_reading *reading)
{
    struct protocol_request *request = &reading->request;
    uint32_t position = 0;
    if (token_is(key, "op")) {
        reading->has_op = field_note(reading,
                                     value_read_name(cursor, op_names, OP_COUNT, &position),
                                     "'op' must be 'predict' or 'status'");
        request->op = (enum protocol_op)position;
    } else if (token_is(key, "accept")) {
        field_note(reading, value_read_name(cursor, accept_names, ACCEPT_COUNT, &position),
                   "'accept' must be 'tensor', 'json', 'npy' or 'png'");
        request->accept = (enum protocol_accept)position;
    } else if (token_is(key, "model")) {
        field_note(reading, value_read_text(cursor, request->model, sizeof request->model),
                   "'model' must be text of at most 63 printable bytes");
    } else if (token_is(key, "timeout")) {
        field_note(reading, value_read_uint(cursor, &request->timeout_ms),
                   "'timeout' must be an unsigned integer, milliseconds");
    } else {
        field_read_common(cursor, key, request->id, &request->shape, reading);
    }
}

static void field_read_reply(struct head_cursor *cursor, const struct token *key,
                             struct head_reading *reading)
{
    struct protocol_reply *reply = &reading->reply;
    uint64_t status = 0;
    if (token_is(key, "status")) {
        bool fits = value_read_uint(cursor, &status) && status >= 100 && status <= 599;
        reading->has_status = field_note(reading, fits,
                                         "'status' must be a number from 100 to 599");
        reply->status = (uint32_t)status;
    } else if (token_is(key, "type")) {
        field_note(reading, value_read_text(cursor, reply->type, sizeof reply->type),
                   "'type' must be text of at most 63 printable bytes");
    } else if (token_is(key, "times")) {
        field_note(reading, value_read_times(cursor, reply),
                   "'times' must be a map of names to finite numbers");
    } else {
        field_read_common(cursor, key, reply->id, &reply->shape, reading);
    }
}

/* Walk the whole map. A value that does not fit is noted and passed, so that an id behind it is
 * still found. */
static int head_read(const void *bytes, size_t size,
                     void (*read_field)(struct head_cursor *, const struct token *,
                                        struct head_reading *),
                     struct head_reading *reading, char *error, size_t error_size)
{
    if (size == 0 || size > PROTOCOL_HEAD_MAX)
        return complain(error, error_size, "the head has %zu bytes, expected 1 to %d", size,
                        PROTOCOL_HEAD_MAX);
    struct head_cursor cursor = {bytes, (const unsigned char *)bytes + size};
    struct token map;
    if (!token_read(&cursor, &map) || map.kind != TOKEN_MAP)
        return complain(error, error_size, "the head is not a msgpack map");
    for (uint64_t pair = 0; pair < map.number; pair++) {
        struct token key;
        if (!token_read(&cursor, &key) || key.kind != TOKEN_TEXT)
            return complain(error, error_size, "a key of the head is not text");
        struct head_cursor value = cursor;
        if (!value_skip(&cursor))
            return complain(error, error_size, "the head's msgpack is broken or cut short");
        read_field(&value, &key, reading);
    }
    if (cursor.at != cursor.end)
        return complain(error, error_size, "%zu bytes follow the head's map",
                        (size_t)(cursor.end - cursor.at));
    if (reading->expected)
        return complain(error, error_size, "%s", reading->expected);
    if (!reading->has_version)
        return complain(error, error_size, "the head has no 'v'");
    if (reading->has_dtype != reading->has_shape)
        return complain(error, error_size,
                        "'dtype' and 'shape' go together, one of them is missing");
    return 0;
}

int protocol_request_read(const void *bytes, size_t size, struct protocol_request *out, char *error,
                          size_t error_size)
{
    struct head_reading reading = {.expected = NULL};
    int rc = head_read(bytes, size, field_read_request, &reading, error, error_size);
    if (rc == 0 && !reading.has_op)
        rc = complain(error, error_size, "the head has no 'op'");
    if (rc < 0) {
        /* So that the refusal can be told to belong to this request. */
        *out = (struct protocol_request){.op = PROTOCOL_PREDICT};
        memcpy(out->id, reading.request.id, sizeof out->id);
        return rc;
    }
    *out = reading.request;
    return 0;
}

int protocol_reply_read(const void *bytes, size_t size, struct protocol_reply *out, char *error,
                        size_t error_size)
{
    struct head_reading reading = {.expected = NULL};
    int rc = head_read(bytes, size, field_read_reply, &reading, error, error_size);
    if (rc == 0 && !reading.has_status)
        rc = complain(error, error_size, "the head has no 'status'");
    if (rc < 0)
        return rc;
    *out = reading.reply;
    return 0;
}
