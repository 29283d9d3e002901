#include "onednn_kernels.h"

#include "onednn_parallel.h"

#include <assert.h>
#include <string.h>

struct job {
    const struct onednn_crew *crew;
    const struct onednn_view *in;
    const struct onednn_view *other; /* second input, or a second output */
    const struct onednn_view *out;
    struct onednn_window window;
    enum network_upsample mode;
    bool relu;
};

size_t onednn_type_bytes(enum onednn_type type)
{
    switch (type) {
    case ONEDNN_U8:
    case ONEDNN_S8: return 1;
    case ONEDNN_BF16: return sizeof(uint16_t);
    case ONEDNN_F32: break;
    }
    return sizeof(float);
}

/* A pixel of a row; rows are counted through the images of the batch, and do not count the borders.
 */
static unsigned char *pixel(const struct onednn_view *view, size_t row, size_t column)
{
    size_t border = view->border;
    if (border > 0) {
        row += (2 * (row / view->height) + 1) * border;
        column += border;
    }
    size_t index = (row * (view->width + 2 * border) + column) * view->pitch;
    return (unsigned char *)view->data + index * onednn_type_bytes(view->type);
}

static size_t pixel_bytes(const struct onednn_view *view)
{
    return view->channels * onednn_type_bytes(view->type);
}

/* What the channels of a view of codes mean. */
static struct onednn_codes codes_of(const struct onednn_view *view)
{
    const struct quantise_value *value = view->codes;
    size_t first = view->first_code;
    return (struct onednn_codes){value->scale + first, value->steps + first, value->zero + first,
                                 view->channels};
}

/* Floats to codes, pixels `in_step` and `out_step` elements apart. */
static void encode_pixels(const struct job *job, const unsigned char *from, size_t in_step,
                          unsigned char *to, size_t out_step, size_t pixels)
{
    struct onednn_codes codes = codes_of(job->out);
    const struct onednn_rows *rows = job->crew->rows;
    if (job->in->type == ONEDNN_BF16) {
        rows->encode_bf16(&codes, to, out_step, (const uint16_t *)(const void *)from, in_step,
                          pixels);
    } else {
        rows->encode_f32(&codes, to, out_step, (const float *)(const void *)from, in_step, pixels);
    }
}

static void copy_pixels(const struct job *job, const struct onednn_view *in, size_t in_row,
                        size_t in_column, const struct onednn_view *out, size_t out_row,
                        size_t out_column, size_t pixels)
{
    const unsigned char *from = pixel(in, in_row, in_column);
    unsigned char *to = pixel(out, out_row, out_column);
    if (in->type != out->type) {
        encode_pixels(job, from, in->pitch, to, out->pitch, pixels);
        return;
    }
    size_t bytes = pixel_bytes(in);
    size_t in_step = in->pitch * onednn_type_bytes(in->type);
    size_t out_step = out->pitch * onednn_type_bytes(out->type);
    if (bytes == in_step && bytes == out_step) {
        memcpy(to, from, pixels * bytes);
        return;
    }
    job->crew->rows->copy(to, out_step, from, in_step, bytes, pixels);
}

static void run_rows(const struct onednn_crew *crew, const struct onednn_view *view,
                     onednn_parallel_body *body, struct job *job)
{
    onednn_parallel_for(crew->threads, crew->count * view->height, body, job);
}

/* Whole rows, which follow each other where neither image has a border. */
static void copy_lines(const struct job *job, const struct onednn_view *out, size_t begin,
                       size_t count)
{
    const struct onednn_view *in = job->in;
    if (in->border == 0 && out->border == 0) {
        copy_pixels(job, in, begin, 0, out, begin, 0, count * in->width);
        return;
    }
    for (size_t row = begin; row < begin + count; row++) {
        copy_pixels(job, in, row, 0, out, row, 0, in->width);
    }
}

static void copy_rows(void *context, size_t begin, size_t end)
{
    const struct job *job = (const struct job *)context;
    copy_lines(job, job->out, begin, end - begin);
}

