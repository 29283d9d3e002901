/* Any bytes as a file of packed weights, as they are and with checksums that fit; of what is
 * accepted every byte that a section names is read. */
#include "workers/backends/packed_file.h"

#include <stdlib.h>
#include <string.h>

#define KEY_AT 32 /* of the key in a file's head */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_file(const uint8_t *data, size_t size)
{
    struct packed_hash key = {0, 0};
    struct packed_view view;
    const char *why = NULL;
    if (size >= KEY_AT + sizeof key)
        memcpy(&key, data + KEY_AT, sizeof key);
    if (packed_file_read(data, size, &key, &view, &why) < 0)
        return;
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < view.count; i++) {
        const struct packed_section *section = &view.sections[i];
        for (uint64_t k = 0; k < section->bytes; k++)
            sum = (uint8_t)(sum + view.data[section->offset + k]);
        if (!packed_file_find(&view, section->layer, (enum packed_part)section->part,
                              &section->form))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    try_file(copy, size);
    packed_file_seal(copy, size);
    try_file(copy, size);
    free(copy);
    return 0;
}
