#include "onednn_winograd.h"

#include "onednn_parallel.h"

/* Transformed inputs of a block of tiles are to stay in a core's second cache, beside one panel's
 * products; but a block has this many tiles even where they do not, since each block reads all
 * weights. */
#define BLOCK_FLOATS ((size_t)80 << 10)
#define LEAST_TILES  32u
#define MOST_TILES   96u
#define ALIGN_FLOATS 64u

/* Where it pays. Fewer channels leave too little between the transforms. Transformed weights are
 * four times the plain ones: where few tiles share them, the time that they gain is not worth their
 * memory. */
#define LEAST_IN    16u
#define LEAST_OUT   8u
#define LEAST_SHARE 64u

const struct onednn_winograd_kernel *onednn_winograd_select(const struct onednn_isa *isa)
{
    if (isa->vector == ONEDNN_VECTOR_AVX512) {
        return &onednn_winograd_avx512;
    }
    return isa->vector == ONEDNN_VECTOR_AVX2 && isa->fma ? &onednn_winograd_avx2 : NULL;
}

/* How many multiples hold a count. */
static size_t up_to(size_t count, size_t multiple)
{
    return (count + multiple - 1) / multiple;
}

bool onednn_winograd_pays(size_t in_channels, size_t out_channels, size_t height, size_t width)
{
    size_t tiles = up_to(height, WINOGRAD_TILE) * up_to(width, WINOGRAD_TILE);
    return in_channels >= LEAST_IN && out_channels >= LEAST_OUT && tiles >= LEAST_SHARE;
}

/* ---- weights ---- */

size_t onednn_winograd_weights_bytes(const struct onednn_winograd_kernel *kernel,
                                     size_t in_channels, size_t out_channels)
{
    size_t panels = up_to(out_channels, kernel->panel);
    return panels * kernel->panel * in_channels * WINOGRAD_POINTS * sizeof(float);
}

/* Three values, `step` apart, to six: the polynomial at each point, divided by what the products
 * there are too large by. */
static void weights_line(const double *g, size_t step, double *u, size_t out_step)
{
    const double a = WINOGRAD_A;
    const double b = WINOGRAD_B;
    const double at_a = 1 / (2 * a * a * (a * a - b * b));
    const double at_b = 1 / (2 * b * b * (b * b - a * a));
    double even_a = g[0] + a * a * g[2 * step];
    double even_b = g[0] + b * b * g[2 * step];
    u[0] = g[0] / (a * a * b * b);
    u[out_step] = (even_a + a * g[step]) * at_a;
    u[2 * out_step] = (even_a - a * g[step]) * at_a;
    u[3 * out_step] = (even_b + b * g[step]) * at_b;
    u[4 * out_step] = (even_b - b * g[step]) * at_b;
    u[5 * out_step] = g[2 * step];
}

static void transform_weights(const float *weights, double *out)
{
    double g[9];
    double half[WINOGRAD_SIDE * 3];
    for (size_t i = 0; i < 9; i++) {
        g[i] = (double)weights[i];
    }
    for (size_t x = 0; x < 3; x++) {
        weights_line(g + x, 3, half + x, 3);
    }
    for (size_t y = 0; y < WINOGRAD_SIDE; y++) {
        weights_line(half + 3 * y, 1, out + WINOGRAD_SIDE * y, 1);
    }
}

struct packing {
    const float *weights;
    size_t in_channels;
    size_t out_channels;
    size_t panel;
    float *out;
};

/* One input channel's weights for one panel, whose rows are written whole. */
static void pack_rows(const struct packing *p, size_t panel, size_t in, float *out)
{
    for (size_t o = 0; o < p->panel; o++) {
        size_t output = panel * p->panel + o;
        double transformed[WINOGRAD_POINTS] = {0};
        if (output < p->out_channels) {
            transform_weights(p->weights + (output * p->in_channels + in) * 9, transformed);
        }
        for (size_t k = 0; k < WINOGRAD_POINTS; k++) {
            out[k * p->in_channels * p->panel + o] = (float)transformed[k];
        }
    }
}

static void pack_panels(void *context, size_t begin, size_t end)
{
    const struct packing *p = (const struct packing *)context;
    for (size_t panel = begin; panel < end; panel++) {
        float *out = p->out + panel * WINOGRAD_POINTS * p->in_channels * p->panel;
        for (size_t in = 0; in < p->in_channels; in++) {
            pack_rows(p, panel, in, out + in * p->panel);
        }
    }
}