void onednn_kernel_copy(const struct onednn_crew *crew, const struct onednn_view *in,
                        const struct onednn_view *out)
{
    struct job job = {.crew = crew, .in = in, .out = out};
    assert(in->channels == out->channels && in->height == out->height && in->width == out->width);
    run_rows(crew, out, copy_rows, &job);
}

/* ---- pooling ---- */

static void halve_row(const struct job *job, size_t top, size_t out_row)
{
    const struct onednn_rows *rows = job->crew->rows;
    struct onednn_pool_row row = {
        .top = pixel(job->in, top, 0),
        .bottom = pixel(job->in, top + 1, 0),
        .in_pitch = job->in->pitch,
        .out = pixel(job->out, out_row, 0),
        .out_pitch = job->out->pitch,
        .channels = job->in->channels,
        .pixels = job->out->width,
    };
    switch (job->in->type) {
    case ONEDNN_BF16: rows->pool_bf16(&row); break;
    case ONEDNN_U8: rows->pool_u8(&row); break;
    case ONEDNN_F32:
    case ONEDNN_S8: rows->pool_f32(&row); break;
    }
}

/* The copy takes two input rows while the pooling has them in the cache, and the odd one at the
 * bottom of an image. */
static void halve_rows(void *context, size_t begin, size_t end)
{
    const struct job *job = (const struct job *)context;
    size_t height = job->out->height;
    for (size_t row = begin; row < end; row++) {
        size_t y = row % height;
        size_t top = row / height * job->in->height + 2 * y;
        halve_row(job, top, row);
        if (job->other != NULL) {
            size_t rest = job->in->height - 2 * y;
            size_t copies = y + 1 == height ? rest : 2;
            copy_lines(job, job->other, top, copies);
        }
    }
}

static void max_into(const struct job *job, void *out, const void *in, bool first)
{
    const struct onednn_rows *rows = job->crew->rows;
    if (first) {
        memcpy(out, in, pixel_bytes(job->in));
    } else if (job->in->type == ONEDNN_BF16) {
        rows->max_bf16((uint16_t *)out, (const uint16_t *)in, job->in->channels);
    } else if (job->in->type == ONEDNN_U8) {
        rows->max_u8((uint8_t *)out, (const uint8_t *)in, job->in->channels);
    } else {
        rows->max_f32((float *)out, (const float *)in, job->in->channels);
    }
}

static void pool_pixel(const struct job *job, size_t image, size_t row, size_t column, void *out)
{
    const struct onednn_window *window = &job->window;
    const struct onednn_view *in = job->in;
    bool first = true;
    for (size_t ky = 0; ky < window->kernel; ky++) {
        size_t y = row * window->stride + ky; /* counted with the padding: no negative numbers */
        for (size_t kx = 0; kx < window->kernel; kx++) {
            size_t x = column * window->stride + kx;
            bool above = y < window->padding || x < window->padding;
            if (above || y - window->padding >= in->height || x - window->padding >= in->width) {
                continue;
            }
            size_t from = image * in->height + y - window->padding;
            max_into(job, out, pixel(in, from, x - window->padding), first);
            first = false;
        }
    }
    if (first) { /* a window that lies in the padding altogether */
        memset(out, 0, pixel_bytes(job->in));
    }
}

static void pool_rows(void *context, size_t begin, size_t end)
{
    const struct job *job = (const struct job *)context;
    for (size_t row = begin; row < end; row++) {
        size_t image = row / job->out->height;
        size_t y = row % job->out->height;
        for (size_t x = 0; x < job->out->width; x++) {
            pool_pixel(job, image, y, x, pixel(job->out, row, x));
        }
    }
}

void onednn_kernel_pool(const struct onednn_crew *crew, const struct onednn_view *in,
                        const struct onednn_window *window, const struct onednn_view *out,
                        const struct onednn_view *copy)
{
    struct job job = {.crew = crew, .in = in, .other = copy, .out = out, .window = *window};
    bool halves = window->kernel == 2 && window->stride == 2 && window->padding == 0;
    assert(halves || copy == NULL);
    run_rows(crew, out, halves ? halve_rows : pool_rows, &job);
}

/* ---- twice the size ---- */

