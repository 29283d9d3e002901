/*
 * What the parts of gpu_forward share: a device with a stream, a clock around what is put on it,
 * and figures as JSON lines.
 */
#ifndef GPU_BENCH_H
#define GPU_BENCH_H

#include "workers/backends/cudnn/gpu_shapes.h"
#include "workers/backends/cudnn/gpu_tuning.h"

#define BENCH_MOST_BATCHES 16
#define BENCH_MOST_RUNS    1000

struct bench_settings {
    const char *model;
    const char *precision;
    const char *cache; /* NULL: none */
    uint32_t size;     /* height and width of a tile */
    uint32_t runs;     /* at most BENCH_MOST_RUNS */
    uint32_t batches[BENCH_MOST_BATCHES];
    uint32_t batch_count;
    int layers;
};

struct bench {
    const struct bench_settings *settings;
    struct gpu_device device;
    CUstream stream;
    struct gpu_weights weights;
    struct gpu_tuning tuning;
    struct gpu_choices choices; /* in tuning */
    struct gpu_shapes shapes;
};

/* {MORE, "ms": [...]} */
void bench_print(const char *more, const double *ms, uint32_t count);

double bench_now_ms(void);

/* Milliseconds of one `work`, of several put on the stream one after the other, settings->runs
 * times over. 0, or what work says. */
int bench_time(struct bench *b, int (*work)(struct bench *b, void *what), void *what, double *ms);

/* Numbers of the network's type from 0 to 1 all over that memory of the device: on zeros it is
 * faster. 0, -ENOMEM, -EIO. */
int bench_fill(struct bench *b, CUdeviceptr memory, size_t bytes);

/* ---- gpu_peaks.c ---- */

/* Print copy_in and copy_out, page-locked memory to the device and back, and peak_memory, the
 * device's own memory. 0, -ENOMEM, -EIO. */
int bench_copies(struct bench *b);

/* Print peak_arithmetic: a product of matrices too large for anything but arithmetic to matter, in
 * the network's type and planned as its convolutions are. 0, -ENOTSUP, -ENOMEM, -EIO; error gets a
 * sentence. */
int bench_product(struct bench *b, char *error, size_t error_size);

#endif
