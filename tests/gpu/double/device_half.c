/* Halves for device_kernels.cc, whose compiler has none. */
#include "device.h"

#include <string.h>

float double_from_half(uint16_t bits)
{
    _Float16 half;
    memcpy(&half, &bits, sizeof half);
    return (float)half;
}

uint16_t double_to_half(float value)
{
    uint16_t bits;
    _Float16 half = (_Float16)value;
    memcpy(&bits, &half, sizeof bits);
    return bits;
}
