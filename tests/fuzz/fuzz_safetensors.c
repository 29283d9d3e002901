/* Any bytes as a safetensors file; what is accepted is tried as a network. */
#include "tests/fuzz/read_weights.h"
#include "workers/models/unet/family.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[2048];
    struct weights weights;
    if (weights_parse_safetensors(data, size, &weights, error, sizeof error) < 0)
        return 0;
    read_weights(&weights);
    struct network network;
    if (family_build(&weights, NULL, &network, error, sizeof error) == 0)
        network_free(&network);
    weights_close(&weights);
    return 0;
}
