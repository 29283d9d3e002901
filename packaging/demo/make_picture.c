/*
 * make-picture TILE.npy MASK.png OUT.png: the tile as the eye would see it, the mask that unetserve
 * answered, and the mask's legend, side by side; the legend goes to stdout as well. Names, codes
 * and colours come from the mask itself (palette and "Classes" text).
 */
#include "letters.h"
#include "unetserve/mask_writer.h"

#include <errno.h>
#include <math.h>
#include <png.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PANEL      512 /* side of both views */
#define MARGIN     28
#define TITLE      36 /* height of the line above the views */
#define LEGEND     440
#define WIDTH      (MARGIN + PANEL + MARGIN + PANEL + MARGIN + LEGEND)
#define HEIGHT     (MARGIN + TITLE + PANEL + MARGIN)
#define SIDE_MAX   20000
#define TILE_BYTES ((size_t)1 << 31)

struct colour {
    unsigned char red, green, blue;
};

static const struct colour paper = {250, 250, 247};
static const struct colour ink = {38, 42, 48};
static const struct colour pale_ink = {120, 126, 134};
static const struct colour frame = {205, 207, 205};

static struct colour canvas[HEIGHT][WIDTH];

/* ---- drawing ---- */

static void canvas_fill(int x, int y, int width, int height, struct colour colour)
{
    for (int v = y; v < y + height && v < HEIGHT; v++)
        for (int u = x; u < x + width && u < WIDTH; u++)
            canvas[v][u] = colour;
}

static void canvas_write(int x, int y, int scale, struct colour colour, const char *text)
{
    for (; *text; text++, x += (LETTER_WIDTH + 1) * scale) {
        const unsigned char *rows = letter_rows(*text);
        for (int v = 0; v < LETTER_HEIGHT; v++)
            for (int u = 0; u < LETTER_WIDTH; u++)
                if (rows[v] >> (LETTER_WIDTH - 1 - u) & 1)
                    canvas_fill(x + u * scale, y + v * scale, scale, scale, colour);
    }
}

static void canvas_write_right(int right, int y, int scale, struct colour colour, const char *text)
{
    canvas_write(right - (int)strlen(text) * (LETTER_WIDTH + 1) * scale + scale, y, scale, colour,
                 text);
}

/* ---- the tile ---- */

struct tile {
    struct unetserve_shape shape; /* C x H x W */
    unsigned char *data;
};

static int tile_read(const char *path, struct tile *out)
{
    FILE *file = fopen(path, "rbe");
    unsigned char *bytes = NULL;
    long size = -1;
    if (file && fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) > 0 &&
        (size_t)size < TILE_BYTES && fseek(file, 0, SEEK_SET) == 0)
        bytes = malloc((size_t)size);
    bool whole = bytes && fread(bytes, 1, (size_t)size, file) == (size_t)size;
    if (file)
        fclose(file);
    char error[256] = "cannot be read";
    int big_endian = 0;
    size_t offset = 0;
    uint64_t expected = 0;
    bool right = whole &&
                 npy_header_read(bytes, (size_t)size, &out->shape, &big_endian, &offset, error,
                                 sizeof error) == 0 &&
                 out->shape.rank == 3 && !big_endian &&
                 unetserve_shape_bytes(&out->shape, &expected) == 0 && expected > 0 &&
                 expected == (size_t)size - offset;
    if (!right) {
        fprintf(stderr, "make-picture: '%s' is no tile: %s\n", path, error);
        free(bytes);
        return -1;
    }
    memmove(bytes, bytes + offset, expected);
    out->data = bytes;
    return 0;
}

static double tile_value(const struct tile *tile, size_t band, size_t y, size_t x)
{
    size_t i = (band * (size_t)tile->shape.dims[1] + y) * (size_t)tile->shape.dims[2] + x;
    switch (tile->shape.dtype) {
    case UNETSERVE_U8: return tile->data[i];
    case UNETSERVE_U16: return ((const uint16_t *)(const void *)tile->data)[i];
    case UNETSERVE_I16: return ((const int16_t *)(const void *)tile->data)[i];
    case UNETSERVE_F32: return (double)((const float *)(const void *)tile->data)[i];
    case UNETSERVE_F64: return ((const double *)(const void *)tile->data)[i];
    default: return 0;
    }
}

/* Where on the source a picture's pixel lies, and how far to the next. */
struct sample {
    size_t near, far;
    double part;
};

static struct sample sample_at(int pixel, size_t size)
{
    double at = (pixel + 0.5) * (double)size / PANEL - 0.5;
    at = fmax(0, fmin((double)size - 1, at));
    size_t near = (size_t)at;
    return (struct sample){near, near + 1 < size ? near + 1 : near, at - (double)near};
}

