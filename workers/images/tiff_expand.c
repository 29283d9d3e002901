#include "workers/images/decoders.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tiffio.h>

/* One tile's buffer; and no allocation of libtiff's is larger than the image, its file, and this.
 */
#define TILE_BYTES_MAX ((uint64_t)64 << 20)
#define SLACK          ((uint64_t)1 << 20)

struct tiff_job {
    const struct images_order *order;
    const struct unetserve_shape *shape;
    char *planes;
    TIFF *tiff;
    uint64_t width, height, channels, plane_bytes;
    size_t each;
    bool separate; /* a band after the other, not a pixel after the other */
    char *buffer;  /* a strip or tile of interleaved samples, a tile of one band */
    uint64_t at;   /* in the file */
    /* An honest file is read about once: one whose parts all lie in the same place, at great
     * length, is not read for ever. */
    uint64_t may_read;
    char error[200];
};

/* ---- the file as libtiff sees it ---- */

/* Never -1: libtiff 4.5 takes what it is told for a count all the same, and clears memory from one
 * byte before its buffer on. */
static tmsize_t on_read(thandle_t opaque, void *buffer, tmsize_t size)
{
    struct tiff_job *job = opaque;
    if (size < 0 || job->at >= job->order->size)
        return 0;
    uint64_t left = job->order->size - job->at;
    uint64_t taken = (uint64_t)size < left ? (uint64_t)size : left;
    if (taken > job->may_read) {
        snprintf(job->error, sizeof job->error, "its parts overlap");
        return 0;
    }
    job->may_read -= taken;
    memcpy(buffer, (const char *)job->order->bytes + job->at, taken);
    job->at += taken;
    return (tmsize_t)taken;
}

static tmsize_t on_write(thandle_t opaque, void *buffer, tmsize_t size)
{
    (void)opaque, (void)buffer, (void)size;
    return -1;
}

static toff_t on_seek(thandle_t opaque, toff_t offset, int whence)
{
    struct tiff_job *job = opaque;
    uint64_t base = whence == SEEK_CUR ? job->at : whence == SEEK_END ? job->order->size : 0;
    job->at = base + offset; /* one beyond the end reads nothing */
    return job->at;
}

static int on_close(thandle_t opaque)
{
    (void)opaque;
    return 0;
}

static toff_t on_size(thandle_t opaque)
{
    const struct tiff_job *job = opaque;
    return job->order->size;
}

/* The first is the one that says why. */
static int on_error(TIFF *tiff, void *opaque, const char *module, const char *format, va_list list)
{
    (void)tiff, (void)module;
    struct tiff_job *job = opaque;
    if (!job->error[0])
        vsnprintf(job->error, sizeof job->error, format, list);
    return 1;
}

static int on_warning(TIFF *tiff, void *opaque, const char *module, const char *format,
                      va_list list)
{
    (void)tiff, (void)opaque, (void)module, (void)format, (void)list;
    return 1;
}

static TIFF *open_tiff(struct tiff_job *job)
{
    TIFFOpenOptions *options = TIFFOpenOptionsAlloc();
    if (!options)
        return NULL;
    uint64_t most = job->plane_bytes * job->channels + job->order->size + SLACK;
    TIFFOpenOptionsSetMaxSingleMemAlloc(options, (tmsize_t)most);
    TIFFOpenOptionsSetErrorHandlerExtR(options, on_error, job);
    TIFFOpenOptionsSetWarningHandlerExtR(options, on_warning, job);
    /* m: read, do not map: what is looked at twice is a copy. */
    TIFF *tiff = TIFFClientOpenExt("body", "rm", job, on_read, on_write, on_seek, on_close, on_size,
                                   NULL, NULL, options);
    TIFFOpenOptionsFree(options);
    return tiff;
}

/* ---- pixels ---- */

static int broken(struct tiff_job *job, struct problem *problem)
{
    problem_set(problem, 400, "The TIFF file cannot be read: %s",
                job->error[0] ? job->error : "it is broken");
    return -EBADMSG;
}

static int go_on(const struct tiff_job *job)
{
    return job->order->go_on(job->order->opaque) ? 0 : -ECANCELED;
}

/* Does libtiff see what we saw? */
static bool is_as_told(struct tiff_job *job)
{
    uint32_t width = 0, height = 0;
    uint16_t samples = 0, bits = 0, planar = 0;
    TIFFGetField(job->tiff, TIFFTAG_IMAGEWIDTH, &width);
    TIFFGetField(job->tiff, TIFFTAG_IMAGELENGTH, &height);
    TIFFGetFieldDefaulted(job->tiff, TIFFTAG_SAMPLESPERPIXEL, &samples);
    TIFFGetFieldDefaulted(job->tiff, TIFFTAG_BITSPERSAMPLE, &bits);
    TIFFGetFieldDefaulted(job->tiff, TIFFTAG_PLANARCONFIG, &planar);
    job->separate = planar == PLANARCONFIG_SEPARATE && samples > 1;
    return width == job->width && height == job->height && samples == job->channels &&
           bits == 8 * job->each &&
           (job->separate || planar == PLANARCONFIG_CONTIG || samples == 1);
}

