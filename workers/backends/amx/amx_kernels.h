/*
 * What runs on the tiles of AMX: sums of products of bfloat16, or of codes with whole weights
 * (quantise.h), and the way from sums to what a layer puts out. The code is written once
 * (amx_body.h) over a thin layer of tile operations, and compiled twice: with the instructions
 * themselves (amx_hardware.c) and with a software model of them (tests/amx), on which every test
 * runs.
 *
 * A block is up to four tiles of sums: of AMX_ROWS neighbouring pixels of a row each, and of the
 * same AMX_CHANNELS output channels. Four tiles share each piece of weights; see docs/amx.md.
 */
#ifndef AMX_KERNELS_H
#define AMX_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AMX_ROWS      16u /* of a tile, at most */
#define AMX_ROW_BYTES 64u
#define AMX_CHANNELS  16u /* of a tile of sums */
#define AMX_WORDS     16u /* of 4 bytes in a row, at most: two bfloat16 or four codes */
#define AMX_TILES     4u  /* of a block */

/* What LDTILECFG reads. */
struct amx_config {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

struct amx_block {
    const unsigned char *in[AMX_TILES]; /* where the first pixel's window begins */
    size_t tiles;                       /* 1 to AMX_TILES */
    size_t in_step;                     /* bytes from one pixel's window to the next one's */
    const size_t *offsets;              /* of each step, from where a window begins, in bytes */
    size_t steps;
    const unsigned char *weights; /* step after step, each of so many bytes: */
    size_t weight_step;
    const float *bias;  /* AMX_CHANNELS */
    const float *scale; /* AMX_CHANNELS: codes are summed, and come out as (sum + bias) * scale;
                           NULL: bfloat16 */
    size_t rows;        /* of a tile, as begin was told */
    float *sums; /* pixel after pixel, tile after tile, AMX_CHANNELS each; aligned for a line */
    size_t sums_step; /* floats from one pixel to the next */
};

/* From sums of one tile to bfloat16 or codes. */
struct amx_output {
    const float *sums; /* pixels lie AMX_CHANNELS floats apart */
    size_t pixels;
    size_t channels; /* at most AMX_CHANNELS */
    bool relu;
    bool codes;
    const float *steps; /* AMX_CHANNELS: code = number * steps + zero; NULL: the sums are codes, but
                           for rounding */
    const float *zero;
    unsigned char *out;
    size_t out_step; /* bytes from pixel to pixel */
};

struct amx_kernels {
    /* Before and after a thread's blocks of one shape of tiles: `rows` pixels, `words` of
     * input a step. */
    void (*begin)(size_t rows, size_t words);
    void (*end)(void);
    void (*sum)(const struct amx_block *block);
    void (*put)(const struct amx_output *output);
    /* The largest of 2 x 2: of two tiles' sums, one row of pixels each, which lie at sums and
     * below; `pixels` of the output. */
    void (*pool)(const struct amx_output *output, const float *below);
};

/* The kernels that this process can run, or NULL and what is missing. Asks the kernel for the
 * tiles' registers, once for all threads. Cheap after the first time. */
const struct amx_kernels *amx_kernels_here(char *error, size_t error_size);

/* Do they sum what they are given, of numbers and of codes? */
bool amx_kernels_are_right(const struct amx_kernels *kernels);

/* With the instructions themselves: to be called only where amx_kernels_here says so. */
extern const struct amx_kernels amx_hardware;

#endif