static double tile_sample(const struct tile *tile, size_t band, struct sample y, struct sample x)
{
    double upper = tile_value(tile, band, y.near, x.near) * (1 - x.part) +
                   tile_value(tile, band, y.near, x.far) * x.part;
    double lower = tile_value(tile, band, y.far, x.near) * (1 - x.part) +
                   tile_value(tile, band, y.far, x.far) * x.part;
    return upper * (1 - y.part) + lower * y.part;
}

static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Dark and bright ends of a band: a satellite's numbers fill a small part of their range. */
static void band_range(const struct tile *tile, size_t band, double *low, double *high)
{
    enum { STEPS = 128 };
    static double values[STEPS * STEPS];
    size_t count = 0;
    for (size_t v = 0; v < STEPS; v++)
        for (size_t u = 0; u < STEPS; u++)
            values[count++] = tile_value(tile, band, v * (size_t)tile->shape.dims[1] / STEPS,
                                         u * (size_t)tile->shape.dims[2] / STEPS);
    qsort(values, count, sizeof *values, compare_doubles);
    *low = values[count / 100];
    *high = fmax(values[count - count / 25], *low + 1e-6);
}

static void draw_tile(const struct tile *tile, int left, int top)
{
    size_t bands = (size_t)tile->shape.dims[0];
    /* B04, B03, B02 of Sentinel-2's twelve; of other tiles the first bands. */
    size_t colours[3] = {bands >= 4 ? 3u : 0u,
                         bands >= 4  ? 2u
                         : bands > 1 ? 1u
                                     : 0u,
                         bands >= 4  ? 1u
                         : bands > 2 ? 2u
                                     : 0u};
    double low[3];
    double high[3];
    for (int c = 0; c < 3; c++)
        band_range(tile, colours[c], &low[c], &high[c]);
    /* One bright end for all, so that hues stay; haze is blue, so each has its own dark end. */
    double bright = fmax(high[0], fmax(high[1], high[2]));
    for (int c = 0; c < 3; c++) {
        high[c] = bright;
        low[c] *= 0.75;
    }
    for (int v = 0; v < PANEL; v++) {
        struct sample y = sample_at(v, (size_t)tile->shape.dims[1]);
        for (int u = 0; u < PANEL; u++) {
            struct sample x = sample_at(u, (size_t)tile->shape.dims[2]);
            unsigned char levels[3];
            for (int c = 0; c < 3; c++) {
                double value = (tile_sample(tile, colours[c], y, x) - low[c]) / (high[c] - low[c]);
                levels[c] = (unsigned char)(255 * pow(fmax(0, fmin(1, value)), 0.72));
            }
            canvas[top + v][left + u] = (struct colour){levels[0], levels[1], levels[2]};
        }
    }
}

/* ---- the mask ---- */

struct mask {
    png_uint_32 width, height;
    unsigned char *labels;
    struct colour palette[256];
    char names[256][48];
    unsigned codes[256];
    uint64_t pixels[256];
};

/* Lines "LABEL CODE NAME". */
static void mask_take_names(struct mask *mask, const char *text)
{
    while (*text) {
        unsigned label;
        unsigned code;
        int used = 0;
        size_t length = strcspn(text, "\n");
        if (sscanf(text, "%u %u %n", &label, &code, &used) == 2 && label < 256 && used > 0 &&
            (size_t)used <= length) {
            mask->codes[label] = code;
            snprintf(mask->names[label], sizeof mask->names[label], "%.*s", (int)length - used,
                     text + used);
        }
        text += length + (text[length] == '\n');
    }
}

static void mask_take_facts(struct mask *mask, png_structp png, png_infop info)
{
    png_colorp palette;
    int colours = 0;
    if (png_get_PLTE(png, info, &palette, &colours))
        for (int i = 0; i < colours && i < 256; i++)
            mask->palette[i] = (struct colour){palette[i].red, palette[i].green, palette[i].blue};
    png_textp texts;
    int text_count = 0;
    png_get_text(png, info, &texts, &text_count);
    for (int i = 0; i < text_count; i++)
        if (strcmp(texts[i].key, "Classes") == 0 && texts[i].text)
            mask_take_names(mask, texts[i].text);
}

static bool mask_decode(struct mask *mask, png_structp png, png_infop info, FILE *file)
{
    unsigned char *volatile labels = NULL;
    if (setjmp(png_jmpbuf(png))) {
        free(labels);
        return false;
    }
    png_init_io(png, file);
    png_read_info(png, info);
    mask->width = png_get_image_width(png, info);
    mask->height = png_get_image_height(png, info);
    if (png_get_color_type(png, info) != PNG_COLOR_TYPE_PALETTE || mask->width > SIDE_MAX ||
        mask->height > SIDE_MAX)
        return false;
    png_set_packing(png);
    labels = malloc((size_t)mask->width * mask->height);
    if (!labels)
        return false;
    for (png_uint_32 y = 0; y < mask->height; y++)
        png_read_row(png, labels + (size_t)y * mask->width, NULL);
    png_read_end(png, info);
    mask_take_facts(mask, png, info);
    mask->labels = labels;
    for (size_t i = 0; i < (size_t)mask->width * mask->height; i++)
        mask->pixels[mask->labels[i]]++;
    return true;
}

