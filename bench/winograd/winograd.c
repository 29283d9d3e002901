/*
 * A measured look at Winograd's convolutions. For each size of 3 x 3 convolution in the 31M network
 * (12 x 256 x 256) milliseconds of
 *
 *   - oneDNN's direct convolution in f32, on images as unetserve has them;
 *   - our own F(4x4, 3x3) in f32, on the same images;
 *   - oneDNN's F(4x4, 3x3), in the form of images that it likes best, where there is AVX-512;
 *   - the direct convolution in bf16, where there is AVX-512 BF16;
 *   - and the products alone that F(2x2, 3x3) in bf16 would need, sixteen matrices: what it could
 *     not be faster than, had its transforms cost nothing.
 *
 * Then what it does to the numbers: F(2x2, 3x3) in bf16, simulated, against exact sums, on one
 * layer; and oneDNN's F(4x4, 3x3) in f32 against its direct convolution, where there is one.
 *
 *   bench/winograd [THREADS [RUNS]]
 *
 * With one thread, processor time is measured and not the clock's, so that others who use the
 * machine do less harm.
 */
#include "workers/backends/onednn/onednn_parallel.h"
#include "workers/backends/onednn/onednn_weights.h"

#include <math.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#define MATRICES 16 /* of a 4 x 4 tile */
#define MOST     6  /* arguments of a primitive */
#define PLAIN    3  /* memories: image, weights, result */
#define OURS     5  /* buffers: those, bias, scratch */

struct size {
    int64_t in;
    int64_t out;
    int64_t pixels; /* of a side */
    int times;      /* in the network */
};

static const struct size sizes[] = {{64, 64, 256, 2},   {128, 64, 256, 1},  {64, 128, 128, 1},
                                    {128, 128, 128, 2}, {256, 128, 128, 1}, {128, 256, 64, 1},
                                    {256, 256, 64, 2},  {512, 256, 64, 1},  {256, 512, 32, 1},
                                    {512, 512, 32, 2},  {1024, 512, 32, 1}, {512, 1024, 16, 1},
                                    {1024, 1024, 16, 1}};

enum { DIRECT_F32, OURS_F32, WINOGRAD_F32, DIRECT_BF16, PRODUCTS_BF16, WAYS };

static dnnl_engine_t engine;
static dnnl_stream_t stream;
static uint32_t threads = 1;

