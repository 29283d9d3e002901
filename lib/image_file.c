#include "unetserve/image_file.h"

#include "lib/tiff_head.h"

#include <stdbool.h>
#include <string.h>

static const uint8_t png_magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

enum image_file image_file_kind(const void *bytes)
{
    static const char tiff_magics[4][5] = {"II\x2a\0", "MM\0\x2a", "II\x2b\0", "MM\0\x2b"};
    if (memcmp(bytes, png_magic, sizeof png_magic) == 0)
        return IMAGE_FILE_PNG;
    for (size_t i = 0; i < 4; i++)
        if (memcmp(bytes, tiff_magics[i], 4) == 0)
            return IMAGE_FILE_TIFF;
    return IMAGE_FILE_NONE;
}

static uint32_t read32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* The chunk IHDR: width, height, bits, colour type, compression, filter, interlace. */
static int png_shape(const uint8_t *bytes, size_t size, struct unetserve_shape *shape,
                     struct problem *problem)
{
    static const uint8_t channels_of[7] = {1, 0, 3, 3, 2, 0, 4};
    const uint8_t *head = bytes + 16;
    if (size < IMAGE_FILE_PNG_HEAD) {
        problem_set(problem, 400, "truncated: the PNG file ends within its head");
        return -1;
    }
    uint32_t width = read32(head), height = read32(head + 4);
    uint8_t bits = head[8], colours = head[9];
    bool sound = read32(bytes + 8) == 13 && memcmp(bytes + 12, "IHDR", 4) == 0 && width > 0 &&
                 height > 0 && width <= INT32_MAX && height <= INT32_MAX && colours < 7 &&
                 channels_of[colours] && bits > 0 && bits <= 16 && (bits & (bits - 1)) == 0;
    if (!sound) {
        problem_set(problem, 400, "malformed PNG file: its head makes no sense");
        return -1;
    }
    *shape = (struct unetserve_shape){.dtype = bits == 16 ? UNETSERVE_U16 : UNETSERVE_U8,
                                      .rank = 3,
                                      .dims = {channels_of[colours], height, width}};
    return 0;
}

int image_file_shape(enum image_file file, const void *bytes, size_t size,
                     struct unetserve_shape *shape, struct problem *problem)
{
    return file == IMAGE_FILE_PNG ? png_shape(bytes, size, shape, problem)
                                  : tiff_head_shape(bytes, size, shape, problem);
}
