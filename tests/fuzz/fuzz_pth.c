/* Any bytes as a .pth. */
#include "tests/fuzz/read_weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[2048];
    struct weights weights;
    if (weights_parse_pth(data, size, &weights, error, sizeof error) < 0)
        return 0;
    read_weights(&weights);
    weights_close(&weights);
    return 0;
}
