/*
 * What a network would take on AMX, where there is none to measure it: the tile instructions of
 * each convolution are counted on the software model, and priced with what is published of their
 * throughput. Prints the table of docs/amx.md.
 *
 *   bench/amx-cost [base [size [bf16|int8]]]
 */
#include "bench/random_network.h"
#include "tests/amx/amx_model.h"
#include "workers/backends/amx/amx.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#define CORES 2
/* Cycles, and bytes a cycle, of one core. */
#define PRODUCT_CYCLES 16.0 /* TDPBF16PS or TDPBUSD, of 16 rows */
#define LOAD_CYCLES    8.0  /* a tile from the first-level cache: two lines a cycle */
#define STORE_CYCLES   16.0 /* a tile: a line a cycle */
#define OUT_CYCLES     2.0  /* 16 sums through ReLU to bf16 */
#define SCALE_CYCLES   2.0  /* 16 whole sums to numbers, where they lie */
#define L2_BYTES       48.0
#define FAR_BYTES      4.0     /* from the cache that all cores share, or from memory */
#define PRODUCT_FLOP   16384.0 /* of bfloat16; of bytes twice that */
/* At the peak that was measured on such a machine. */
#define PEAK_FLOPS 7.5e12
#define HERTZ      (PEAK_FLOPS / CORES / PRODUCT_FLOP * PRODUCT_CYCLES)
#define L1_WEIGHTS ((size_t)32 << 10)

static struct amx_counts *counts; /* one a layer */
static struct {
    const unsigned char *from;
    const unsigned char *end;
} * places; /* of weights, one a layer */
static size_t layer_count;

/* ---- counting ---- */

static void counted_sum(const struct amx_block *block)
{
    (void)amx_model_take_counts();
    amx_modelled.sum(block);
    struct amx_counts more = amx_model_take_counts();
    for (size_t i = 0; i < layer_count; i++) {
        if (block->weights >= places[i].from && block->weights < places[i].end) {
            counts[i].loads += more.loads;
            counts[i].stores += more.stores;
            counts[i].sums += more.sums;
        }
    }
}

static void nothing_put(const struct amx_output *output)
{
    (void)output;
}

static void nothing_pooled(const struct amx_output *output, const float *below)
{
    (void)output;
    (void)below;
}

const struct amx_kernels *amx_kernels_here(char *error, size_t error_size)
{
    static struct amx_kernels kernels;
    (void)error;
    (void)error_size;
    kernels = amx_modelled;
    kernels.sum = counted_sum;
    kernels.put = nothing_put;
    kernels.pool = nothing_pooled;
    return &kernels;
}

/* ---- prices ---- */

struct price {
    double product;
    double load;
    double l2;
    double out;
    double far;
    double far_bytes;
};

static double value_bytes(const struct amx_layout *layout, uint32_t value)
{
    const struct amx_value *v = &layout->values[value];
    return (double)v->element * v->height * v->width * v->channels;
}

/* What of a layer's input was not written just now by its own group. */
static double bytes_read(const struct network *network, const struct amx_layout *layout,
                         size_t layer)
{
    uint32_t value = network->layers[layer].inputs[0];
    double bytes = value_bytes(layout, value);
    const struct amx_group *group = &layout->groups[layout->layers[layer].group];
    for (uint32_t i = group->first; i < layer && group->mode == AMX_MODE_ROWS; i++) {
        uint32_t pooled = layout->layers[i].pooled;
        bool concat = network->layers[i].op == NETWORK_CONCAT;
        bool pool = layout->layers[i].done_before;
        if (!concat && !pool && amx_layout_contains(layout, value, i + 1)) {
            bytes -= value_bytes(layout, i + 1);
        } else if (pooled != 0 && amx_layout_contains(layout, value, pooled)) {
            bytes -= value_bytes(layout, pooled);
        }
    }
    return bytes;
}

/* Bytes that go beyond the second-level caches, of all cores together. */
static double far_bytes(const struct network *network, const struct amx_plan *plan, size_t layer)
{
    const struct amx_layout *layout = &plan->layout;
    const struct amx_shape *shape = &plan->convs[layer].weights->shape;
    bool rows = layout->groups[layout->layers[layer].group].mode == AMX_MODE_ROWS;
    double weights = (double)amx_packed_bytes(shape);
    double read = bytes_read(network, layout, layer);
    double written = layer + 1 == layout->result ? 0 : value_bytes(layout, (uint32_t)layer + 1);
    if (layout->layers[layer].pooled != 0) {
        written += value_bytes(layout, layout->layers[layer].pooled);
    }
    if (rows) {
        return CORES * weights + read + written;
    }
    double chunks = weights / CORES / (double)((size_t)1 << 20);
    bool again = read > (double)AMX_STRIP_BYTES && chunks > 1;
    return weights + CORES * read * (again ? chunks : 1) + written;
}

