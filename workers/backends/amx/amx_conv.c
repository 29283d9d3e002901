#include "amx_conv.h"

#include <string.h>

#define TILE_FLOATS (AMX_ROWS * AMX_CHANNELS)

/* The first pixel of a tile. */
struct spot {
    size_t row;
    size_t column;
};

/* Tiles that are summed together. */
struct batch {
    struct spot spots[AMX_TILES];
    size_t count;
};

struct job {
    const struct amx_conv *conv;
    const struct amx_ends *ends;
    const struct amx_part *part;
    size_t block;     /* of channels */
    float *sums;      /* of a batch */
    size_t sums_step; /* floats a pixel */
};

/* What is done with each batch of tiles. */
typedef void use_batch(const struct job *job, const struct batch *batch);

/* All tiles of a row as wide as each other; an even number of pixels, for the pooling. */
size_t amx_tile_pixels(size_t width)
{
    size_t tiles = (width + AMX_ROWS - 1) / AMX_ROWS;
    size_t pixels = (width + tiles - 1) / tiles;
    return (pixels + 1) / 2 * 2;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static unsigned char *pixel_at(const struct onednn_view *view, size_t image, size_t row,
                               size_t column)
{
    size_t lines = view->height + 2 * view->border;
    size_t line = view->width + 2 * view->border;
    size_t index = (image * lines + row + view->border) * line + column + view->border;
    return (unsigned char *)view->data + index * view->pitch * onednn_type_bytes(view->type);
}

/* Where the window of an output pixel begins: the border holds all padding. A row's last tile may
 * reach into the next row, which another thread may be writing: those sums are dropped. */
static const unsigned char *window_at(const struct job *job, const struct spot *spot)
{
    const struct amx_conv *conv = job->conv;
    struct onednn_view in = conv->in;
    size_t line = in.width + 2 * in.border;
    size_t row = job->part->image * (in.height + 2 * in.border) + spot->row * conv->stride +
                 in.border - conv->padding;
    size_t column = spot->column * conv->stride + in.border - conv->padding;
    return (const unsigned char *)in.data +
           (row * line + column) * in.pitch * conv->weights->shape.element;
}

/* ---- sums ---- */

static void sum(const struct job *job, const struct batch *batch, size_t block, float *sums)
{
    const struct amx_conv *conv = job->conv;
    const struct amx_shape *shape = &conv->weights->shape;
    struct amx_block todo = {
        .tiles = batch->count,
        .in_step = conv->stride * conv->in.pitch * shape->element,
        .offsets = conv->offsets,
        .steps = shape->steps,
        .weight_step = amx_step_bytes(shape),
        .bias = conv->weights->bias + block * AMX_CHANNELS,
        .scale = shape->element == 1 ? conv->weights->scales + block * AMX_CHANNELS : NULL,
        .rows = conv->tile_pixels,
        .sums = sums,
        .sums_step = job->sums_step};
    todo.weights = conv->weights->packed + block * shape->steps * todo.weight_step;
    for (size_t i = 0; i < batch->count; i++) {
        todo.in[i] = window_at(job, &batch->spots[i]);
    }
    conv->kernels->sum(&todo);
}

/* ---- what becomes of them ---- */

static size_t pixels_of(const struct job *job, const struct spot *spot)
{
    return smaller(job->conv->tile_pixels, job->conv->width - spot->column);
}

static size_t lanes_of(size_t channels, size_t first)
{
    return smaller(AMX_CHANNELS, channels - first);
}

/* Where so many pixels of the job's block go: to a view's channels from `channel` on, `scale`
 * pixels apart. */
static struct amx_output output_for(const struct job *job, const struct onednn_view *view,
                                    unsigned char *pixel, size_t channel, size_t scale)
{
    const struct amx_conv *conv = job->conv;
    const struct amx_shape *shape = &conv->weights->shape;
    size_t element = onednn_type_bytes(view->type);
    size_t lane = job->block * AMX_CHANNELS;
    struct amx_output output = {.channels = lanes_of(conv->out.channels, channel),
                                .relu = conv->relu,
                                .codes = view->type == ONEDNN_U8,
                                .out = pixel + channel * element,
                                .out_step = scale * view->pitch * element};
    if (shape->scales == 2) {
        output.steps = conv->weights->scales + lane;
        output.zero = output.steps + shape->blocks * AMX_CHANNELS;
    }
    return output;
}

static void put_tile(const struct job *job, const struct spot *spot, const float *sums)
{
    const struct amx_conv *conv = job->conv;
    size_t blocks = conv->up ? conv->weights->shape.blocks / 4 : conv->weights->shape.blocks;
    size_t quarter = job->block / blocks;
    size_t scale = conv->up ? 2 : 1;
    unsigned char *pixel = pixel_at(&conv->out, job->part->image, spot->row * scale + quarter / 2,
                                    spot->column * scale + quarter % 2);
    struct amx_output output = output_for(job, &conv->out, pixel,
                                          job->block % blocks * AMX_CHANNELS, scale);
    output.sums = sums;
    output.pixels = pixels_of(job, spot);
    conv->kernels->put(&output);
}

/* Of two tiles, one below the other. */
static void pool_tiles(const struct job *job, const struct spot *spot, const float *sums)
{
    const struct amx_conv *conv = job->conv;
    unsigned char *pixel = pixel_at(&conv->pooled, job->part->image, spot->row / 2,
                                    spot->column / 2);
    struct amx_output output = output_for(job, &conv->pooled, pixel, job->block * AMX_CHANNELS, 1);
    output.sums = sums;
    output.pixels = pixels_of(job, spot) / 2;
    conv->kernels->pool(&output, sums + TILE_FLOATS);
}

static void use_values(const struct job *job, const struct batch *batch)
{
    sum(job, batch, job->block, job->sums);
    for (size_t i = 0; i < batch->count; i++) {
        put_tile(job, &batch->spots[i], job->sums + i * TILE_FLOATS);
        bool upper = batch->spots[i].row % 2 == 0 && i + 1 < batch->count &&
                     batch->spots[i + 1].column == batch->spots[i].column;
        if (job->conv->pools && upper) {
            pool_tiles(job, &batch->spots[i], job->sums + i * TILE_FLOATS);
        }
    }
}

static void label(const struct job *job, const struct spot *spot, size_t pixels, const float *sums)
{
    const struct backend_batch *batch = job->ends->batch;
    size_t image = job->part->image;
    size_t at = spot->row * job->conv->width + spot->column;
    size_t classes = job->conv->out.channels;
    if (batch->labels != NULL && batch->labels[image] != NULL) {
        uint8_t *labels = batch->labels[image] + at;
        for (size_t p = 0; p < pixels && classes == 1; p++) {
            labels[p] = sums[p * job->sums_step] > 0.0F;
        }
        if (classes > 1) {
            job->ends->rows->argmax(sums, job->sums_step, classes, pixels, labels);
        }
    }
    if (batch->logits != NULL && batch->logits[image] != NULL) {
        job->ends->rows->planes(sums, job->sums_step, classes, pixels, batch->logits[image] + at,
                                job->conv->height * job->conv->width);
    }
}

static void keep_positive(float *sums, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        sums[i] = sums[i] < 0.0F ? 0.0F : sums[i];
    }
}

