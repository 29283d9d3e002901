/*
 * The stack machine of pickle protocols 2 to 5, as far as state dicts use it. One function an
 * opcode group; every value lies in an arena whose size is bounded, because each byte of a pickle
 * makes at most a bounded number of values.
 */
#include "pickle.h"

#include "weights_builder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_CHUNK_BYTES (64u << 10)
#define ARENA_MAX_BYTES   ((size_t)1 << 30)
#define MEMO_MAX          (16u << 20)

/* ---- the names that a pickle may mention ---- */

enum global_kind {
    GLOBAL_ORDERED_DICT, /* called with nothing or with pairs: a dict */
    GLOBAL_DEFAULT_DICT, /* called with a type: an empty dict */
    GLOBAL_TENSOR,       /* _rebuild_tensor_v2 and its older form */
    GLOBAL_PARAMETER,    /* _rebuild_parameter: its first argument */
    GLOBAL_SIZE,         /* torch.Size: its argument */
    GLOBAL_STORAGE,      /* a type; never called */
    GLOBAL_OPAQUE, /* a value or type without interest here; a call of it yields one as well */
};

struct global_row {
    const char *module;
    const char *name;
    enum global_kind kind;
    enum weights_dtype dtype; /* GLOBAL_STORAGE */
};

static const struct global_row globals[] = {
    {"collections", "OrderedDict", GLOBAL_ORDERED_DICT, 0},
    {"collections", "defaultdict", GLOBAL_DEFAULT_DICT, 0},
    {"collections", "Counter", GLOBAL_OPAQUE, 0},
    {"torch._utils", "_rebuild_tensor", GLOBAL_TENSOR, 0},
    {"torch._utils", "_rebuild_tensor_v2", GLOBAL_TENSOR, 0},
    {"torch._utils", "_rebuild_parameter", GLOBAL_PARAMETER, 0},
    {"torch._utils", "_rebuild_parameter_with_state", GLOBAL_PARAMETER, 0},
    {"torch", "Size", GLOBAL_SIZE, 0},
    {"torch", "DoubleStorage", GLOBAL_STORAGE, WEIGHTS_F64},
    {"torch", "FloatStorage", GLOBAL_STORAGE, WEIGHTS_F32},
    {"torch", "HalfStorage", GLOBAL_STORAGE, WEIGHTS_F16},
    {"torch", "BFloat16Storage", GLOBAL_STORAGE, WEIGHTS_BF16},
    {"torch", "LongStorage", GLOBAL_STORAGE, WEIGHTS_I64},
    {"torch", "IntStorage", GLOBAL_STORAGE, WEIGHTS_I32},
    {"torch", "ShortStorage", GLOBAL_STORAGE, WEIGHTS_I16},
    {"torch", "CharStorage", GLOBAL_STORAGE, WEIGHTS_I8},
    {"torch", "ByteStorage", GLOBAL_STORAGE, WEIGHTS_U8},
    {"torch", "BoolStorage", GLOBAL_STORAGE, WEIGHTS_BOOL},
    {"torch", "device", GLOBAL_OPAQUE, 0},
    {"torch", "float64", GLOBAL_OPAQUE, 0},
    {"torch", "float32", GLOBAL_OPAQUE, 0},
    {"torch", "float16", GLOBAL_OPAQUE, 0},
    {"torch", "bfloat16", GLOBAL_OPAQUE, 0},
    {"torch", "int64", GLOBAL_OPAQUE, 0},
    {"torch", "int32", GLOBAL_OPAQUE, 0},
    {"torch", "int16", GLOBAL_OPAQUE, 0},
    {"torch", "int8", GLOBAL_OPAQUE, 0},
    {"torch", "uint8", GLOBAL_OPAQUE, 0},
    {"torch", "bool", GLOBAL_OPAQUE, 0},
    {"torch.torch_version", "TorchVersion", GLOBAL_OPAQUE, 0},
    {"_codecs", "encode", GLOBAL_OPAQUE, 0},
    {"numpy._core.multiarray", "scalar", GLOBAL_OPAQUE, 0},
    {"numpy._core.multiarray", "_reconstruct", GLOBAL_OPAQUE, 0},
    {"numpy._core.numeric", "_frombuffer", GLOBAL_OPAQUE, 0},
    {"numpy.core.multiarray", "scalar", GLOBAL_OPAQUE, 0},
    {"numpy.core.multiarray", "_reconstruct", GLOBAL_OPAQUE, 0},
    {"numpy.core.numeric", "_frombuffer", GLOBAL_OPAQUE, 0},
    {"numpy", "dtype", GLOBAL_OPAQUE, 0},
    {"numpy", "ndarray", GLOBAL_OPAQUE, 0},
    {"builtins", "dict", GLOBAL_OPAQUE, 0},
    {"builtins", "list", GLOBAL_OPAQUE, 0},
    {"builtins", "tuple", GLOBAL_OPAQUE, 0},
    {"builtins", "set", GLOBAL_OPAQUE, 0},
    {"builtins", "frozenset", GLOBAL_OPAQUE, 0},
    {"builtins", "int", GLOBAL_OPAQUE, 0},
    {"builtins", "float", GLOBAL_OPAQUE, 0},
    {"builtins", "bool", GLOBAL_OPAQUE, 0},
    {"builtins", "complex", GLOBAL_OPAQUE, 0},
    {"builtins", "str", GLOBAL_OPAQUE, 0},
    {"builtins", "bytes", GLOBAL_OPAQUE, 0},
    {"builtins", "bytearray", GLOBAL_OPAQUE, 0},
    {"__builtin__", "dict", GLOBAL_OPAQUE, 0},
    {"__builtin__", "list", GLOBAL_OPAQUE, 0},
    {"__builtin__", "tuple", GLOBAL_OPAQUE, 0},
    {"__builtin__", "set", GLOBAL_OPAQUE, 0},
    {"__builtin__", "frozenset", GLOBAL_OPAQUE, 0},
    {"__builtin__", "int", GLOBAL_OPAQUE, 0},
    {"__builtin__", "float", GLOBAL_OPAQUE, 0},
    {"__builtin__", "bool", GLOBAL_OPAQUE, 0},
    {"__builtin__", "complex", GLOBAL_OPAQUE, 0},
    {"__builtin__", "str", GLOBAL_OPAQUE, 0},
    {"__builtin__", "bytes", GLOBAL_OPAQUE, 0},
    {"__builtin__", "bytearray", GLOBAL_OPAQUE, 0},
    {"__builtin__", "unicode", GLOBAL_OPAQUE, 0},
};

