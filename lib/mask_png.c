#include "lib/mask_png.h"

#include <errno.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Palette indices are the labels themselves, so that a program which reads the mask back needs no
 * legend. One more entry, black, stands for labels that the model has no class for (unless all 256
 * are classes). */
enum { LABEL_COUNT = 256, SIDE_MAX = 1000000, LEGEND_MAX = UNETSERVE_MAX_CLASSES * 64 };

/* All that outlives libpng's longjmp: kept in one place, in memory, so that nothing of it is lost
 * in a register. */
struct png_job {
    png_structp png;
    png_infop info;
    uint8_t *row;
    char *data;
    size_t size;
    size_t capacity;
    uint8_t index_of[LABEL_COUNT]; /* label -> palette index */
    png_color palette[LABEL_COUNT];
    int colours;
    char legend[LEGEND_MAX];
};

static void on_error(png_structp png, png_const_charp message)
{
    (void)message; /* sizes are checked before: what is left to fail is memory */
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void on_write(png_structp png, png_bytep bytes, size_t size)
{
    struct png_job *job = png_get_io_ptr(png);
    if (size > job->capacity - job->size) {
        size_t capacity = job->capacity * 2 + size + 4096;
        char *data = realloc(job->data, capacity);
        if (!data)
            png_error(png, "out of memory");
        job->data = data;
        job->capacity = capacity;
    }
    memcpy(job->data + job->size, bytes, size);
    job->size += size;
}

static void on_flush(png_structp png)
{
    (void)png;
}

static void fill_palette(struct png_job *job, const struct unetserve_interface *interface)
{
    uint32_t classes = interface->class_count < LABEL_COUNT ? interface->class_count : LABEL_COUNT;
    memset(job->palette, 0, sizeof job->palette);
    for (uint32_t i = 0; i < LABEL_COUNT; i++)
        job->index_of[i] = (uint8_t)(i < classes ? i : classes);
    for (uint32_t i = 0; i < classes; i++) {
        const uint8_t *rgb = interface->classes[i].rgb;
        job->palette[i] = (png_color){rgb[0], rgb[1], rgb[2]};
    }
    job->colours = (int)(classes < LABEL_COUNT ? classes + 1 : classes);
}

/* "0 10 Tree cover\n1 20 Shrubland": label, code, name. Returns whether it is all ASCII. */
static bool fill_legend(struct png_job *job, const struct unetserve_interface *interface)
{
    bool ascii = true;
    size_t length = 0;
    uint32_t classes = interface->class_count < LABEL_COUNT ? interface->class_count : LABEL_COUNT;
    job->legend[0] = '\0';
    for (uint32_t i = 0; i < classes; i++) {
        const struct unetserve_class *class = &interface->classes[i];
        size_t begin = length;
        length += (size_t)snprintf(job->legend + length, LEGEND_MAX - length, "%s%u %u %.*s",
                                   i ? "\n" : "", i, class->code, (int)sizeof class->name,
                                   class->name);
        for (size_t at = begin + (i > 0); at < length; at++) {
            unsigned char c = (unsigned char)job->legend[at];
            ascii = ascii && c < 0x80;
            if (c < 0x20 || c == 0x7f)
                job->legend[at] = ' ';
        }
    }
    return ascii;
}

static void write_head(struct png_job *job, const struct unetserve_interface *interface,
                       const struct unetserve_shape *shape)
{
    int depth = job->colours <= 2 ? 1 : job->colours <= 4 ? 2 : job->colours <= 16 ? 4 : 8;
    png_text legend = {
        .compression = fill_legend(job, interface) ? PNG_TEXT_COMPRESSION_NONE
                                                   : PNG_ITXT_COMPRESSION_NONE,
        .key = "Classes",
        .text = job->legend,
    };
    png_set_IHDR(job->png, job->info, (png_uint_32)shape->dims[1], (png_uint_32)shape->dims[0],
                 depth, PNG_COLOR_TYPE_PALETTE, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_set_PLTE(job->png, job->info, job->palette, job->colours);
    png_set_text(job->png, job->info, &legend, 1);
    /* Labels come in runs and blobs: the filters for photographs only hurt, and zlib's higher
     * levels gain little. */
    png_set_filter(job->png, PNG_FILTER_TYPE_BASE, PNG_FILTER_NONE);
    png_set_compression_level(job->png, 3);
    png_write_info(job->png, job->info);
    png_set_packing(job->png);
}

static void write_rows(struct png_job *job, const struct unetserve_shape *shape,
                       const uint8_t *labels)
{
    for (uint64_t y = 0; y < shape->dims[0]; y++) {
        for (uint64_t x = 0; x < shape->dims[1]; x++)
            job->row[x] = job->index_of[labels[y * shape->dims[1] + x]];
        png_write_row(job->png, job->row);
    }
    png_write_end(job->png, job->info);
}

/* Everything that may longjmp is called from here, and this function has nothing of its own to
 * lose. */
static int write_png(struct png_job *job, const struct unetserve_interface *interface,
                     const struct unetserve_shape *shape, const uint8_t *labels)
{
    if (setjmp(png_jmpbuf(job->png)))
        return -ENOMEM;
    png_set_write_fn(job->png, job, on_write, on_flush);
    write_head(job, interface, shape);
    write_rows(job, shape, labels);
    return 0;
}

static bool side_is_right(uint64_t side)
{
    return side > 0 && side <= SIDE_MAX;
}

int mask_png_encode(const struct unetserve_interface *interface,
                    const struct unetserve_shape *shape, const uint8_t *labels, void **out,
                    size_t *out_size)
{
    if (shape->rank != 2 || !side_is_right(shape->dims[0]) || !side_is_right(shape->dims[1]))
        return -EINVAL;
    int status = -ENOMEM;
    struct png_job *job = calloc(1, sizeof *job);
    if (!job)
        return -ENOMEM;
    fill_palette(job, interface);
    job->row = malloc(shape->dims[1]);
    job->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, on_error, on_warning);
    job->info = job->png ? png_create_info_struct(job->png) : NULL;
    if (job->row && job->info)
        status = write_png(job, interface, shape, labels);
    png_destroy_write_struct(&job->png, &job->info);
    free(job->row);
    if (status == 0) {
        *out = job->data;
        *out_size = job->size;
    } else {
        free(job->data);
    }
    free(job);
    return status;
}
