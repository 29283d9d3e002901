/* Any bytes as a .pth; what is accepted must be readable to its last byte. */
#include "workers/models/unet/weights.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[2048];
    struct weights weights;
    if (weights_parse_pth(data, size, &weights, error, sizeof error) < 0)
        return 0;
    volatile unsigned sum = 0;
    for (size_t i = 0; i < weights.count; i++) {
        const struct weights_tensor *tensor = &weights.tensors[i];
        if (weights_find(&weights, tensor->name) != tensor)
            abort();
        const uint8_t *bytes = tensor->data;
        for (size_t b = 0; b < tensor->bytes; b++)
            sum += bytes[b];
    }
    weights_close(&weights);
    return 0;
}
