/* Both ends of the network: planes of any type in, labels and planes of logits out. */
#include "onednn_kernels.h"
#include "onednn_parallel.h"

struct end_job {
    const struct onednn_crew *crew;
    const struct backend_preprocess *preprocess;
    const struct backend_batch *batch;
    const struct onednn_view *view;
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Blocks of pixels cross the ends of rows: a tile is one run of pixels here. */
static size_t blocks_of(const struct onednn_view *view)
{
    return (view->height * view->width + ONEDNN_ROWS_PIXELS - 1) / ONEDNN_ROWS_PIXELS;
}

static void load_block(const struct end_job *job, size_t tile, size_t first_pixel)
{
    const struct onednn_view *view = job->view;
    const struct onednn_rows *rows = job->crew->rows;
    size_t tile_pixels = view->height * view->width;
    size_t pixels = smaller(ONEDNN_ROWS_PIXELS, tile_pixels - first_pixel);
    size_t element = unetserve_dtype_size(job->batch->dtype);
    size_t plane_bytes = tile_pixels * element;
    const unsigned char *in = (const unsigned char *)job->batch->inputs[tile];
    for (size_t c = 0; c < view->channels; c += ONEDNN_ROWS_CHANNELS) {
        size_t channels = smaller(ONEDNN_ROWS_CHANNELS, view->channels - c);
        const unsigned char *from = in + c * plane_bytes + first_pixel * element;
        size_t to = (tile * tile_pixels + first_pixel) * view->pitch + c;
        if (view->type == ONEDNN_BF16) {
            rows->load_bf16(job->preprocess, job->batch->dtype, from, plane_bytes, channels, pixels,
                            (uint16_t *)view->data + to, view->pitch);
        } else {
            rows->load_f32(job->preprocess, job->batch->dtype, from, plane_bytes, channels, pixels,
                           (float *)view->data + to, view->pitch);
        }
    }
}

static void load_blocks(void *context, size_t begin, size_t end)
{
    const struct end_job *job = (const struct end_job *)context;
    size_t blocks = blocks_of(job->view);
    for (size_t i = begin; i < end; i++) {
        load_block(job, i / blocks, i % blocks * ONEDNN_ROWS_PIXELS);
    }
}

void onednn_kernel_load(const struct onednn_crew *crew, const struct backend_preprocess *preprocess,
                        const struct backend_batch *batch, const struct onednn_view *out)
{
    struct end_job job = {.crew = crew, .preprocess = preprocess, .batch = batch, .view = out};
    onednn_parallel_for(crew->threads, crew->count * blocks_of(out), load_blocks, &job);
}

static void threshold(const float *logits, size_t pitch, size_t pixels, uint8_t *labels)
{
    for (size_t p = 0; p < pixels; p++) {
        labels[p] = logits[p * pitch] > 0.0F;
    }
}

static void store_labels(const struct end_job *job, const float *logits, size_t pitch,
                         size_t pixels, uint8_t *labels)
{
    if (job->view->channels == 1) {
        threshold(logits, pitch, pixels, labels);
    } else {
        job->crew->rows->argmax(logits, pitch, job->view->channels, pixels, labels);
    }
}

static void store_block(const struct end_job *job, size_t tile, size_t first_pixel)
{
    const struct onednn_view *view = job->view;
    size_t tile_pixels = view->height * view->width;
    size_t pixels = smaller(ONEDNN_ROWS_PIXELS, tile_pixels - first_pixel);
    size_t at = (tile * tile_pixels + first_pixel) * view->pitch;
    const float *logits = (const float *)view->data + at;
    if (job->batch->labels != NULL && job->batch->labels[tile] != NULL) {
        store_labels(job, logits, view->pitch, pixels, job->batch->labels[tile] + first_pixel);
    }
    if (job->batch->logits != NULL && job->batch->logits[tile] != NULL) {
        job->crew->rows->planes(logits, view->pitch, view->channels, pixels,
                                job->batch->logits[tile] + first_pixel, tile_pixels);
    }
}

static void store_blocks(void *context, size_t begin, size_t end)
{
    const struct end_job *job = (const struct end_job *)context;
    size_t blocks = blocks_of(job->view);
    for (size_t i = begin; i < end; i++) {
        store_block(job, i / blocks, i % blocks * ONEDNN_ROWS_PIXELS);
    }
}

void onednn_kernel_store(const struct onednn_crew *crew, const struct onednn_view *in,
                         const struct backend_batch *batch)
{
    struct end_job job = {.crew = crew, .batch = batch, .view = in};
    onednn_parallel_for(crew->threads, crew->count * blocks_of(in), store_blocks, &job);
}