/* All channels of these pixels, one block beside the other. Where rows end where tiles do, a
 * batch's pixels follow one another, also from row to row. */
static void use_logits(const struct job *job, const struct batch *batch)
{
    const struct amx_conv *conv = job->conv;
    size_t tile = AMX_ROWS * job->sums_step;
    for (size_t block = 0; block < conv->weights->shape.blocks; block++) {
        sum(job, batch, block, job->sums + block * AMX_CHANNELS);
    }
    for (size_t i = 0; i < batch->count && conv->relu; i++) {
        keep_positive(job->sums + i * tile, conv->tile_pixels * job->sums_step);
    }
    if (conv->width % AMX_ROWS == 0) {
        label(job, &batch->spots[0], batch->count * AMX_ROWS, job->sums);
        return;
    }
    for (size_t i = 0; i < batch->count; i++) {
        const struct spot *spot = &batch->spots[i];
        label(job, spot, pixels_of(job, spot), job->sums + i * tile);
    }
}

/* ---- which tiles ---- */

/* How many rows from `top` on are gone through together. Values: four, down each column of tiles,
 * so neighbours overlap in what they read, and those whose pixels are pooled together are in one
 * batch. Logits: one, since labels follow one another in a row. */
static size_t rows_together(const struct job *job, size_t top)
{
    size_t rows = smaller(AMX_TILES, job->part->bottom - top);
    if (job->conv->labels) {
        return 1;
    }
    return job->conv->pools && rows == 3 ? 2 : rows;
}

static void each_batch(const struct job *job, use_batch *use)
{
    const struct amx_conv *conv = job->conv;
    struct batch batch = {.count = 0};
    size_t rows = 0;
    for (size_t top = job->part->top; top < job->part->bottom; top += rows) {
        rows = rows_together(job, top);
        for (size_t column = 0; column < conv->width; column += conv->tile_pixels) {
            for (size_t row = top; row < top + rows; row++) {
                batch.spots[batch.count++] = (struct spot){row, column};
                if (batch.count == AMX_TILES) {
                    use(job, &batch);
                    batch.count = 0;
                }
            }
        }
    }
    if (batch.count > 0) {
        use(job, &batch);
    }
}

static void run_values(const struct amx_conv *conv, const struct amx_ends *ends,
                       const struct amx_part *part)
{
    _Alignas(AMX_ROW_BYTES) float sums[AMX_TILES * TILE_FLOATS];
    struct job job = {
        .conv = conv, .ends = ends, .part = part, .sums = sums, .sums_step = AMX_CHANNELS};
    for (job.block = part->first; job.block < part->end; job.block++) {
        each_batch(&job, use_values);
    }
}

static void run_logits(const struct amx_conv *conv, const struct amx_ends *ends,
                       const struct amx_part *part)
{
    _Alignas(AMX_ROW_BYTES) float sums[AMX_TILES * AMX_ROWS * AMX_MOST_CLASSES];
    struct job job = {.conv = conv, .ends = ends, .part = part, .sums = sums};
    job.sums_step = conv->weights->shape.blocks * AMX_CHANNELS;
    memset(sums, 0, AMX_TILES * AMX_ROWS * job.sums_step * sizeof *sums);
    each_batch(&job, use_logits);
}

void amx_conv_run(const struct amx_conv *conv, const struct amx_ends *ends,
                  const struct amx_part *part)
{
    conv->kernels->begin(conv->tile_pixels, conv->weights->shape.words);
    if (conv->labels) {
        run_logits(conv, ends, part);
    } else {
        run_values(conv, ends, part);
    }
    conv->kernels->end();
}
