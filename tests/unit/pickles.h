/* Writing small pickles by hand, for tests of what reads them. */
#ifndef PICKLES_H
#define PICKLES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct pickle_text {
    unsigned char bytes[4096];
    size_t size;
};

static inline void put_bytes(struct pickle_text *p, const void *bytes, size_t count)
{
    if (count > sizeof p->bytes - p->size)
        abort();
    memcpy(p->bytes + p->size, bytes, count);
    p->size += count;
}

/* A string literal of opcodes, which may hold zeros. */
#define PUT(p, literal) put_bytes((p), (literal), sizeof(literal) - 1)

static inline void put_text(struct pickle_text *p, const char *text)
{
    uint32_t length = (uint32_t)strlen(text);
    PUT(p, "X");
    put_bytes(p, &length, 4);
    put_bytes(p, text, length);
}

static inline void put_int(struct pickle_text *p, int32_t number)
{
    PUT(p, "J");
    put_bytes(p, &number, 4);
}

static inline void put_global(struct pickle_text *p, const char *module, const char *name)
{
    PUT(p, "c");
    put_bytes(p, module, strlen(module));
    PUT(p, "\n");
    put_bytes(p, name, strlen(name));
    PUT(p, "\n");
}

struct tensor_text {
    const char *type; /* "FloatStorage" */
    const char *key;
    int32_t storage_elements;
    int32_t offset;
    int rank;
    int32_t dims[4];
    int32_t strides[4];
};

/* torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, OrderedDict()) */
static inline void put_tensor(struct pickle_text *p, const struct tensor_text *tensor)
{
    put_global(p, "torch._utils", "_rebuild_tensor_v2");
    PUT(p, "((");
    put_text(p, "storage");
    put_global(p, "torch", tensor->type);
    put_text(p, tensor->key);
    put_text(p, "cpu");
    put_int(p, tensor->storage_elements);
    PUT(p, "tQ");
    put_int(p, tensor->offset);
    PUT(p, "(");
    for (int i = 0; i < tensor->rank; i++)
        put_int(p, tensor->dims[i]);
    PUT(p, "t(");
    for (int i = 0; i < tensor->rank; i++)
        put_int(p, tensor->strides[i]);
    PUT(p, "t\x89");
    put_global(p, "collections", "OrderedDict");
    PUT(p, ")RtR");
}

#endif
