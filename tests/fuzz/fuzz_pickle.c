/* Any bytes as a pickle; the tree is walked to the depth that the state dict reader goes. */
#include "workers/models/unet/pickle.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t walk(const struct pickle_value *value, int depth)
{
    size_t seen = 1;
    switch (value->kind) {
    case PICKLE_TEXT: return strlen(value->as.text) <= value->count ? 1 : 0;
    case PICKLE_TENSOR: return value->as.tensor->rank + strlen(value->as.tensor->storage->key);
    case PICKLE_TUPLE:
    case PICKLE_LIST:
    case PICKLE_DICT:
        if (value->kind == PICKLE_DICT && value->count % 2)
            abort();
        for (size_t i = 0; depth > 0 && i < value->count; i++)
            seen += walk(value->as.items[i], depth - 1);
        return seen;
    case PICKLE_NONE:
    case PICKLE_BOOL:
    case PICKLE_INT:
    case PICKLE_GLOBAL:
    case PICKLE_STORAGE: return 1;
    }
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[512];
    void *memory = NULL;
    const struct pickle_value *root = NULL;
    if (pickle_parse(data, size, &memory, &root, error, sizeof error) < 0)
        return 0;
    volatile size_t seen = walk(root, 2);
    (void)seen;
    pickle_free(memory);
    return 0;
}
