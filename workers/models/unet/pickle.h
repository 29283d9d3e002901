/*
 * A pickle reader that can build plain values and tensor descriptions, and nothing else. It has no
 * way to run code: the names that a pickle may mention are a fixed list, and any other is refused
 * by name.
 *
 * Lists and dicts may contain themselves (a pickle can say so); readers of the tree go down a fixed
 * number of levels.
 */
#ifndef PICKLE_H
#define PICKLE_H

#include "weights.h"

#include <stdbool.h>

#define PICKLE_MAX_BYTES (64u << 20)

enum pickle_kind {
    PICKLE_NONE, /* None, and every value whose content does not matter here (floats, devices,
                    types, numpy's scalars and arrays) */
    PICKLE_BOOL,
    PICKLE_INT,
    PICKLE_TEXT,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_DICT, /* items: key, value, key, value, ... */
    PICKLE_GLOBAL,
    PICKLE_STORAGE,
    PICKLE_TENSOR,
};

/* torch's storage: one member of the archive. */
struct pickle_storage {
    enum weights_dtype dtype;
    const char *key; /* the member's name under data/ */
    uint64_t elements;
};

struct pickle_tensor {
    const struct pickle_storage *storage;
    uint64_t offset; /* in elements, as the strides */
    uint32_t rank;
    uint64_t dims[WEIGHTS_MAX_RANK];
    uint64_t strides[WEIGHTS_MAX_RANK];
};

struct pickle_value {
    enum pickle_kind kind;
    uint32_t global; /* GLOBAL: pickle.c's own numbering */
    size_t count;    /* TEXT: bytes without the final NUL; TUPLE, LIST, DICT: items */
    size_t capacity; /* LIST, DICT: pickle.c's own */
    union {
        int64_t number; /* BOOL, INT */
        const char *text;
        struct pickle_value **items;
        const struct pickle_storage *storage;
        const struct pickle_tensor *tensor;
    } as;
};

/* Read one pickle. 0; -EBADMSG and a sentence; -ENOMEM. *root and everything below it live in
 * *memory until pickle_free(memory). Texts point into their own copies, so data may go. */
int pickle_parse(const void *data, size_t size, void **memory, const struct pickle_value **root,
                 char *error, size_t error_size);
void pickle_free(void *memory);

/* The value of a text key in a DICT, or NULL. The last one wins, as in Python. */
const struct pickle_value *pickle_dict_find(const struct pickle_value *dict, const char *key);

#endif