/* Strips: rows over the whole width. */
static int read_strips(struct tiff_job *job, struct problem *problem)
{
    uint32_t rows_each = 0;
    TIFFGetFieldDefaulted(job->tiff, TIFFTAG_ROWSPERSTRIP, &rows_each);
    if (rows_each == 0 || rows_each > job->height)
        rows_each = (uint32_t)job->height;
    uint64_t a_plane = (job->height + rows_each - 1) / rows_each;
    uint64_t samples = job->separate ? 1 : job->channels;
    uint64_t row_bytes = job->width * samples * job->each;
    bool direct = samples == 1;
    job->buffer = direct ? NULL : malloc(rows_each * row_bytes);
    if (!direct && !job->buffer)
        return -ENOMEM;
    for (uint64_t i = 0; i < a_plane * (job->separate ? job->channels : 1); i++) {
        uint64_t row = i % a_plane * rows_each;
        uint64_t rows = job->height - row < rows_each ? job->height - row : rows_each;
        char *plane = job->planes + i / a_plane * job->plane_bytes + row * job->width * job->each;
        char *to = direct ? plane : job->buffer;
        tmsize_t wanted = (tmsize_t)(rows * row_bytes);
        if (i % 16 == 0 && go_on(job))
            return -ECANCELED;
        if (TIFFReadEncodedStrip(job->tiff, (uint32_t)i, to, wanted) != wanted)
            return broken(job, problem);
        if (!direct)
            planes_scatter(to, rows * job->width, job->channels, job->each, plane,
                           job->plane_bytes);
    }
    return 0;
}

struct tile {
    uint32_t width, height;
};

/* The part of a tile that lies in the image, row by row to its place. */
static void place_tile(const struct tiff_job *job, const struct tile *tile, uint64_t x, uint64_t y,
                       uint64_t band)
{
    uint64_t samples = job->separate ? 1 : job->channels;
    uint64_t columns = job->width - x < tile->width ? job->width - x : tile->width;
    uint64_t rows = job->height - y < tile->height ? job->height - y : tile->height;
    for (uint64_t row = 0; row < rows; row++)
        planes_scatter(
            job->buffer + row * tile->width * samples * job->each, columns, samples, job->each,
            job->planes + band * job->plane_bytes + ((y + row) * job->width + x) * job->each,
            job->plane_bytes);
}

static int read_tiles(struct tiff_job *job, struct problem *problem)
{
    struct tile tile = {0, 0};
    uint64_t samples = job->separate ? 1 : job->channels, bytes;
    TIFFGetField(job->tiff, TIFFTAG_TILEWIDTH, &tile.width);
    TIFFGetField(job->tiff, TIFFTAG_TILELENGTH, &tile.height);
    if (tile.width == 0 || tile.height == 0 ||
        __builtin_mul_overflow((uint64_t)tile.width * tile.height, samples * job->each, &bytes) ||
        bytes > TILE_BYTES_MAX || bytes != (uint64_t)TIFFTileSize64(job->tiff))
        return images_refuse(problem, "The TIFF file's tiles are empty, or larger than 64 MiB");
    job->buffer = malloc(bytes);
    if (!job->buffer)
        return -ENOMEM;
    uint64_t across = (job->width + tile.width - 1) / tile.width;
    uint64_t down = (job->height + tile.height - 1) / tile.height;
    for (uint64_t i = 0; i < across * down * (job->separate ? job->channels : 1); i++) {
        uint64_t in_plane = i % (across * down);
        if (i % 16 == 0 && go_on(job))
            return -ECANCELED;
        if (TIFFReadEncodedTile(job->tiff, (uint32_t)i, job->buffer, (tmsize_t)bytes) !=
            (tmsize_t)bytes)
            return broken(job, problem);
        place_tile(job, &tile, in_plane % across * tile.width, in_plane / across * tile.height,
                   i / (across * down));
    }
    return 0;
}

static int read_pixels(struct tiff_job *job, struct problem *problem)
{
    if (!job->tiff)
        return job->error[0] ? broken(job, problem) : -ENOMEM;
    if (!is_as_told(job))
        return images_refuse(problem, "malformed TIFF file: two ways to read its directory");
    return TIFFIsTiled(job->tiff) ? read_tiles(job, problem) : read_strips(job, problem);
}

int tiff_expand(const struct images_order *order, const struct unetserve_shape *shape, char *planes,
                struct problem *problem)
{
    size_t each = unetserve_dtype_size(shape->dtype);
    struct tiff_job job = {.order = order,
                           .shape = shape,
                           .planes = planes,
                           .channels = shape->dims[0],
                           .height = shape->dims[1],
                           .width = shape->dims[2],
                           .plane_bytes = shape->dims[1] * shape->dims[2] * each,
                           .each = each,
                           .may_read = 4 * (uint64_t)order->size + SLACK};
    job.tiff = open_tiff(&job);
    int error = read_pixels(&job, problem);
    if (job.tiff)
        TIFFClose(job.tiff);
    free(job.buffer);
    return error;
}