/* An input row's pixels to every second pixel of an output row, from the column `first` on. */
static void spread_row(const struct job *job, const unsigned char *from, size_t row, size_t first)
{
    size_t element = onednn_type_bytes(job->out->type);
    if (job->in->type != job->out->type) {
        encode_pixels(job, from, job->in->pitch, pixel(job->out, row, first), 2 * job->out->pitch,
                      job->in->width);
        return;
    }
    job->crew->rows->copy(pixel(job->out, row, first), 2 * job->out->pitch * element, from,
                          job->in->pitch * element, pixel_bytes(job->out), job->in->width);
}

/* The batch's rows of out are in pairs (dy), one pair a row of in. */
static void shuffle_rows(void *context, size_t begin, size_t end)
{
    const struct job *job = (const struct job *)context;
    size_t bytes = job->out->channels * onednn_type_bytes(job->in->type);
    for (size_t row = begin; row < end; row++) {
        const unsigned char *from = pixel(job->in, row / 2, 0) + row % 2 * 2 * bytes;
        spread_row(job, from, row, 0);
        spread_row(job, from + bytes, row, 1);
    }
}

void onednn_kernel_shuffle(const struct onednn_crew *crew, const struct onednn_view *in,
                           const struct onednn_view *out)
{
    struct job job = {.crew = crew, .in = in, .out = out};
    assert(in->channels == 4 * out->channels && out->height == 2 * in->height);
    run_rows(crew, out, shuffle_rows, &job);
}

static void repeat_rows(void *context, size_t begin, size_t end)
{
    const struct job *job = (const struct job *)context;
    for (size_t row = begin; row < end; row++) {
        const unsigned char *from = pixel(job->in, row / 2, 0);
        spread_row(job, from, row, 0);
        spread_row(job, from, row, 1);
    }
}

/* Where an output coordinate falls between two input ones. */
struct tap {
    size_t low;
    size_t high;
    float share; /* of high */
};

static struct tap tap_at(size_t out, size_t in_size, enum network_upsample mode)
{
    size_t out_size = 2 * in_size;
    float position;
    if (mode == NETWORK_BILINEAR_ALIGNED) {
        float step = out_size > 1 ? (float)(in_size - 1) / (float)(out_size - 1) : 0.0F;
        position = step * (float)out;
    } else {
        position = ((float)out + 0.5F) * 0.5F - 0.5F;
        position = position < 0.0F ? 0.0F : position;
    }
    struct tap tap = {.low = (size_t)position};
    tap.low = tap.low < in_size ? tap.low : in_size - 1;
    tap.high = tap.low + 1 < in_size ? tap.low + 1 : tap.low;
    tap.share = position - (float)tap.low;
    return tap;
}

static void blend_rows(void *context, size_t begin, size_t end)
{
    const struct job *job = (const struct job *)context;
    const struct onednn_view *in = job->in;
    const struct onednn_rows *rows = job->crew->rows;
    for (size_t row = begin; row < end; row++) {
        size_t base = row / job->out->height * in->height;
        struct tap y = tap_at(row % job->out->height, in->height, job->mode);
        for (size_t column = 0; column < job->out->width; column++) {
            struct tap x = tap_at(column, in->width, job->mode);
            const void *corner[4] = {
                pixel(in, base + y.low, x.low), pixel(in, base + y.low, x.high),
                pixel(in, base + y.high, x.low), pixel(in, base + y.high, x.high)};
            float weight[4] = {(1 - y.share) * (1 - x.share), (1 - y.share) * x.share,
                               y.share * (1 - x.share), y.share * x.share};
            void *out = pixel(job->out, row, column);
            if (in->type == ONEDNN_BF16) {
                rows->blend_bf16((uint16_t *)out, corner, weight, in->channels);
            } else if (in->type == ONEDNN_U8) {
                rows->blend_u8((uint8_t *)out, corner, weight, in->channels);
            } else {
                rows->blend_f32((float *)out, corner, weight, in->channels);
            }
        }
    }
}