#define GLOBAL_COUNT (sizeof globals / sizeof *globals)

/* ---- memory ---- */

struct chunk {
    struct chunk *next;
    size_t used;
    size_t bytes;
    _Alignas(16) unsigned char data[];
};

struct arena {
    struct chunk *chunks;
    size_t total;
};

struct machine {
    const uint8_t *data;
    size_t size;
    size_t at;
    struct arena *arena;
    struct pickle_value **stack;
    size_t depth;
    size_t stack_capacity;
    size_t *marks; /* stack depths */
    size_t mark_count;
    size_t mark_capacity;
    struct pickle_value **memo;
    size_t memo_count; /* entries in use, for MEMOIZE */
    size_t memo_capacity;
    bool stopped;
    char *error;
    size_t error_size;
};

static void *arena_allocate(struct arena *arena, size_t bytes)
{
    bytes = (bytes + 15) & ~(size_t)15;
    struct chunk *chunk = arena->chunks;
    if (!chunk || chunk->bytes - chunk->used < bytes) {
        size_t room = bytes > ARENA_CHUNK_BYTES ? bytes : ARENA_CHUNK_BYTES;
        if (room > ARENA_MAX_BYTES || arena->total > ARENA_MAX_BYTES - room)
            return NULL;
        chunk = malloc(sizeof *chunk + room);
        if (!chunk)
            return NULL;
        *chunk = (struct chunk){.next = arena->chunks, .bytes = room};
        arena->chunks = chunk;
        arena->total += room;
    }
    void *memory = chunk->data + chunk->used;
    chunk->used += bytes;
    return memset(memory, 0, bytes);
}

