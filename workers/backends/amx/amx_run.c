/* A batch through a plan: zeros, tiles in, group after group, labels out. */
#include "amx_plan.h"
#include "workers/backends/onednn/onednn_parallel.h"

#include <string.h>

/* Weights of a group of CHANNELS that a thread goes through before it takes the next ones, and what
 * it reads of the image with them: together they fit the cache. */
#define CHUNK_BYTES     ((size_t)1 << 20)
#define BLOCK_ROWS      4u
#define LEAST_PER_CLEAR ((size_t)256 << 10) /* less is not worth a second thread */

struct runner {
    const struct amx_plan *plan;
    const struct amx_run *run;
    struct onednn_crew crew;
    struct amx_ends ends;
    unsigned char *arena;
    size_t group;
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static struct onednn_view view_of(const struct runner *r, uint32_t value)
{
    return amx_layout_view(&r->plan->layout, value, r->arena);
}

/* ---- zeros ---- */

struct clearing {
    const struct runner *runner;
    size_t step;
};

/* A root whose zeros are due: as an image without border, all of whose channels count. False: it
 * has none, or not now. */
static bool root_to_clear(const struct runner *r, size_t value, size_t step,
                          struct onednn_view *out, size_t *border)
{
    const struct amx_value *v = &r->plan->layout.values[value];
    bool padded = v->pitch != v->channels;
    if (v->begins != step || (v->border == 0 && !padded)) {
        return false;
    }
    *out = view_of(r, (uint32_t)value);
    *border = padded ? SIZE_MAX : v->border;
    out->height += 2 * v->border;
    out->width += 2 * v->border;
    out->channels = v->pitch;
    out->border = 0;
    return true;
}

/* Zeros, or the codes for them. */
static void clear_pixels(const struct onednn_view *view, unsigned char *at, size_t pixels)
{
    size_t bytes = view->pitch * onednn_type_bytes(view->type);
    size_t channels = view->type == ONEDNN_U8 ? view->codes->channels : 0;
    memset(at, 0, pixels * bytes);
    for (size_t c = 0; c < channels; c++) {
        unsigned char zero = (unsigned char)view->codes->zero[c];
        for (size_t p = 0; p < pixels && zero != 0; p++) {
            at[p * bytes + c] = zero;
        }
    }
}

static void clear_line(const struct onednn_view *view, size_t line, size_t border)
{
    size_t pixel = view->pitch * onednn_type_bytes(view->type);
    unsigned char *at = (unsigned char *)view->data + line * view->width * pixel;
    size_t y = line % view->height;
    if (border == SIZE_MAX || y < border || y >= view->height - border) {
        clear_pixels(view, at, view->width);
    } else {
        clear_pixels(view, at, border);
        clear_pixels(view, at + (view->width - border) * pixel, border);
    }
}

/* Lines are counted through all roots that are due. */
static void clear_lines(void *context, size_t begin, size_t end)
{
    const struct clearing *clearing = (const struct clearing *)context;
    const struct runner *r = clearing->runner;
    size_t before = 0;
    for (size_t i = 0; i < r->plan->layout.value_count; i++) {
        struct onednn_view view;
        size_t border;
        if (!root_to_clear(r, i, clearing->step, &view, &border)) {
            continue;
        }
        size_t lines = r->crew.count * view.height;
        size_t first = begin > before ? begin - before : 0;
        for (size_t line = first; line < lines && before + line < end; line++) {
            clear_line(&view, line, border);
        }
        before += lines;
    }
}

static void clear(const struct runner *r, size_t step)
{
    struct clearing clearing = {r, step};
    size_t lines = 0;
    size_t bytes = 0;
    for (size_t i = 0; i < r->plan->layout.value_count; i++) {
        struct onednn_view view;
        size_t border;
        if (root_to_clear(r, i, step, &view, &border)) {
            size_t wide = border == SIZE_MAX ? view.height : 4 * border;
            lines += r->crew.count * view.height;
            bytes += r->crew.count * wide * view.width * view.pitch * onednn_type_bytes(view.type);
        }
    }
    onednn_parallel_for(bytes > LEAST_PER_CLEAR ? r->crew.threads : 1, lines, clear_lines,
                        &clearing);
}

/* ---- tiles in ---- */

static void load_piece(const struct runner *r, const struct onednn_view *view, size_t row,
                       size_t column)
{
    const struct backend_batch *batch = r->ends.batch;
    size_t element = unetserve_dtype_size(batch->dtype);
    size_t plane = view->height * view->width * element;
    size_t pixels = smaller(ONEDNN_ROWS_PIXELS, view->width - column);
    size_t image = row / view->height;
    size_t y = row % view->height;
    size_t line = image * (view->height + 2 * view->border) + y + view->border;
    size_t at = line * (view->width + 2 * view->border) + view->border + column;
    const unsigned char *in = (const unsigned char *)batch->inputs[image] +
                              (y * view->width + column) * element;
    for (size_t c = 0; c < view->channels; c += ONEDNN_ROWS_CHANNELS) {
        size_t channels = smaller(ONEDNN_ROWS_CHANNELS, view->channels - c);
        r->run->rows->load_bf16(&r->run->options->preprocess, batch->dtype, in + c * plane, plane,
                                channels, pixels, (uint16_t *)view->data + at * view->pitch + c,
                                view->pitch);
    }
}

static void load_rows(void *context, size_t begin, size_t end)
{
    const struct runner *r = (const struct runner *)context;
    struct onednn_view view = view_of(r, 0);
    for (size_t row = begin; row < end; row++) {
        for (size_t column = 0; column < view.width; column += ONEDNN_ROWS_PIXELS) {
            load_piece(r, &view, row, column);
        }
    }
}

/* ---- groups of rows ---- */

static void run_rows_of(const struct runner *r, uint32_t layer, size_t image, uint32_t low,
                        uint32_t high)
{
    const struct amx_conv *conv = &r->plan->convs[layer];
    struct amx_part part = {image, low, high, 0, conv->weights->shape.blocks};
    if (low < high) {
        amx_conv_run(conv, &r->ends, &part);
    }
}

/* Items: each inner cut of each image. */
static void run_cuts(void *context, size_t begin, size_t end)
{
    const struct runner *r = (const struct runner *)context;
    const struct amx_bands *bands = &r->plan->bands[r->group];
    for (size_t item = begin; item < end; item++) {
        size_t number = item % (bands->count - 1) + 1;
        for (size_t i = 0; i < bands->layer_count; i++) {
            struct amx_cut cut = bands->cuts[number * bands->layer_count + i];
            run_rows_of(r, bands->layers[i], item / (bands->count - 1), cut.low, cut.high);
        }
    }
}

/* How far each layer goes for the last one to reach `target`: whole blocks of rows, within the
 * band. */
static void set_targets(const struct runner *r, const struct amx_bands *bands,
                        const struct amx_cut *until, uint32_t target, const uint32_t *done,
                        uint32_t *targets)
{
    size_t last = bands->layer_count - 1;
    bool ends = target >= until[last].low;
    targets[last] = target;
    for (size_t i = last; i-- > 0;) {
        uint32_t needed = amx_bands_needed(r->run->network, &r->plan->layout, bands, i, targets);
        uint32_t more = needed > done[i] ? needed - done[i] : 0;
        uint32_t whole = done[i] + (more + BLOCK_ROWS - 1) / BLOCK_ROWS * BLOCK_ROWS;
        targets[i] = ends || whole > until[i].low ? until[i].low : whole;
    }
}

static void run_band(const struct runner *r, const struct amx_bands *bands, size_t image,
                     size_t number, uint32_t *done, uint32_t *targets)
{
    const struct amx_cut *from = &bands->cuts[number * bands->layer_count];
    const struct amx_cut *until = from + bands->layer_count;
    size_t last = bands->layer_count - 1;
    for (size_t i = 0; i <= last; i++) {
        done[i] = from[i].high;
    }
    while (done[last] < until[last].low) {
        uint32_t target = done[last] + bands->strip;
        target = target < until[last].low ? target : until[last].low;
        set_targets(r, bands, until, target, done, targets);
        for (size_t i = 0; i <= last; i++) {
            run_rows_of(r, bands->layers[i], image, done[i], targets[i]);
            done[i] = targets[i] > done[i] ? targets[i] : done[i];
        }
    }
}

static void run_bands(void *context, size_t begin, size_t end)
{
    const struct runner *r = (const struct runner *)context;
    const struct amx_bands *bands = &r->plan->bands[r->group];
    uint32_t done[AMX_GROUP_LAYERS];
    uint32_t targets[AMX_GROUP_LAYERS];
    for (size_t item = begin; item < end; item++) {
        run_band(r, bands, item / bands->count, item % bands->count, done, targets);
    }
}

static void run_group_rows(struct runner *r)
{
    const struct amx_bands *bands = &r->plan->bands[r->group];
    if (bands->count > 1) {
        onednn_parallel_for(r->crew.threads, r->crew.count * (bands->count - 1), run_cuts, r);
    }
    onednn_parallel_for(r->crew.threads, r->crew.count * bands->count, run_bands, r);
}

/* ---- one layer of many weights ---- */

/* Some blocks of channels, for all images: as many rows as fit the cache beside the blocks'
 * weights, then the next rows. */
static void run_chunk(const struct runner *r, const struct amx_conv *conv, size_t first, size_t end)
{
    size_t line = conv->in.width * conv->in.pitch * conv->weights->shape.element * conv->stride;
    size_t rows = AMX_STRIP_BYTES / line / BLOCK_ROWS * BLOCK_ROWS;
    rows = rows < BLOCK_ROWS ? BLOCK_ROWS : rows;
    for (size_t image = 0; image < r->crew.count; image++) {
        for (size_t top = 0; top < conv->height; top += rows) {
            struct amx_part part = {image, top, smaller(top + rows, conv->height), first, end};
            amx_conv_run(conv, &r->ends, &part);
        }
    }
}

/* Items: blocks of channels. */
static void run_blocks(void *context, size_t begin, size_t end)
{
    const struct runner *r = (const struct runner *)context;
    const struct amx_conv *conv = &r->plan->convs[r->plan->layout.groups[r->group].first];
    size_t bytes = conv->weights->shape.steps * amx_step_bytes(&conv->weights->shape);
    size_t chunk = bytes < CHUNK_BYTES ? CHUNK_BYTES / bytes : 1;
    for (size_t first = begin; first < end; first += chunk) {
        run_chunk(r, conv, first, smaller(first + chunk, end));
    }
}

/* ---- other layers ---- */

/* The half of a concatenation that its input number `which` fills. */
static struct onednn_view half_of(const struct runner *r, size_t layer, uint32_t which)
{
    const struct network_layer *concat = &r->run->network->layers[layer];
    size_t first = view_of(r, concat->inputs[0]).channels;
    struct onednn_view half = view_of(r, (uint32_t)layer + 1);
    half.first_code = which == 0 ? 0 : first;
    half.data = (unsigned char *)half.data + half.first_code * onednn_type_bytes(half.type);
    half.channels = which == 0 ? first : half.channels - first;
    return half;
}

static void run_concat(const struct runner *r, size_t layer)
{
    for (uint32_t k = 0; k < 2; k++) {
        if (r->plan->layout.layers[layer].copies[k]) {
            struct onednn_view in = view_of(r, r->run->network->layers[layer].inputs[k]);
            struct onednn_view out = half_of(r, layer, k);
            onednn_kernel_copy(&r->crew, &in, &out);
        }
    }
}

static void run_whole(const struct runner *r, size_t layer)
{
    const struct network_layer *l = &r->run->network->layers[layer];
    struct onednn_view in = view_of(r, l->inputs[0]);
    struct onednn_view out = view_of(r, (uint32_t)layer + 1);
    struct onednn_view second;
    struct onednn_window window = {l->kernel, l->stride, l->padding};
    switch (l->op) {
    case NETWORK_CONV:
    case NETWORK_CONV_UP: break;
    case NETWORK_MAX_POOL: onednn_kernel_pool(&r->crew, &in, &window, &out, NULL); break;
    case NETWORK_UPSAMPLE: onednn_kernel_upsample(&r->crew, &in, l->upsample, &out); break;
    case NETWORK_CONCAT: run_concat(r, layer); break;
    case NETWORK_FIT: onednn_kernel_fit(&r->crew, &in, &out); break;
    case NETWORK_ADD:
        second = view_of(r, l->inputs[1]);
        onednn_kernel_add(&r->crew, &in, &second, l->relu, &out);
        break;
    }
}

/* ---- a batch ---- */

static void run_group(struct runner *r)
{
    const struct amx_group *group = &r->plan->layout.groups[r->group];
    switch (group->mode) {
    case AMX_MODE_ROWS: run_group_rows(r); break;
    case AMX_MODE_CHANNELS:
        onednn_parallel_for(r->crew.threads, r->plan->convs[group->first].weights->shape.blocks,
                            run_blocks, r);
        break;
    case AMX_MODE_WHOLE: run_whole(r, group->first); break;
    }
}

/* A result that lies in memory, through floats. */
static void store(const struct runner *r)
{
    const struct amx_layout *layout = &r->plan->layout;
    struct onednn_view result = view_of(r, layout->result);
    struct onednn_view wide = {.data = r->arena + layout->result_offset,
                               .pitch = result.channels,
                               .channels = result.channels,
                               .height = result.height,
                               .width = result.width,
                               .type = ONEDNN_F32};
    onednn_kernel_widen(&r->crew, &result, &wide);
    onednn_kernel_store(&r->crew, &wide, r->ends.batch);
}

static void tick(const struct amx_run *run)
{
    if (run->options->tick != NULL) {
        run->options->tick(run->options->opaque);
    }
}

void amx_plan_run(const struct amx_plan *plan, const struct amx_run *run,
                  const struct backend_batch *batch, unsigned char *arena)
{
    const struct amx_layout *layout = &plan->layout;
    struct runner r = {
        .plan = plan,
        .run = run,
        .crew = {.rows = run->rows, .threads = run->options->threads, .count = layout->count},
        .ends = {run->rows, batch},
        .arena = arena};
    clear(&r, 0);
    onednn_parallel_for(r.crew.threads, (size_t)layout->count * layout->height, load_rows, &r);
    for (r.group = 0; r.group < layout->group_count; r.group++) {
        uint32_t first = layout->groups[r.group].first;
        bool nothing = layout->groups[r.group].mode == AMX_MODE_WHOLE &&
                       amx_layout_idle(run->network, layout, first);
        tick(run);
        clear(&r, r.group + 1);
        if (!nothing) {
            run_group(&r);
        }
        if (run->watch != NULL) {
            run->watch(run->opaque, layout, r.group);
        }
    }
    if (!layout->result_at_once) {
        store(&r);
    }
    tick(run);
}