void onednn_kernel_upsample(const struct onednn_crew *crew, const struct onednn_view *in,
                            enum network_upsample mode, const struct onednn_view *out)
{
    struct job job = {.crew = crew, .in = in, .out = out, .mode = mode};
    run_rows(crew, out, mode == NETWORK_NEAREST ? repeat_rows : blend_rows, &job);
}

/* ---- size and sum ---- */

/* One axis of a fit: `count` elements from `in` onwards go to `out` onwards, the rest is zero. */
struct overlap {
    size_t in;
    size_t out;
    size_t count;
};

static struct overlap overlap_of(size_t in_size, size_t out_size)
{
    struct overlap overlap = {0};
    if (out_size >= in_size) {
        overlap.out = (out_size - in_size) / 2;
        overlap.count = in_size;
    } else {
        /* Floor of a negative half, as Python's // does: one more is cut before than after. */
        overlap.in = (in_size - out_size + 1) / 2;
        overlap.count = out_size;
    }
    return overlap;
}

/* To zero, or the codes for it. */
static void clear_pixel(const struct onednn_view *out, unsigned char *at)
{
    if (out->type != ONEDNN_U8) {
        memset(at, 0, pixel_bytes(out));
        return;
    }
    const float *zero = out->codes->zero + out->first_code;
    for (size_t c = 0; c < out->channels; c++) {
        at[c] = (unsigned char)zero[c];
    }
}

static void clear_pixels(const struct onednn_view *out, size_t row, size_t column, size_t pixels)
{
    for (size_t i = 0; i < pixels; i++) {
        clear_pixel(out, pixel(out, row, column + i));
    }
}

static void fit_rows(void *context, size_t begin, size_t end)
{
    const struct job *job = (const struct job *)context;
    const struct onednn_view *in = job->in;
    const struct onednn_view *out = job->out;
    struct overlap v = overlap_of(in->height, out->height);
    struct overlap h = overlap_of(in->width, out->width);
    for (size_t row = begin; row < end; row++) {
        size_t y = row % out->height;
        if (y < v.out || y >= v.out + v.count) {
            clear_pixels(out, row, 0, out->width);
            continue;
        }
        size_t from = row / out->height * in->height + v.in + y - v.out;
        clear_pixels(out, row, 0, h.out);
        copy_pixels(job, in, from, h.in, out, row, h.out, h.count);
        clear_pixels(out, row, h.out + h.count, out->width - h.out - h.count);
    }
}

void onednn_kernel_fit(const struct onednn_crew *crew, const struct onednn_view *in,
                       const struct onednn_view *out)
{
    struct job job = {.crew = crew, .in = in, .out = out};
    run_rows(crew, out, fit_rows, &job);
}

/* The rows of whole images, borders included. */
static void border_rows(void *context, size_t begin, size_t end)
{
    const struct onednn_view *out = ((const struct job *)context)->out;
    size_t border = out->border;
    struct onednn_view whole = *out;
    whole.border = 0;
    whole.height += 2 * border;
    whole.width += 2 * border;
    for (size_t row = begin; row < end; row++) {
        size_t y = row % whole.height;
        if (y < border || y >= whole.height - border) {
            clear_pixels(&whole, row, 0, whole.width);
        } else {
            clear_pixels(&whole, row, 0, border);
            clear_pixels(&whole, row, whole.width - border, border);
        }
    }
}

void onednn_kernel_border(const struct onednn_crew *crew, const struct onednn_view *out)
{
    struct job job = {.crew = crew, .out = out};
    size_t height = out->height + 2 * out->border;
    onednn_parallel_for(crew->threads, crew->count * height, border_rows, &job);
}

/* ---- sums ---- */

#define SUM_CHANNELS 128 /* that go through floats at a time */

/* A view from a channel on. */
static struct onednn_view slice_of(const struct onednn_view *view, size_t first, size_t channels)
{
    struct onednn_view slice = *view;
    slice.data = (unsigned char *)view->data + first * onednn_type_bytes(view->type);
    slice.channels = channels;
    slice.first_code += first;
    return slice;
}