static int mask_read(const char *path, struct mask *mask)
{
    FILE *file = fopen(path, "rbe");
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    bool read = file && info && mask_decode(mask, png, info, file);
    png_destroy_read_struct(&png, &info, NULL);
    if (file)
        fclose(file);
    if (!read)
        fprintf(stderr, "make-picture: '%s' is no indexed PNG\n", path);
    return read ? 0 : -1;
}

static void draw_mask(const struct mask *mask, int left, int top)
{
    for (int v = 0; v < PANEL; v++) {
        size_t y = (size_t)v * mask->height / PANEL;
        for (int u = 0; u < PANEL; u++)
            canvas[top + v][left + u] =
                mask->palette[mask->labels[y * mask->width + (size_t)u * mask->width / PANEL]];
    }
}

/* Classes that occur, the largest first: into the picture, and to stdout. */
static void draw_legend(const struct mask *mask, int left, int top)
{
    bool drawn[256] = {false};
    double total = (double)mask->width * mask->height;
    for (int row = 0; row < 14; row++) {
        int best = -1;
        for (int label = 0; label < 256; label++)
            if (!drawn[label] && mask->pixels[label] > 0 &&
                (best < 0 || mask->pixels[label] > mask->pixels[best]))
                best = label;
        if (best < 0)
            return;
        drawn[best] = true;
        int y = top + row * 36;
        char text[64];
        canvas_fill(left - 1, y - 1, 24, 24, frame);
        canvas_fill(left, y, 22, 22, mask->palette[best]);
        snprintf(text, sizeof text, "%.26s", mask->names[best][0] ? mask->names[best] : "class");
        canvas_write(left + 34, y + 4, 2, ink, text);
        snprintf(text, sizeof text, "%.1f%%", 100 * (double)mask->pixels[best] / total);
        canvas_write_right(left + LEGEND - MARGIN, y + 4, 2, pale_ink, text);
        printf("  %3u  %-26s %6s\n", mask->codes[best],
               mask->names[best][0] ? mask->names[best] : "class", text);
    }
}

/* ---- the picture ---- */

static bool picture_encode(png_structp png, png_infop info, FILE *file)
{
    if (setjmp(png_jmpbuf(png)))
        return false;
    png_init_io(png, file);
    png_set_IHDR(png, info, WIDTH, HEIGHT, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int y = 0; y < HEIGHT; y++)
        png_write_row(png, (png_const_bytep)canvas[y]);
    png_write_end(png, NULL);
    return true;
}

static int picture_write(const char *path)
{
    FILE *file = fopen(path, "wbe");
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    bool written = file && info && picture_encode(png, info, file);
    png_destroy_write_struct(&png, &info);
    if (file && fclose(file) != 0)
        written = false;
    if (!written)
        fprintf(stderr, "make-picture: cannot write '%s': %s\n", path, strerror(errno));
    return written ? 0 : -1;
}

static void picture_draw(const struct tile *tile, const struct mask *mask)
{
    int top = MARGIN + TITLE;
    int second = MARGIN + PANEL + MARGIN;
    int third = second + PANEL + MARGIN;
    char title[80];
    canvas_fill(0, 0, WIDTH, HEIGHT, paper);
    snprintf(title, sizeof title, "Tile, %u bands, %u x %u", (unsigned)tile->shape.dims[0],
             (unsigned)tile->shape.dims[1], (unsigned)tile->shape.dims[2]);
    canvas_write(MARGIN, MARGIN, 2, ink, title);
    canvas_write(second, MARGIN, 2, ink, "Land cover from unetserve");
    canvas_write(third, MARGIN, 2, ink, "Classes");
    canvas_fill(MARGIN - 1, top - 1, PANEL + 2, PANEL + 2, frame);
    canvas_fill(second - 1, top - 1, PANEL + 2, PANEL + 2, frame);
    draw_tile(tile, MARGIN, top);
    draw_mask(mask, second, top);
    draw_legend(mask, third, top);
}

int main(int argc, char **argv)
{
    static struct mask mask;
    struct tile tile = {.data = NULL};
    if (argc != 4) {
        fputs("usage: make-picture TILE.npy MASK.png OUT.png\n", stderr);
        return 64;
    }
    if (tile_read(argv[1], &tile) < 0)
        return 65;
    int code = 65;
    if (mask_read(argv[2], &mask) == 0) {
        picture_draw(&tile, &mask);
        code = picture_write(argv[3]) < 0 ? 73 : 0;
    }
    free(mask.labels);
    free(tile.data);
    return code;
}