/* Cycles of one core for its share. */
static struct price price_of(const struct network *network, const struct amx_plan *plan,
                             size_t layer)
{
    const struct amx_counts *c = &counts[layer];
    const struct amx_shape *shape = &plan->convs[layer].weights->shape;
    double sums = (double)c->sums / CORES;
    double stores = (double)c->stores / CORES;
    double loads = (double)c->loads / CORES;
    double weight_loads = loads - sums - stores;
    size_t block = shape->steps * amx_step_bytes(shape);
    double window = (double)(shape->kernel * shape->kernel);
    /* Of four tiles' pixels all steps of one window read the same rows. */
    double rows = AMX_TILES + (double)shape->kernel - 1;
    double columns = AMX_ROWS + (double)shape->kernel - 1;
    double pixels = rows * columns * AMX_ROW_BYTES / (AMX_TILES * window);
    struct price price = {.product = sums * PRODUCT_CYCLES, .load = loads * LOAD_CYCLES};
    price.l2 = (sums * pixels + (block > L1_WEIGHTS ? weight_loads * 1024 : 0)) / L2_BYTES;
    double scaled = shape->element == 1 ? SCALE_CYCLES : 0;
    price.out = stores * (STORE_CYCLES + AMX_ROWS * (OUT_CYCLES + scaled));
    price.far_bytes = far_bytes(network, plan, layer);
    price.far = price.far_bytes / CORES / FAR_BYTES;
    return price;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static double flop_of(const struct network *network, size_t layer, uint32_t size)
{
    struct network part = *network;
    part.layer_count = layer;
    double before = (double)network_flop(&part, size, size);
    part.layer_count = layer + 1;
    return (double)network_flop(&part, size, size) - before;
}

static double ms_of(double cycles)
{
    return cycles / HERTZ * 1e3;
}

struct totals {
    double low;
    double high;
    double flop;
};

static void print_layer(const struct network *network, const struct amx_plan *plan, size_t layer,
                        uint32_t size, struct totals *totals)
{
    static const char *const modes[] = {"rows", "channels", "whole"};
    const struct network_layer *l = &network->layers[layer];
    const struct amx_layout *layout = &plan->layout;
    const struct amx_value *in = &layout->values[l->inputs[0]];
    const struct amx_group *group = &layout->groups[layout->layers[layer].group];
    struct price p = price_of(network, plan, layer);
    double low = larger(larger(p.product, p.load), larger(p.l2, p.far));
    double high = low + p.out;
    double flop = flop_of(network, layer, size);
    printf("| %s %u -> %u, %u x %u | %s %u | %.2f | %.3f | %.3f | %.3f | %.3f | %.3f (%.1f) | "
           "%.3f | %.2f - %.2f |\n",
           l->op == NETWORK_CONV_UP ? "up"
           : l->kernel == 1         ? "1 x 1"
                                    : "3 x 3",
           in->channels, l->channels, in->height, in->width, modes[group->mode],
           layout->layers[layer].group, (double)counts[layer].sums * 1e-6, ms_of(p.product),
           ms_of(p.load), ms_of(p.l2), ms_of(p.out), ms_of(p.far), p.far_bytes / 1e6, ms_of(high),
           flop / (ms_of(high) * 1e-3) / PEAK_FLOPS, flop / (ms_of(low) * 1e-3) / PEAK_FLOPS);
    totals->low += low;
    totals->high += high;
    totals->flop += flop;
}

static void print_table(const struct network *network, const struct amx_plan *plan, uint32_t size)
{
    struct totals totals = {0};
    printf("| layer, input | group | products, million | products, ms | loads, ms | L2, ms | out, "
           "ms | beyond L2, ms (MB) | together, ms | of the peak |\n"
           "|---|---|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < network->layer_count; i++) {
        if (plan->convs[i].offsets != NULL) {
            print_layer(network, plan, i, size, &totals);
        }
    }
    printf("\n%.1f GFLOP: %.1f ms at the peak. Together %.1f ms, %.2f of the peak; if the way out "
           "hides behind products, %.1f ms, %.2f.\n",
           totals.flop * 1e-9, totals.flop / PEAK_FLOPS * 1e3, ms_of(totals.high),
           totals.flop / PEAK_FLOPS * 1e3 / ms_of(totals.high), ms_of(totals.low),
           totals.flop / PEAK_FLOPS * 1e3 / ms_of(totals.low));
}

/* ---- a run ---- */

static int run_once(void *instance, const struct network *network, uint32_t size)
{
    void *tile = calloc((size_t)network->in_channels * size * size, sizeof(uint16_t));
    uint8_t *labels = (uint8_t *)malloc((size_t)size * size);
    const void *input = tile;
    struct backend_batch batch = {.count = 1,
                                  .dtype = UNETSERVE_U16,
                                  .height = size,
                                  .width = size,
                                  .inputs = &input,
                                  .labels = &labels};
    /* The first run says where weights lie, the second is counted. */
    int error = tile != NULL && labels != NULL ? backend_amx.forward(instance, &batch) : -ENOMEM;
    const struct amx_plan *plan = amx_last_plan(instance);
    for (size_t i = 0; i < network->layer_count && error == 0; i++) {
        const struct amx_weights *weights = plan->convs[i].weights;
        places[i].from = weights->packed;
        places[i].end = weights->packed != NULL
                            ? weights->packed + amx_packed_bytes(&weights->shape)
                            : NULL;
    }
    layer_count = network->layer_count;
    error = error == 0 ? backend_amx.forward(instance, &batch) : error;
    free(tile);
    free(labels);
    return error;
}

/* Some ranges: where they lie costs nothing. The last layer is kept, as calibration keeps it. */
static int make_ranges(const struct network *network, struct quantise_ranges *out)
{
    *out = (struct quantise_ranges){.layer_count = network->layer_count};
    out->layers = (struct quantise_range *)calloc(network->layer_count, sizeof *out->layers);
    if (out->layers == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < network->layer_count; i++) {
        out->layers[i] = (struct quantise_range){
            .low = -1, .high = 1, .known = true, .keep = i + 1 == network->layer_count};
    }
    quantise_ranges_seal(out);
    return 0;
}

static int run(const struct network *network, uint32_t size, const char *precision)
{
    struct backend_options options = {
        .precision = precision, .threads = 1, .preprocess = {.scale = 10000}};
    struct quantise_ranges ranges = {0};
    char reason[256] = "no memory";
    void *instance = NULL;
    counts = (struct amx_counts *)calloc(network->layer_count, sizeof *counts);
    places = calloc(network->layer_count, sizeof *places);
    int error = counts != NULL && places != NULL ? make_ranges(network, &ranges) : -ENOMEM;
    if (error == 0) {
        options.ranges = &ranges;
        error = backend_amx.create(network, &options, &instance, reason, sizeof reason);
    }
    if (error == 0) {
        amx_model_compute(false);
        error = run_once(instance, network, size);
    }
    if (error == 0) {
        print_table(network, amx_last_plan(instance), size);
    } else {
        fprintf(stderr, "amx-cost: %s\n", reason);
    }
    if (instance != NULL) {
        backend_amx.destroy(instance);
    }
    quantise_ranges_free(&ranges);
    free(counts);
    free(places);
    return error;
}

int main(int argc, char **argv)
{
    long base = argc > 1 ? strtol(argv[1], NULL, 10) : 64;
    long size = argc > 2 ? strtol(argv[2], NULL, 10) : 256;
    const char *precision = argc > 3 ? argv[3] : "bf16";
    bool known = strcmp(precision, "bf16") == 0 || strcmp(precision, "int8") == 0;
    if (argc > 4 || !known || base < 1 || base > 1024 || size < 16 || size > 4096) {
        fprintf(stderr, "usage: amx-cost [base [size [bf16|int8]]]\n");
        return EX_USAGE;
    }
    struct random_network sizes = {
        .base = (uint32_t)base, .depth = 4, .channels = 12, .classes = 11};
    struct network network;
    if (random_network_make(&sizes, &network) != 0) {
        fprintf(stderr, "amx-cost: no memory\n");
        return EX_OSERR;
    }
    int error = run(&network, (uint32_t)size, precision);
    network_free(&network);
    return error == 0 ? EX_OK : EX_SOFTWARE;
}
