/* Any text as a model.json; what is accepted must hold terminated texts and sane numbers. */
#include "workers/models/unet/model_dir.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct model_dir parsed;
    char error[512];
    if (model_dir_parse((const char *)data, size, &parsed, error, sizeof error) < 0)
        return 0;
    if (!memchr(parsed.name, 0, sizeof parsed.name) ||
        !memchr(parsed.version, 0, sizeof parsed.version) ||
        !memchr(parsed.source, 0, sizeof parsed.source) || strchr(parsed.weights_path, '/') ||
        parsed.scale == 0.0f || parsed.class_count > UNETSERVE_MAX_CLASSES || parsed.tile == 0)
        abort();
    for (uint32_t i = 0; i < parsed.class_count; i++)
        if (!memchr(parsed.classes[i].name, 0, sizeof parsed.classes[i].name))
            abort();
    return 0;
}
