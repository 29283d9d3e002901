/* Any bytes as an engine of cuDNN's that was kept; what is accepted is written back as it came. */
#include "workers/backends/cudnn/gpu_engine.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gpu_engine engine;
    uint8_t back[GPU_ENGINE_MOST_BYTES];
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        return 0;
    if (size > 0)
        memcpy(copy, data, size);
    if (gpu_engine_read(copy, size, &engine) == 0 &&
        (gpu_engine_write(&engine, back) != size || memcmp(back, copy, size) != 0))
        abort();
    free(copy);
    return 0;
}
