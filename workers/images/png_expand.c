#include "workers/images/decoders.h"

#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

/* Chunks that are of no use here are not even unpacked; of the others libpng may not keep more. */
#define CHUNK_BYTES_MAX ((png_alloc_size_t)1 << 20)

/* On the heap, so that longjmp leaves none of it in a register. */
struct png_job {
    const struct images_order *order;
    struct unetserve_shape shape;
    char *planes;
    png_structp png;
    png_infop info;
    png_bytep rows; /* the whole image as the file has it: interlaced ones come in seven passes */
    size_t row_bytes;
    size_t at; /* bytes read of the file */
    bool cancelled;
    char error[160];
};

static void on_error(png_structp png, png_const_charp message)
{
    struct png_job *job = png_get_error_ptr(png);
    strncpy(job->error, message, sizeof job->error - 1);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png, (void)message;
}

static void on_read(png_structp png, png_bytep data, size_t size)
{
    struct png_job *job = png_get_io_ptr(png);
    if (size > job->order->size - job->at)
        png_error(png, "the file is truncated");
    memcpy(data, (const char *)job->order->bytes + job->at, size);
    job->at += size;
}

static void go_on(struct png_job *job)
{
    if (job->order->go_on(job->order->opaque))
        return;
    job->cancelled = true;
    png_error(job->png, "cancelled");
}

/* What the file has, as whole bytes of gray, gray and alpha, RGB or RGBA. */
static void set_up(struct png_job *job)
{
    png_set_user_limits(job->png, (png_uint_32)job->shape.dims[2], (png_uint_32)job->shape.dims[1]);
    png_set_chunk_malloc_max(job->png, CHUNK_BYTES_MAX);
    png_set_chunk_cache_max(job->png, 16);
    png_read_info(job->png, job->info);
    png_byte colours = png_get_color_type(job->png, job->info);
    if (colours == PNG_COLOR_TYPE_PALETTE)
        png_set_palette_to_rgb(job->png);
    if (colours == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(job->png, job->info) < 8)
        png_set_expand_gray_1_2_4_to_8(job->png);
    if (png_get_bit_depth(job->png, job->info) == 16)
        png_set_swap(job->png);
    /* A palette's transparency is made to a channel by the expansion: it counts as 3 all the same.
     */
    if (colours == PNG_COLOR_TYPE_PALETTE)
        png_set_strip_alpha(job->png);
    (void)png_set_interlace_handling(job->png);
    png_read_update_info(job->png, job->info);
    size_t each = unetserve_dtype_size(job->shape.dtype);
    job->row_bytes = job->shape.dims[2] * job->shape.dims[0] * each;
    if (png_get_image_width(job->png, job->info) != job->shape.dims[2] ||
        png_get_image_height(job->png, job->info) != job->shape.dims[1] ||
        png_get_channels(job->png, job->info) != job->shape.dims[0] ||
        png_get_rowbytes(job->png, job->info) != job->row_bytes)
        png_error(job->png, "it is not what its head says");
}

static void read_rows(struct png_job *job)
{
    int passes = png_get_interlace_type(job->png, job->info) == PNG_INTERLACE_ADAM7 ? 7 : 1;
    for (int pass = 0; pass < passes; pass++)
        for (uint64_t y = 0; y < job->shape.dims[1]; y++) {
            if (y % 64 == 0)
                go_on(job);
            png_read_row(job->png, job->rows + y * job->row_bytes, NULL);
        }
    png_read_end(job->png, NULL);
}

/* Everything that may longjmp is called from here. 0, or -1 with job->error. */
static int read_png(struct png_job *job)
{
    if (setjmp(png_jmpbuf(job->png)))
        return -1;
    png_set_read_fn(job->png, job, on_read);
    set_up(job);
    job->rows = calloc(job->shape.dims[1], job->row_bytes);
    if (!job->rows)
        return -1;
    read_rows(job);
    return 0;
}

static int outcome(struct png_job *job, int failed, struct problem *problem)
{
    if (failed && job->cancelled)
        return -ECANCELED;
    if (failed && !job->error[0])
        return -ENOMEM;
    if (failed) {
        problem_set(problem, 400, "The PNG file cannot be read: %s", job->error);
        return -EBADMSG;
    }
    size_t each = unetserve_dtype_size(job->shape.dtype);
    uint64_t pixels = job->shape.dims[1] * job->shape.dims[2];
    planes_scatter((const char *)job->rows, pixels, job->shape.dims[0], each, job->planes,
                   pixels * each);
    return 0;
}

int png_expand(const struct images_order *order, const struct unetserve_shape *shape, char *planes,
               struct problem *problem)
{
    struct png_job *job = calloc(1, sizeof *job);
    if (!job)
        return -ENOMEM;
    *job = (struct png_job){.order = order, .shape = *shape, .planes = planes};
    job->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, job, on_error, on_warning);
    job->info = job->png ? png_create_info_struct(job->png) : NULL;
    int failed = job->info ? read_png(job) : -1;
    png_destroy_read_struct(&job->png, &job->info, NULL);
    int error = outcome(job, failed, problem);
    free(job->rows);
    free(job);
    return error;
}