static void expect(dnnl_status_t status, const char *what)
{
    if (status != dnnl_success) {
        fprintf(stderr, "winograd: %s: status %d\n", what, (int)status);
        exit(EX_UNAVAILABLE);
    }
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

/* ---- a way to compute it ---- */

struct way {
    bool there;                                /* else this machine has none */
    const struct onednn_winograd_kernel *ours; /* NULL: oneDNN's */
    struct onednn_winograd_layer layer;
    void *buffers[OURS];
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[MOST];
    int count;
};

static void add_memory(struct way *way, int arg, const_dnnl_primitive_desc_t desc,
                       dnnl_query_t what)
{
    const dnnl_memory_desc_t *form = dnnl_primitive_desc_query_md(desc, what, 0);
    dnnl_memory_t memory = NULL;
    void *data = NULL;
    expect(dnnl_memory_create(&memory, form, engine, DNNL_MEMORY_ALLOCATE), "memory");
    expect(dnnl_memory_get_data_handle(memory, &data), "memory");
    memset(data, 0,
           dnnl_memory_desc_get_size(form)); /* products take as long as of other numbers */
    way->args[way->count++] = (dnnl_exec_arg_t){arg, memory};
}

static void way_make(dnnl_primitive_desc_t desc, struct way *out)
{
    struct way way = {.there = true};
    add_memory(&way, DNNL_ARG_SRC, desc, dnnl_query_src_md);
    add_memory(&way, DNNL_ARG_WEIGHTS, desc, dnnl_query_weights_md);
    add_memory(&way, DNNL_ARG_DST, desc, dnnl_query_dst_md);
    expect(dnnl_primitive_create(&way.primitive, desc), "primitive");
    dnnl_primitive_desc_destroy(desc);
    *out = way;
}

static void way_free(struct way *way)
{
    for (int i = 0; i < way->count; i++) {
        dnnl_memory_destroy(way->args[i].memory);
    }
    for (int i = 0; i < OURS; i++) {
        free(way->buffers[i]);
    }
    if (way->primitive != NULL) {
        dnnl_primitive_destroy(way->primitive);
    }
}

static double way_run(const struct way *way)
{
    double start = now_ms();
    if (way->ours != NULL) {
        onednn_winograd_run(way->ours, &way->layer, threads, way->buffers[OURS - 1]);
        return now_ms() - start;
    }
    expect(dnnl_primitive_execute(way->primitive, stream, way->count, way->args), "run");
    expect(dnnl_stream_wait(stream), "run");
    return now_ms() - start;
}

static void make_convolution(const struct size *size, dnnl_data_type_t type, dnnl_alg_kind_t kind,
                             struct way *out)
{
    dnnl_dims_t in = {1, size->in, size->pixels, size->pixels};
    dnnl_dims_t kernel = {size->out, size->in, 3, 3};
    dnnl_dims_t result = {1, size->out, size->pixels, size->pixels};
    dnnl_dims_t one = {1, 1};
    dnnl_memory_desc_t src;
    dnnl_memory_desc_t weights;
    dnnl_memory_desc_t dst;
    dnnl_convolution_desc_t convolution;
    dnnl_primitive_desc_t desc = NULL;
    /* Winograd has the form of images that it likes best. */
    dnnl_format_tag_t image = kind == dnnl_convolution_direct ? dnnl_nhwc : dnnl_format_tag_any;
    expect(dnnl_memory_desc_init_by_tag(&src, 4, in, type, image), "image");
    expect(dnnl_memory_desc_init_by_tag(&weights, 4, kernel, type, dnnl_format_tag_any), "weights");
    expect(dnnl_memory_desc_init_by_tag(&dst, 4, result, type, image), "result");
    expect(dnnl_convolution_forward_desc_init(&convolution, dnnl_forward_inference, kind, &src,
                                              &weights, NULL, &dst, one, one, one),
           "convolution");
    *out = (struct way){.there = false};
    if (dnnl_primitive_desc_create(&desc, &convolution, NULL, engine, NULL) == dnnl_success) {
        way_make(desc, out);
    }
}

static float *zeros(size_t bytes)
{
    void *made = onednn_buffer_create(bytes);
    if (made == NULL) {
        exit(EX_OSERR);
    }
    return (float *)memset(made, 0, bytes);
}

static void make_ours(const struct size *size, struct way *out)
{
    struct onednn_isa isa = onednn_isa_detect();
    const struct onednn_winograd_kernel *kernel = onednn_winograd_select(&isa);
    *out = (struct way){.there = kernel != NULL, .ours = kernel};
    if (kernel == NULL) {
        return;
    }
    size_t in = (size_t)size->in;
    size_t outputs = (size_t)size->out;
    size_t side = (size_t)size->pixels;
    float *image = zeros(side * side * in * sizeof *image);
    float *weights = zeros(onednn_winograd_weights_bytes(kernel, in, outputs));
    float *result = zeros(side * side * outputs * sizeof *result);
    float *bias = zeros(outputs * sizeof *bias);
    out->layer = (struct onednn_winograd_layer){.in = image,
                                                .in_pitch = in,
                                                .in_channels = in,
                                                .out = result,
                                                .out_pitch = outputs,
                                                .out_channels = outputs,
                                                .weights = weights,
                                                .bias = bias,
                                                .count = 1,
                                                .height = side,
                                                .width = side};
    void *scratch = zeros(onednn_winograd_scratch_bytes(kernel, &out->layer, threads));
    void *buffers[OURS] = {image, weights, result, bias, scratch};
    memcpy((void *)out->buffers, (void *)buffers, sizeof buffers);
}

/* Sixteen products of tiles x channels with channels x outputs. */
static void make_products(const struct size *size, struct way *out)
{
    int64_t tiles = (size->pixels / 2) * (size->pixels / 2);
    dnnl_dims_t a = {MATRICES, tiles, size->in};
    dnnl_dims_t b = {MATRICES, size->in, size->out};
    dnnl_dims_t c = {MATRICES, tiles, size->out};
    dnnl_memory_desc_t src;
    dnnl_memory_desc_t weights;
    dnnl_memory_desc_t dst;
    dnnl_matmul_desc_t product;
    dnnl_primitive_desc_t desc = NULL;
    expect(dnnl_memory_desc_init_by_tag(&src, 3, a, dnnl_bf16, dnnl_abc), "tiles");
    expect(dnnl_memory_desc_init_by_tag(&weights, 3, b, dnnl_bf16, dnnl_format_tag_any), "weights");
    expect(dnnl_memory_desc_init_by_tag(&dst, 3, c, dnnl_f32, dnnl_abc), "sums");
    expect(dnnl_matmul_desc_init(&product, &src, &weights, NULL, &dst), "product");
    *out = (struct way){.there = false};
    if (dnnl_primitive_desc_create(&desc, &product, NULL, engine, NULL) == dnnl_success) {
        way_make(desc, out);
    }
}

/* The best of `runs`, the ways taking turns. */
static void time_size(const struct size *size, int runs, double *best)
{
    struct way ways[WAYS];
    make_convolution(size, dnnl_bf16, dnnl_convolution_direct, &ways[DIRECT_BF16]);
    make_products(size, &ways[PRODUCTS_BF16]);
    make_convolution(size, dnnl_f32, dnnl_convolution_direct, &ways[DIRECT_F32]);
    make_convolution(size, dnnl_f32, dnnl_convolution_winograd, &ways[WINOGRAD_F32]);
    make_ours(size, &ways[OURS_F32]);
    for (int run = 0; run <= runs; run++) {
        for (int i = 0; i < WAYS; i++) {
            double ms = ways[i].there ? way_run(&ways[i]) : NAN;
            best[i] = run == 0 || ms < best[i] ? ms : best[i];
        }
    }
    for (int i = 0; i < WAYS; i++) {
        way_free(&ways[i]);
    }
}

static void print_share(double ms, double direct)
{
    if (isnan(ms)) {
        printf(" - |");
    } else {
        printf(" %.2f |", ms / direct);
    }
}

static void print_row(const double *ms)
{
    printf(" %.2f |", ms[DIRECT_F32]);
    for (int w = DIRECT_F32 + 1; w < WAYS; w++) {
        print_share(ms[w], ms[DIRECT_F32]);
    }
    printf("\n");
}

static void time_all(int runs)
{
    double all[WAYS] = {0};
    printf(
        "| layer | direct f32, ms | our F(4x4), of it | oneDNN's F(4x4) | direct bf16 | products "
        "of F(2x2) in bf16 alone |\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        double best[WAYS];
        time_size(&sizes[i], runs, best);
        printf("| %d x %d -> %d, %d x %d |", sizes[i].times, (int)sizes[i].in, (int)sizes[i].out,
               (int)sizes[i].pixels, (int)sizes[i].pixels);
        print_row(best);
        for (int w = 0; w < WAYS; w++) {
            all[w] += sizes[i].times * best[w];
        }
    }
    printf("| together |");
    print_row(all);
}

/* ---- numbers, in f32 ---- */

static float random_number(void)
{
    static uint32_t state = 1;
    state = state * 1664525U + 1013904223U;
    return (float)(state >> 8) / 8388608.0F - 1.0F;
}

/* Between plain floats and a primitive's memory, which lie in their own forms. */
static void reorder(dnnl_memory_t from, dnnl_memory_t to)
{
    const dnnl_memory_desc_t *a = NULL;
    const dnnl_memory_desc_t *b = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    expect(dnnl_memory_get_memory_desc(from, &a), "form");
    expect(dnnl_memory_get_memory_desc(to, &b), "form");
    expect(dnnl_reorder_primitive_desc_create(&desc, a, engine, b, engine, NULL), "reorder");
    expect(dnnl_primitive_create(&primitive, desc), "reorder");
    expect(dnnl_primitive_execute(primitive, stream, 2, args), "reorder");
    expect(dnnl_stream_wait(stream), "reorder");
    dnnl_primitive_destroy(primitive);
    dnnl_primitive_desc_destroy(desc);
}

static dnnl_memory_t plain_memory(dnnl_dims_t dims, float *data)
{
    dnnl_memory_desc_t form;
    dnnl_memory_t memory = NULL;
    expect(dnnl_memory_desc_init_by_tag(&form, 4, dims, dnnl_f32, dnnl_abcd), "plain memory");
    expect(dnnl_memory_create(&memory, &form, engine, data), "plain memory");
    return memory;
}

static void compute(const struct size *size, dnnl_alg_kind_t kind, float *in, float *weights,
                    float *out)
{
    dnnl_dims_t of_in = {1, size->in, size->pixels, size->pixels};
    dnnl_dims_t of_weights = {size->out, size->in, 3, 3};
    dnnl_dims_t of_out = {1, size->out, size->pixels, size->pixels};
    dnnl_memory_t plain[PLAIN] = {plain_memory(of_in, in), plain_memory(of_weights, weights),
                                  plain_memory(of_out, out)};
    struct way way;
    make_convolution(size, dnnl_f32, kind, &way);
    if (!way.there) {
        printf("oneDNN has no Winograd here.\n");
        exit(EX_OK);
    }
    reorder(plain[0], way.args[0].memory);
    reorder(plain[1], way.args[1].memory);
    (void)way_run(&way);
    reorder(way.args[2].memory, plain[2]);
    way_free(&way);
    for (int i = 0; i < PLAIN; i++) {
        dnnl_memory_destroy(plain[i]);
    }
}

static float *numbers(size_t count, float scale, bool positive)
{
    float *made = (float *)calloc(count, sizeof *made);
    if (made == NULL) {
        exit(EX_OSERR);
    }
    for (size_t i = 0; i < count; i++) {
        float number = random_number() * scale;
        made[i] = positive && number < 0.0F ? 0.0F : number;
    }
    return made;
}

static void compare_f32(void)
{
    static const struct size size = {256, 256, 64, 1};
    size_t count = (size_t)(size.out * size.pixels * size.pixels);
    float *in = numbers((size_t)(size.in * size.pixels * size.pixels), 1.0F, true);
    float *weights = numbers((size_t)(size.out * size.in * 9), 0.05F, false);
    float *direct = numbers(count, 0.0F, false);
    float *winograd = numbers(count, 0.0F, false);
    double all = 0;
    double off = 0;
    compute(&size, dnnl_convolution_direct, in, weights, direct);
    compute(&size, dnnl_convolution_winograd, in, weights, winograd);
    for (size_t i = 0; i < count; i++) {
        all += (double)direct[i] * direct[i];
        off += pow((double)winograd[i] - (double)direct[i], 2);
    }
    printf("F(4x4, 3x3) in f32 is off from the direct one by %.7f of its output's root mean "
           "square.\n",
           sqrt(off / all));
    free(in);
    free(weights);
    free(direct);
    free(winograd);
}

/* ---- numbers, in bf16 ---- */

#define CHANNELS 256
#define TILES    64
#define OUTPUTS  16

/* To nearest even; the numbers here are finite. */
static float bf16(float value)
{
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    bits += 0x7fffU + (bits >> 16 & 1U);
    bits &= 0xffff0000U;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* out = left in left', where left has `rows` rows of `columns`, and in is square. */
static void both_sides(const float *left, int rows, int columns, const float *in, float *out)
{
    float half[16];
    for (int r = 0; r < rows; r++) {
        for (int c = 0; c < columns; c++) {
            half[r * columns + c] = 0.0F;
            for (int k = 0; k < columns; k++) {
                half[r * columns + c] += left[r * columns + k] * in[k * columns + c];
            }
        }
    }
    for (int r = 0; r < rows; r++) {
        for (int c = 0; c < rows; c++) {
            out[r * rows + c] = 0.0F;
            for (int k = 0; k < columns; k++) {
                out[r * rows + c] += half[r * columns + k] * left[c * columns + k];
            }
        }
    }
}

static const float of_input[16] = {1, 0, -1, 0, 0, 1, 1, 0, 0, -1, 1, 0, 0, 1, 0, -1};
static const float of_weights[12] = {1, 0, 0, 0.5F, 0.5F, 0.5F, 0.5F, -0.5F, 0.5F, 0, 0, 1};
static const float of_sums[8] = {1, 1, 1, 0, 0, 1, -1, -1};

/* What one channel adds to a tile of 2 x 2 outputs: exactly, by bf16, and by F(2x2) in bf16 before
 * the way back. */
struct tile {
    double exact[4];
    float direct[4];
    float sums[16];
};

static void add_channel(const float in[16], const float weights[9], struct tile *tile)
{
    float v[16];
    float u[16];
    for (int p = 0; p < 4; p++) {
        for (int k = 0; k < 9; k++) {
            float x = in[(p / 2 + k / 3) * 4 + p % 2 + k % 3];
            tile->exact[p] += (double)x * weights[k];
            tile->direct[p] += bf16(x) * bf16(weights[k]);
        }
    }
    both_sides(of_input, 4, 4, in, v);
    both_sides(of_weights, 4, 3, weights, u);
    for (int i = 0; i < 16; i++) {
        tile->sums[i] += bf16(v[i]) * bf16(u[i]);
    }
}

/* Inputs as behind a ReLU, in bf16 already, as they lie in memory; weights as they are trained. */
static void simulate(void)
{
    static float inputs[TILES][CHANNELS][16];
    static float weights[OUTPUTS][CHANNELS][9];
    double size = 0;
    double direct = 0;
    double winograd = 0;
    for (size_t i = 0; i < sizeof inputs / sizeof(float); i++) {
        float number = random_number();
        inputs[i / 16 / CHANNELS][i / 16 % CHANNELS][i % 16] = number > 0.0F ? bf16(number) : 0.0F;
    }
    for (size_t i = 0; i < sizeof weights / sizeof(float); i++) {
        weights[i / 9 / CHANNELS][i / 9 % CHANNELS][i % 9] = random_number() * 0.05F;
    }
    for (int t = 0; t < TILES; t++) {
        for (int o = 0; o < OUTPUTS; o++) {
            struct tile tile = {{0}, {0}, {0}};
            float back[4];
            for (int c = 0; c < CHANNELS; c++) {
                add_channel(inputs[t][c], weights[o][c], &tile);
            }
            both_sides(of_sums, 2, 4, tile.sums, back);
            for (int p = 0; p < 4; p++) {
                size += tile.exact[p] * tile.exact[p];
                direct += pow((double)tile.direct[p] - tile.exact[p], 2);
                winograd += pow((double)back[p] - tile.exact[p], 2);
            }
        }
    }
    printf("Error of a layer of %d channels, of the root mean square of its output: bf16 %.5f, "
           "F(2x2, 3x3) in bf16 %.5f, %.1f times as much.\n",
           CHANNELS, sqrt(direct / size), sqrt(winograd / size), sqrt(winograd / direct));
}

int main(int argc, char **argv)
{
    long wanted = argc > 1 ? strtol(argv[1], NULL, 10) : 1;
    long runs = argc > 2 ? strtol(argv[2], NULL, 10) : 5;
    if (argc > 3 || wanted < 1 || wanted > 1024 || runs < 1 || runs > 1000) {
        fprintf(stderr, "usage: winograd [THREADS [RUNS]]\n");
        return EX_USAGE;
    }
    expect(dnnl_engine_create(&engine, dnnl_cpu, 0), "engine");
    expect(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "stream");
    threads = (uint32_t)wanted;
    onednn_parallel_set_threads(threads);
    time_all((int)runs);
    simulate();
    compare_f32();
    dnnl_stream_destroy(stream);
    dnnl_engine_destroy(engine);
    return EX_OK;
}
