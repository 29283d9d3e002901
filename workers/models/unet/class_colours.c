#include "class_colours.h"

#include <stddef.h>

/* The first one is dark, as backgrounds are. */
static const uint8_t palette[][3] = {
    {40, 40, 40},   {230, 97, 1},    {44, 123, 182},  {26, 150, 65},
    {253, 219, 90}, {152, 78, 163},  {215, 25, 28},   {128, 205, 193},
    {166, 97, 26},  {247, 129, 191}, {102, 166, 30},  {116, 169, 207},
    {191, 129, 45}, {84, 39, 136},   {199, 234, 229}, {178, 171, 210},
};

/* Beyond the palette, its colours again, each round a third darker. */
void class_colour_default(uint32_t label, uint8_t rgb[3])
{
    const uint32_t colours = sizeof palette / sizeof *palette;
    for (size_t i = 0; i < 3; i++) {
        uint32_t value = palette[label % colours][i];
        for (uint32_t round = label / colours; round > 0; round--)
            value = value * 2 / 3;
        rgb[i] = (uint8_t)value;
    }
}