static void to_floats(const struct onednn_rows *rows, const struct onednn_view *in, size_t row,
                      size_t column, float *out)
{
    const void *from = pixel(in, row, column);
    if (in->type == ONEDNN_U8) {
        struct onednn_codes codes = codes_of(in);
        rows->decode(&codes, out, (const uint8_t *)from);
    } else if (in->type == ONEDNN_BF16) {
        rows->widen_bf16(out, (const uint16_t *)from, in->channels);
    } else {
        memcpy(out, from, in->channels * sizeof *out);
    }
}

static void from_floats(const struct onednn_rows *rows, const float *in,
                        const struct onednn_view *out, size_t row, size_t column)
{
    void *to = pixel(out, row, column);
    if (out->type == ONEDNN_U8) {
        struct onednn_codes codes = codes_of(out);
        rows->encode_f32(&codes, (uint8_t *)to, 0, in, 0, 1);
    } else if (out->type == ONEDNN_BF16) {
        rows->narrow_bf16((uint16_t *)to, in, out->channels);
    } else {
        memcpy(to, in, out->channels * sizeof *in);
    }
}

static void add_slices(const struct job *job, size_t begin, size_t end, size_t first,
                       size_t channels)
{
    const struct onednn_rows *rows = job->crew->rows;
    struct onednn_view a = slice_of(job->in, first, channels);
    struct onednn_view b = slice_of(job->other, first, channels);
    struct onednn_view out = slice_of(job->out, first, channels);
    float left[SUM_CHANNELS];
    float right[SUM_CHANNELS];
    for (size_t row = begin; row < end; row++) {
        for (size_t x = 0; x < out.width; x++) {
            to_floats(rows, &a, row, x, left);
            to_floats(rows, &b, row, x, right);
            rows->add_f32(left, left, right, channels, job->relu);
            from_floats(rows, left, &out, row, x);
        }
    }
}

static void add_mixed_rows(void *context, size_t begin, size_t end)
{
    const struct job *job = (const struct job *)context;
    size_t channels = job->out->channels;
    for (size_t first = 0; first < channels; first += SUM_CHANNELS) {
        size_t rest = channels - first;
        add_slices(job, begin, end, first, rest < SUM_CHANNELS ? rest : SUM_CHANNELS);
    }
}

static void add_rows(void *context, size_t begin, size_t end)
{
    const struct job *job = (const struct job *)context;
    const struct onednn_rows *rows = job->crew->rows;
    size_t channels = job->out->channels;
    for (size_t row = begin; row < end; row++) {
        for (size_t x = 0; x < job->out->width; x++) {
            const void *a = pixel(job->in, row, x);
            const void *b = pixel(job->other, row, x);
            void *out = pixel(job->out, row, x);
            if (job->out->type == ONEDNN_BF16) {
                rows->add_bf16((uint16_t *)out, (const uint16_t *)a, (const uint16_t *)b, channels,
                               job->relu);
            } else {
                rows->add_f32((float *)out, (const float *)a, (const float *)b, channels,
                              job->relu);
            }
        }
    }
}

void onednn_kernel_add(const struct onednn_crew *crew, const struct onednn_view *a,
                       const struct onednn_view *b, bool relu, const struct onednn_view *out)
{
    struct job job = {.crew = crew, .in = a, .other = b, .out = out, .relu = relu};
    bool mixed = a->type != out->type || b->type != out->type || out->type == ONEDNN_U8;
    run_rows(crew, out, mixed ? add_mixed_rows : add_rows, &job);
}

static void widen_rows(void *context, size_t begin, size_t end)
{
    const struct job *job = (const struct job *)context;
    for (size_t row = begin; row < end; row++) {
        for (size_t x = 0; x < job->in->width; x++) {
            job->crew->rows->widen_bf16((float *)(void *)pixel(job->out, row, x),
                                        (const uint16_t *)(const void *)pixel(job->in, row, x),
                                        job->in->channels);
        }
    }
}

void onednn_kernel_widen(const struct onednn_crew *crew, const struct onednn_view *in,
                         const struct onednn_view *out)
{
    struct job job = {.crew = crew, .in = in, .out = out};
    assert(in->type == ONEDNN_BF16 && out->type == ONEDNN_F32);
    run_rows(crew, out, widen_rows, &job);
}
