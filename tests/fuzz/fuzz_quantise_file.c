/* Any text as a quantization.json; what is accepted must hold terminated names and sane numbers,
 * and must be the same after it was written and read again. */
#include "workers/models/unet/quantise_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct quantise_file *file)
{
    if (file->count == 0 || file->count > NETWORK_MAX_LAYERS ||
        !memchr(file->method, 0, sizeof file->method))
        abort();
    for (size_t i = 0; i < file->count; i++) {
        const struct quantise_entry *entry = &file->entries[i];
        if (entry->layer >= NETWORK_MAX_LAYERS || !memchr(entry->name, 0, sizeof entry->name) ||
            !isfinite(entry->low) || !isfinite(entry->high) || entry->low > 0 || entry->high < 0)
            abort();
        for (uint32_t c = 0; c < entry->channel_count; c++) {
            const struct quantise_channel *channel = &entry->channels[c];
            if (!(channel->low <= channel->mean && channel->mean <= channel->high))
                abort();
        }
    }
}

static bool same(const struct quantise_entry *a, const struct quantise_entry *b)
{
    size_t bytes = a->channel_count * sizeof *a->channels;
    return memcmp(a, b, offsetof(struct quantise_entry, channels)) == 0 &&
           (bytes == 0 || memcmp(a->channels, b->channels, bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct quantise_file file;
    struct quantise_file again;
    char error[512];
    if (quantise_file_parse((const char *)data, size, &file, error, sizeof error) < 0)
        return 0;
    check(&file);
    char *text = quantise_file_print(&file);
    if (!text || quantise_file_parse(text, strlen(text), &again, error, sizeof error) < 0)
        abort();
    if (again.count != file.count ||
        memcmp(&again.weights, &file.weights, sizeof again.weights) != 0)
        abort();
    for (size_t i = 0; i < file.count; i++)
        if (!same(&again.entries[i], &file.entries[i]))
            abort();
    free(text);
    quantise_file_free(&again);
    quantise_file_free(&file);
    return 0;
}