void onednn_winograd_pack(const struct onednn_winograd_kernel *kernel, const float *weights,
                          size_t in_channels, size_t out_channels, uint32_t threads, float *out)
{
    struct packing packing = {weights, in_channels, out_channels, kernel->panel, out};
    onednn_parallel_for(threads, up_to(out_channels, kernel->panel), pack_panels, &packing);
}

/* ---- running ---- */

/* How a layer is cut: into blocks of tiles, and, where there are fewer of these than threads,
 * each of them into groups of panels, which transform the same inputs once more. */
struct cut {
    size_t tiles;
    size_t blocks;
    size_t panels;
    size_t groups; /* of a block */
    size_t most;   /* tiles of a block */
    size_t parts;  /* that run at the same time */
};

static struct cut cut_of(const struct onednn_winograd_kernel *kernel,
                         const struct onednn_winograd_layer *l, uint32_t threads)
{
    struct cut cut = {.tiles = l->count * up_to(l->height, WINOGRAD_TILE) *
                               up_to(l->width, WINOGRAD_TILE),
                      .panels = up_to(l->out_channels, kernel->panel)};
    size_t a_tile = WINOGRAD_POINTS * (onednn_winograd_row(l->in_channels) + kernel->panel);
    size_t fit = BLOCK_FLOATS / a_tile / kernel->rows * kernel->rows;
    fit = fit < LEAST_TILES ? LEAST_TILES : fit;
    fit = fit > MOST_TILES ? MOST_TILES : fit;
    cut.blocks = up_to(cut.tiles, fit);
    if (cut.blocks >= threads) {
        cut.blocks = up_to(cut.blocks, threads) * threads;
        cut.groups = 1;
    } else {
        cut.groups = up_to(threads, cut.blocks);
        cut.groups = cut.groups > cut.panels ? cut.panels : cut.groups;
    }
    cut.blocks = cut.blocks > cut.tiles ? cut.tiles : cut.blocks;
    cut.most = up_to(cut.tiles, cut.blocks);
    size_t pieces = cut.blocks * cut.groups;
    cut.parts = pieces < threads ? pieces : threads;
    return cut;
}

static size_t scratch_floats(const struct onednn_winograd_kernel *kernel,
                             const struct onednn_winograd_layer *l, const struct cut *cut)
{
    size_t row = onednn_winograd_row(l->in_channels);
    size_t floats = WINOGRAD_POINTS * cut->most * (row + kernel->panel) + row;
    return up_to(floats, ALIGN_FLOATS) * ALIGN_FLOATS;
}

size_t onednn_winograd_scratch_bytes(const struct onednn_winograd_kernel *kernel,
                                     const struct onednn_winograd_layer *layer, uint32_t threads)
{
    struct cut cut = cut_of(kernel, layer, threads);
    return cut.parts * scratch_floats(kernel, layer, &cut) * sizeof(float);
}

struct call {
    const struct onednn_winograd_kernel *kernel;
    const struct onednn_winograd_layer *layer;
    struct cut cut;
    float *scratch;
};

/* A piece is a block's group. */
static void run_piece(const struct call *call, size_t piece, float *scratch)
{
    const struct cut *cut = &call->cut;
    size_t block = piece / cut->groups;
    size_t group = piece % cut->groups;
    struct onednn_winograd_part part = {.first = cut->tiles * block / cut->blocks,
                                        .tiles = cut->tiles * (block + 1) / cut->blocks -
                                                 cut->tiles * block / cut->blocks,
                                        .panel = cut->panels * group / cut->groups,
                                        .panel_end = cut->panels * (group + 1) / cut->groups,
                                        .scratch = scratch};
    call->kernel->run(call->layer, &part);
}

/* Each part has scratch of its own, whichever thread runs it. */
static void run_parts(void *context, size_t begin, size_t end)
{
    const struct call *call = (const struct call *)context;
    size_t pieces = call->cut.blocks * call->cut.groups;
    for (size_t part = begin; part < end; part++) {
        float *scratch = call->scratch +
                         part * scratch_floats(call->kernel, call->layer, &call->cut);
        for (size_t i = pieces * part / call->cut.parts; i < pieces * (part + 1) / call->cut.parts;
             i++) {
            run_piece(call, i, scratch);
        }
    }
}

void onednn_winograd_run(const struct onednn_winograd_kernel *kernel,
                         const struct onednn_winograd_layer *layer, uint32_t threads, void *scratch)
{
    struct call call = {.kernel = kernel,
                        .layer = layer,
                        .cut = cut_of(kernel, layer, threads),
                        .scratch = (float *)scratch};
    onednn_parallel_for(threads, call.cut.parts, run_parts, &call);
}
