/* Whatever is read as a baton must come out the same after being written and read again. */
#include "unetserve/wire.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wire_baton baton;
    struct wire_baton again;
    unsigned char bytes[WIRE_BATON_MAX];
    if (wire_baton_read(data, size, &baton))
        return 0;
    size_t length = wire_baton_write(&baton, bytes);
    if (length > sizeof bytes || wire_baton_read(bytes, length, &again))
        abort();
    if (again.slot != baton.slot || again.word != baton.word || again.model != baton.model)
        abort();
    return 0;
}