void pickle_free(void *memory)
{
    struct arena *arena = memory;
    if (!arena)
        return;
    for (struct chunk *chunk = arena->chunks; chunk;) {
        struct chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    free(arena);
}

static int fail_at(struct machine *m, const char *what)
{
    weights_refuse(m->error, m->error_size, "damaged pickle: %s at byte %zu", what, m->at);
    return -EBADMSG;
}

/* ---- the stack ---- */

static int push(struct machine *m, struct pickle_value *value)
{
    if (!value)
        return -ENOMEM;
    if (m->depth == m->stack_capacity) {
        size_t wanted = m->stack_capacity ? m->stack_capacity * 2 : 256;
        struct pickle_value **larger = reallocarray(m->stack, wanted, sizeof(void *));
        if (!larger)
            return -ENOMEM;
        m->stack = larger;
        m->stack_capacity = wanted;
    }
    m->stack[m->depth++] = value;
    return 0;
}

static struct pickle_value *new_value(struct machine *m, enum pickle_kind kind)
{
    struct pickle_value *value = arena_allocate(m->arena, sizeof *value);
    if (value)
        value->kind = kind;
    return value;
}

static int push_kind(struct machine *m, enum pickle_kind kind)
{
    return push(m, new_value(m, kind));
}

static int push_number(struct machine *m, enum pickle_kind kind, int64_t number)
{
    struct pickle_value *value = new_value(m, kind);
    if (value)
        value->as.number = number;
    return push(m, value);
}

/* The stack above the last mark belongs to what the mark opened; nothing may reach below it. */
static size_t floor_of_stack(const struct machine *m)
{
    return m->mark_count ? m->marks[m->mark_count - 1] : 0;
}

static struct pickle_value *pop(struct machine *m)
{
    return m->depth > floor_of_stack(m) ? m->stack[--m->depth] : NULL;
}

static struct pickle_value *top(struct machine *m)
{
    return m->depth > floor_of_stack(m) ? m->stack[m->depth - 1] : NULL;
}

static int op_mark(struct machine *m)
{
    if (m->mark_count == m->mark_capacity) {
        size_t wanted = m->mark_capacity ? m->mark_capacity * 2 : 64;
        size_t *larger = reallocarray(m->marks, wanted, sizeof *larger);
        if (!larger)
            return -ENOMEM;
        m->marks = larger;
        m->mark_capacity = wanted;
    }
    m->marks[m->mark_count++] = m->depth;
    return 0;
}

/* Take the items above the last mark off the stack: they stay readable at *items until the next
 * push. */
static int pop_mark(struct machine *m, struct pickle_value ***items, size_t *count)
{
    if (m->mark_count == 0)
        return fail_at(m, "no mark");
    size_t base = m->marks[--m->mark_count];
    *items = m->stack ? m->stack + base : NULL;
    *count = m->depth - base;
    m->depth = base;
    return 0;
}

/* ---- arguments of opcodes ---- */

static int take(struct machine *m, size_t count, const uint8_t **out)
{
    if (count > m->size - m->at)
        return fail_at(m, "it ends too early");
    *out = m->data + m->at;
    m->at += count;
    return 0;
}

static int take_number(struct machine *m, size_t bytes, uint64_t *out)
{
    const uint8_t *raw = NULL;
    int rc = take(m, bytes, &raw);
    if (rc < 0)
        return rc;
    uint64_t value = 0;
    for (size_t i = bytes; i-- > 0;)
        value = value << 8 | raw[i];
    *out = value;
    return 0;
}

static int take_line(struct machine *m, const char **text, size_t *length)
{
    const uint8_t *start = m->data + m->at;
    const uint8_t *end = memchr(start, '\n', m->size - m->at);
    if (!end)
        return fail_at(m, "an unfinished name");
    *text = (const char *)start;
    *length = (size_t)(end - start);
    m->at += *length + 1;
    return 0;
}

/* ---- plain values ---- */

static int op_integer(struct machine *m, size_t bytes, bool is_signed)
{
    uint64_t raw = 0;
    int rc = take_number(m, bytes, &raw);
    if (rc < 0)
        return rc;
    int64_t number = is_signed ? (int64_t)(int32_t)(uint32_t)raw : (int64_t)raw;
    return push_number(m, PICKLE_INT, number);
}

/* LONG1: a count, then that many bytes of two's complement. Longer ones (random seeds) are of no
 * interest. */
static int op_long(struct machine *m, size_t count_bytes)
{
    uint64_t count = 0;
    const uint8_t *raw = NULL;
    int rc = take_number(m, count_bytes, &count);
    if (rc == 0)
        rc = take(m, (size_t)count, &raw);
    if (rc < 0)
        return rc;
    if (count > 8 || !raw)
        return push_kind(m, PICKLE_NONE);
    uint64_t value = 0;
    for (size_t i = (size_t)count; i-- > 0;)
        value = value << 8 | raw[i];
    if (count > 0 && count < 8 && raw[count - 1] & 0x80)
        value |= UINT64_MAX << (count * 8);
    return push_number(m, PICKLE_INT, (int64_t)value);
}

static int op_float(struct machine *m)
{
    const uint8_t *raw = NULL;
    int rc = take(m, 8, &raw);
    return rc < 0 ? rc : push_kind(m, PICKLE_NONE);
}

static int op_text(struct machine *m, size_t count_bytes)
{
    uint64_t count = 0;
    const uint8_t *raw = NULL;
    int rc = take_number(m, count_bytes, &count);
    if (rc < 0)
        return rc;
    if (count > m->size - m->at)
        return fail_at(m, "a text that runs past the end");
    rc = take(m, (size_t)count, &raw);
    if (rc < 0)
        return rc;
    char *copy = arena_allocate(m->arena, (size_t)count + 1);
    struct pickle_value *value = new_value(m, PICKLE_TEXT);
    if (!copy || !value)
        return -ENOMEM;
    memcpy(copy, raw, (size_t)count);
    value->as.text = copy;
    value->count = (size_t)count;
    return push(m, value);
}

/* ---- containers ---- */

static int append(struct machine *m, struct pickle_value *container, struct pickle_value *item)
{
    if (container->count == container->capacity) {
        size_t wanted = container->capacity ? container->capacity * 2 : 8;
        struct pickle_value **larger = arena_allocate(m->arena, wanted * sizeof(void *));
        if (!larger)
            return -ENOMEM;
        if (container->count)
            memcpy(larger, container->as.items, container->count * sizeof(void *));
        container->as.items = larger;
        container->capacity = wanted;
    }
    container->as.items[container->count++] = item;
    return 0;
}

static int append_all(struct machine *m, struct pickle_value *container,
                      struct pickle_value *const *items, size_t count)
{
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = append(m, container, items[i]);
    return rc;
}

static int push_tuple(struct machine *m, struct pickle_value *const *items, size_t count)
{
    struct pickle_value *tuple = new_value(m, PICKLE_TUPLE);
    if (!tuple)
        return -ENOMEM;
    int rc = append_all(m, tuple, items, count);
    return rc < 0 ? rc : push(m, tuple);
}

static int op_tuple(struct machine *m)
{
    struct pickle_value **items = NULL;
    size_t count = 0;
    int rc = pop_mark(m, &items, &count);
    return rc < 0 ? rc : push_tuple(m, items, count);
}

static int op_small_tuple(struct machine *m, size_t count)
{
    if (m->depth - floor_of_stack(m) < count)
        return fail_at(m, "an empty stack");
    m->depth -= count;
    return push_tuple(m, m->stack + m->depth, count);
}

/* LIST and DICT: a container from the items above the mark. */
static int op_collect(struct machine *m, enum pickle_kind kind)
{
    struct pickle_value **items = NULL;
    size_t count = 0;
    int rc = pop_mark(m, &items, &count);
    if (rc < 0)
        return rc;
    if (kind == PICKLE_DICT && count % 2)
        return fail_at(m, "a key without a value");
    struct pickle_value *container = new_value(m, kind);
    if (!container)
        return -ENOMEM;
    rc = append_all(m, container, items, count);
    return rc < 0 ? rc : push(m, container);
}

/* APPENDS, SETITEMS, ADDITEMS: the container lies below the mark. */
static int op_extend(struct machine *m, enum pickle_kind kind)
{
    struct pickle_value **items = NULL;
    size_t count = 0;
    int rc = pop_mark(m, &items, &count);
    if (rc < 0)
        return rc;
    struct pickle_value *container = top(m);
    if (!container || container->kind != kind || (kind == PICKLE_DICT && count % 2))
        return fail_at(m, "items for something that takes none");
    return append_all(m, container, items, count);
}

static int op_append(struct machine *m)
{
    struct pickle_value *item = pop(m);
    struct pickle_value *list = top(m);
    if (!item || !list || list->kind != PICKLE_LIST)
        return fail_at(m, "an item for something that takes none");
    return append(m, list, item);
}

static int op_set_item(struct machine *m)
{
    struct pickle_value *value = pop(m);
    struct pickle_value *key = pop(m);
    struct pickle_value *dict = top(m);
    if (!value || !key || !dict || dict->kind != PICKLE_DICT)
        return fail_at(m, "an entry for something that takes none");
    int rc = append(m, dict, key);
    return rc < 0 ? rc : append(m, dict, value);
}

/* ---- the memo ---- */

static int memo_put(struct machine *m, uint64_t index)
{
    struct pickle_value *value = top(m);
    if (!value)
        return fail_at(m, "an empty stack");
    /* Python numbers its memo from 0 upwards, so an index beyond the pickle's own size is a lie. */
    if (index >= MEMO_MAX || index >= m->size)
        return fail_at(m, "an impossible memo number");
    if (index >= m->memo_capacity) {
        size_t wanted = m->memo_capacity ? m->memo_capacity : 256;
        while (wanted <= index)
            wanted *= 2;
        struct pickle_value **larger = reallocarray(m->memo, wanted, sizeof(void *));
        if (!larger)
            return -ENOMEM;
        memset(larger + m->memo_capacity, 0, (wanted - m->memo_capacity) * sizeof(void *));
        m->memo = larger;
        m->memo_capacity = wanted;
    }
    if (!m->memo[index])
        m->memo_count++;
    m->memo[index] = value;
    return 0;
}

static int op_put(struct machine *m, size_t bytes)
{
    uint64_t index = 0;
    int rc = take_number(m, bytes, &index);
    return rc < 0 ? rc : memo_put(m, index);
}

static int op_get(struct machine *m, size_t bytes)
{
    uint64_t index = 0;
    int rc = take_number(m, bytes, &index);
    if (rc < 0)
        return rc;
    if (index >= m->memo_capacity || !m->memo[index])
        return fail_at(m, "a memo number that was never set");
    return push(m, m->memo[index]);
}

/* ---- names and calls ---- */

/* A printable rendering for messages: what is not plain ASCII becomes '?'. */
static void print_name(const char *text, size_t length, char *out, size_t out_size)
{
    size_t n = length < out_size - 1 ? length : out_size - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = (char)(text[i] > 0x20 && text[i] < 0x7f ? text[i] : '?');
    out[n] = '\0';
}

static bool same_text(const char *known, const char *text, size_t length)
{
    return strlen(known) == length && memcmp(known, text, length) == 0;
}

static int push_global(struct machine *m, const char *module, size_t module_length,
                       const char *name, size_t name_length)
{
    for (uint32_t i = 0; i < GLOBAL_COUNT; i++) {
        /* Storages that lived on a GPU are named torch.cuda.FloatStorage; their bytes are the same.
         */
        bool in_module = same_text(globals[i].module, module, module_length) ||
                         (globals[i].kind == GLOBAL_STORAGE &&
                          same_text("torch.cuda", module, module_length));
        if (in_module && same_text(globals[i].name, name, name_length)) {
            struct pickle_value *value = new_value(m, PICKLE_GLOBAL);
            if (value)
                value->global = i;
            return push(m, value);
        }
    }
    char shown_module[96];
    char shown_name[96];
    print_name(module, module_length, shown_module, sizeof shown_module);
    print_name(name, name_length, shown_name, sizeof shown_name);
    return weights_refuse(m->error, m->error_size,
                          "refused: the pickle names %s.%s, which is no part of a state dict; save "
                          "the weights alone: torch.save(model.state_dict(), path)",
                          shown_module, shown_name);
}

static int op_global(struct machine *m)
{
    const char *module = NULL;
    const char *name = NULL;
    size_t module_length = 0;
    size_t name_length = 0;
    int rc = take_line(m, &module, &module_length);
    if (rc == 0)
        rc = take_line(m, &name, &name_length);
    return rc < 0 ? rc : push_global(m, module, module_length, name, name_length);
}

static int op_stack_global(struct machine *m)
{
    const struct pickle_value *name = pop(m);
    const struct pickle_value *module = pop(m);
    if (!name || !module || name->kind != PICKLE_TEXT || module->kind != PICKLE_TEXT)
        return fail_at(m, "a name that is no text");
    return push_global(m, module->as.text, module->count, name->as.text, name->count);
}

static bool read_natural(const struct pickle_value *value, uint64_t *out)
{
    if (value->kind != PICKLE_INT || value->as.number < 0)
        return false;
    *out = (uint64_t)value->as.number;
    return true;
}

/* BINPERSID: ('storage', type, key, device, elements) becomes a storage. */
static int op_persistent(struct machine *m)
{
    const struct pickle_value *id = pop(m);
    if (!id || id->kind != PICKLE_TUPLE || id->count < 5)
        return fail_at(m, "an unknown kind of reference");
    struct pickle_value *const *items = id->as.items;
    if (items[0]->kind != PICKLE_TEXT || strcmp(items[0]->as.text, "storage") != 0 ||
        items[1]->kind != PICKLE_GLOBAL || globals[items[1]->global].kind != GLOBAL_STORAGE ||
        items[2]->kind != PICKLE_TEXT)
        return fail_at(m, "a reference that is no storage");
    struct pickle_value *value = new_value(m, PICKLE_STORAGE);
    struct pickle_storage *storage = arena_allocate(m->arena, sizeof *storage);
    if (!value || !storage)
        return -ENOMEM;
    storage->dtype = globals[items[1]->global].dtype;
    storage->key = items[2]->as.text;
    if (!read_natural(items[4], &storage->elements))
        return fail_at(m, "a storage without a size");
    value->as.storage = storage;
    return push(m, value);
}

static bool read_extents(const struct pickle_value *tuple, uint64_t *out)
{
    for (size_t i = 0; i < tuple->count; i++)
        if (!read_natural(tuple->as.items[i], &out[i]))
            return false;
    return true;
}

/* _rebuild_tensor_v2(storage, offset, size, stride, ...). What follows (requires_grad, hooks)
 * changes no number. */
static int call_tensor(struct machine *m, const struct pickle_value *arguments)
{
    if (arguments->count < 4)
        return fail_at(m, "a tensor with too few arguments");
    struct pickle_value *const *a = arguments->as.items;
    if (a[0]->kind != PICKLE_STORAGE || a[2]->kind != PICKLE_TUPLE || a[3]->kind != PICKLE_TUPLE ||
        a[2]->count != a[3]->count || a[2]->count > WEIGHTS_MAX_RANK)
        return fail_at(m, "a tensor with wrong arguments");
    struct pickle_value *value = new_value(m, PICKLE_TENSOR);
    struct pickle_tensor *tensor = arena_allocate(m->arena, sizeof *tensor);
    if (!value || !tensor)
        return -ENOMEM;
    tensor->storage = a[0]->as.storage;
    tensor->rank = (uint32_t)a[2]->count;
    if (!read_natural(a[1], &tensor->offset) || !read_extents(a[2], tensor->dims) ||
        !read_extents(a[3], tensor->strides))
        return fail_at(m, "a tensor whose place is no whole number");
    value->as.tensor = tensor;
    return push(m, value);
}

/* OrderedDict(), or OrderedDict([(key, value), ...]) as protocol 2 writes it in some Python
 * versions. */
static int call_dict(struct machine *m, const struct pickle_value *arguments)
{
    struct pickle_value *dict = new_value(m, PICKLE_DICT);
    if (!dict)
        return -ENOMEM;
    if (arguments->count > 0 && arguments->as.items[0]->kind == PICKLE_LIST) {
        const struct pickle_value *pairs = arguments->as.items[0];
        for (size_t i = 0; i < pairs->count; i++) {
            const struct pickle_value *pair = pairs->as.items[i];
            if ((pair->kind != PICKLE_TUPLE && pair->kind != PICKLE_LIST) || pair->count != 2)
                return fail_at(m, "a dict entry that is no pair");
            int rc = append_all(m, dict, pair->as.items, 2);
            if (rc < 0)
                return rc;
        }
    }
    return push(m, dict);
}

static int op_call(struct machine *m)
{
    struct pickle_value *arguments = pop(m);
    const struct pickle_value *callee = pop(m);
    if (!arguments || !callee || arguments->kind != PICKLE_TUPLE || callee->kind != PICKLE_GLOBAL)
        return fail_at(m, "a call of something that cannot be called");
    switch (globals[callee->global].kind) {
    case GLOBAL_ORDERED_DICT: return call_dict(m, arguments);
    case GLOBAL_DEFAULT_DICT: return push_kind(m, PICKLE_DICT);
    case GLOBAL_TENSOR: return call_tensor(m, arguments);
    case GLOBAL_PARAMETER:
    case GLOBAL_SIZE:
        if (arguments->count == 0)
            return fail_at(m, "a call with too few arguments");
        return push(m, arguments->as.items[0]);
    case GLOBAL_OPAQUE: return push_kind(m, PICKLE_NONE);
    case GLOBAL_STORAGE: break;
    }
    return fail_at(m, "a call of a storage type");
}

/* BUILD sets attributes: an OrderedDict's _metadata, a parameter's hooks, an opaque numpy array's
 * content. Nothing that a network needs. */
static int op_build(struct machine *m)
{
    const struct pickle_value *state = pop(m);
    const struct pickle_value *object = top(m);
    if (!state || !object ||
        (object->kind != PICKLE_DICT && object->kind != PICKLE_TENSOR &&
         object->kind != PICKLE_NONE))
        return fail_at(m, "attributes for something that has none");
    return 0;
}

/* ---- the opcodes ---- */

static int op_protocol(struct machine *m)
{
    uint64_t version = 0;
    int rc = take_number(m, 1, &version);
    if (rc == 0 && (version < 2 || version > 5))
        rc = fail_at(m, "an unknown protocol");
    return rc;
}

static int op_pop(struct machine *m)
{
    return pop(m) ? 0 : fail_at(m, "an empty stack");
}

static int op_pop_mark(struct machine *m)
{
    struct pickle_value **items = NULL;
    size_t count = 0;
    return pop_mark(m, &items, &count);
}

static int op_frame(struct machine *m)
{
    uint64_t length = 0;
    return take_number(m, 8, &length);
}

static int op_stop(struct machine *m)
{
    m->stopped = true;
    return m->depth == 1 && m->mark_count == 0 ? 0 : fail_at(m, "an end in the middle of a value");
}

static int op_duplicate(struct machine *m)
{
    struct pickle_value *value = top(m);
    return value ? push(m, value) : fail_at(m, "an empty stack");
}

static int run_container_opcode(struct machine *m, uint8_t opcode)
{
    switch (opcode) {
    case ')': return push_kind(m, PICKLE_TUPLE);
    case 't': return op_tuple(m);
    case 0x85: return op_small_tuple(m, 1);
    case 0x86: return op_small_tuple(m, 2);
    case 0x87: return op_small_tuple(m, 3);
    case ']': return push_kind(m, PICKLE_LIST);
    case 'l': return op_collect(m, PICKLE_LIST);
    case 'a': return op_append(m);
    case 'e': return op_extend(m, PICKLE_LIST);
    case 0x8f: return push_kind(m, PICKLE_LIST); /* a set */
    case 0x90: return op_extend(m, PICKLE_LIST);
    case 0x91: return op_collect(m, PICKLE_LIST); /* a frozenset */
    case '}': return push_kind(m, PICKLE_DICT);
    case 'd': return op_collect(m, PICKLE_DICT);
    case 's': return op_set_item(m);
    case 'u': return op_extend(m, PICKLE_DICT);
    default: break;
    }
    m->at--;
    return weights_refuse(m->error, m->error_size,
                          "refused: the pickle uses opcode 0x%02x at byte %zu, which no state dict "
                          "needs",
                          opcode, m->at);
}

static int run_value_opcode(struct machine *m, uint8_t opcode)
{
    switch (opcode) {
    case 'N': return push_kind(m, PICKLE_NONE);
    case 0x88: return push_number(m, PICKLE_BOOL, 1);
    case 0x89: return push_number(m, PICKLE_BOOL, 0);
    case 'J': return op_integer(m, 4, true);
    case 'K': return op_integer(m, 1, false);
    case 'M': return op_integer(m, 2, false);
    case 0x8a: return op_long(m, 1);
    case 0x8b: return op_long(m, 4);
    case 'G': return op_float(m);
    case 'X':
    case 'T':
    case 'B': return op_text(m, 4);
    case 0x8c:
    case 'U':
    case 'C': return op_text(m, 1);
    case 0x8d:
    case 0x8e:
    case 0x96: return op_text(m, 8);
    default: return run_container_opcode(m, opcode);
    }
}

static int run_opcode(struct machine *m, uint8_t opcode)
{
    switch (opcode) {
    case 0x80: return op_protocol(m);
    case 0x95: return op_frame(m);
    case '.': return op_stop(m);
    case '(': return op_mark(m);
    case '0': return op_pop(m);
    case '1': return op_pop_mark(m);
    case '2': return op_duplicate(m);
    case 'q': return op_put(m, 1);
    case 'r': return op_put(m, 4);
    case 0x94: return memo_put(m, m->memo_count);
    case 'h': return op_get(m, 1);
    case 'j': return op_get(m, 4);
    case 'c': return op_global(m);
    case 0x93: return op_stack_global(m);
    case 'R':
    case 0x81: return op_call(m);
    case 'b': return op_build(m);
    case 'Q': return op_persistent(m);
    default: return run_value_opcode(m, opcode);
    }
}

static int run(struct machine *m)
{
    if (m->size == 0 || m->data[0] != 0x80)
        return fail_at(m, "no protocol mark");
    while (!m->stopped) {
        if (m->at == m->size)
            return fail_at(m, "it ends too early");
        int rc = run_opcode(m, m->data[m->at++]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int pickle_parse(const void *data, size_t size, void **memory, const struct pickle_value **root,
                 char *error, size_t error_size)
{
    if (size > PICKLE_MAX_BYTES)
        return weights_refuse(error, error_size, "the pickle has %zu bytes; %u are allowed", size,
                              PICKLE_MAX_BYTES);
    struct arena *arena = calloc(1, sizeof *arena);
    if (!arena)
        return -ENOMEM;
    struct machine m = {
        .data = data, .size = size, .arena = arena, .error = error, .error_size = error_size};
    int rc = run(&m);
    struct pickle_value *value = rc == 0 ? m.stack[0] : NULL;
    free(m.stack);
    free(m.marks);
    free(m.memo);
    if (rc < 0) {
        pickle_free(arena);
        return rc;
    }
    *memory = arena;
    *root = value;
    return 0;
}

const struct pickle_value *pickle_dict_find(const struct pickle_value *dict, const char *key)
{
    for (size_t i = dict->count; i >= 2; i -= 2) {
        const struct pickle_value *name = dict->as.items[i - 2];
        if (name->kind == PICKLE_TEXT && strcmp(name->as.text, key) == 0)
            return dict->as.items[i - 1];
    }
    return NULL;
}
