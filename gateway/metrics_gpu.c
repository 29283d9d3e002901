/* What GPUs are doing, from the table that unetserve-gpu fills (struct counters_gpu). */
#include "gateway/metrics.h"

#include "unetserve/loss.h"

#include <inttypes.h>
#include <stdio.h>

/* Figures are new every second. Older ones are not shown: whoever read them hangs, or is gone. */
#define FRESH_NS UINT64_C(5000000000)

struct rows {
    const struct counters_gpu *gpus[COUNTERS_MAX_GPUS];
    char labels[COUNTERS_MAX_GPUS][160]; /* uuid and index */
    uint32_t count;
};

/* Letters of a label's value that need no escaping; others become '?'. */
static int plain_text(const char *text, size_t most, char *out, size_t size)
{
    size_t at = 0;
    for (size_t i = 0; i < most && text[i] && at + 1 < size; i++) {
        bool plain = text[i] >= ' ' && text[i] <= '~' && text[i] != '"' && text[i] != '\\';
        out[at++] = plain ? text[i] : '?';
    }
    out[at] = '\0';
    return at > 0;
}

static void look(const struct queue *queue, struct rows *rows)
{
    uint64_t now_ns = queue_now_ns();
    rows->count = 0;
    for (uint32_t i = 0; i < COUNTERS_MAX_GPUS; i++) {
        const struct counters_gpu *gpu = &queue->gpus[i];
        uint64_t sampled_ns = atomic_load_explicit(&gpu->sampled_ns, memory_order_acquire);
        char uuid[sizeof gpu->uuid + 1], index[sizeof gpu->index + 1];
        if (sampled_ns == 0 || sampled_ns + FRESH_NS < now_ns ||
            !plain_text(gpu->uuid, sizeof gpu->uuid, uuid, sizeof uuid))
            continue;
        plain_text(gpu->index, sizeof gpu->index, index, sizeof index);
        snprintf(rows->labels[rows->count], sizeof rows->labels[0], "uuid=\"%s\",index=\"%s\"",
                 uuid, index);
        rows->gpus[rows->count++] = gpu;
    }
}

static void head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP unetserve_gpu_%s %s\n# TYPE unetserve_gpu_%s %s\n", name, help, name,
            type);
}

static bool knows(const struct counters_gpu *gpu, enum counters_gpu_figure figure)
{
    return counter_read(&gpu->known) >> figure & 1;
}

/* A family without a sample is left out. */
static bool somebody_knows(const struct rows *rows, enum counters_gpu_figure figure)
{
    for (uint32_t i = 0; i < rows->count; i++)
        if (knows(rows->gpus[i], figure))
            return true;
    return false;
}

static void write_info(FILE *out, const struct rows *rows)
{
    head(out, "info", "gauge", "Always 1; which GPU it is.");
    for (uint32_t i = 0; i < rows->count; i++) {
        char name[sizeof rows->gpus[i]->name + 1];
        plain_text(rows->gpus[i]->name, sizeof rows->gpus[i]->name, name, sizeof name);
        fprintf(out, "unetserve_gpu_info{%s,name=\"%s\"} 1\n", rows->labels[i], name);
    }
    head(out, "up", "gauge", "1, or 0 where the driver says that the GPU is lost.");
    for (uint32_t i = 0; i < rows->count; i++)
        fprintf(out, "unetserve_gpu_up{%s} %d\n", rows->labels[i],
                counter_read(&rows->gpus[i]->lost) == 0);
}

static void write_gauges(FILE *out, const struct rows *rows)
{
    static const struct {
        const char *name;
        double scale;
        const char *help;
    } figures[] = {
#define FIGURE_ROW(figure, text, scale, help) [COUNTERS_GPU_##figure] = {text, scale, help},
        COUNTERS_GPU_FIGURES(FIGURE_ROW)
#undef FIGURE_ROW
    };
    for (unsigned figure = 0; figure < COUNTERS_GPU_FIGURE_COUNT; figure++) {
        if (!figures[figure].name[0] || !somebody_knows(rows, figure))
            continue;
        head(out, figures[figure].name, "gauge", figures[figure].help);
        for (uint32_t i = 0; i < rows->count; i++)
            if (knows(rows->gpus[i], figure))
                fprintf(out, "unetserve_gpu_%s{%s} %.15g\n", figures[figure].name, rows->labels[i],
                        (double)counter_read(&rows->gpus[i]->figures[figure]) *
                            figures[figure].scale);
    }
}

/* Bits of NVML's clock event reasons. */
static void write_throttling(FILE *out, const struct rows *rows)
{
    static const struct {
        unsigned bit;
        const char *name;
    } reasons[] = {{0, "gpu_idle"},
                   {1, "applications_clocks_setting"},
                   {2, "sw_power_cap"},
                   {3, "hw_slowdown"},
                   {4, "sync_boost"},
                   {5, "sw_thermal_slowdown"},
                   {6, "hw_thermal_slowdown"},
                   {7, "hw_power_brake_slowdown"},
                   {8, "display_clock_setting"}};
    if (!somebody_knows(rows, COUNTERS_GPU_THROTTLE))
        return;
    head(out, "clock_throttle", "gauge", "1 while that reason holds the clocks down.");
    for (uint32_t i = 0; i < rows->count; i++) {
        uint64_t bits = counter_read(&rows->gpus[i]->figures[COUNTERS_GPU_THROTTLE]);
        for (size_t k = 0; k < sizeof reasons / sizeof reasons[0]; k++)
            if (knows(rows->gpus[i], COUNTERS_GPU_THROTTLE))
                fprintf(out, "unetserve_gpu_clock_throttle{%s,reason=\"%s\"} %d\n", rows->labels[i],
                        reasons[k].name, (int)(bits >> reasons[k].bit & 1));
    }
}

static void write_memory_errors(FILE *out, const struct rows *rows)
{
    static const struct {
        enum counters_gpu_figure figure;
        const char *type;
    } kinds[] = {{COUNTERS_GPU_ECC_CORRECTED, "corrected"},
                 {COUNTERS_GPU_ECC_UNCORRECTED, "uncorrected"}};
    if (!somebody_knows(rows, COUNTERS_GPU_ECC_CORRECTED) &&
        !somebody_knows(rows, COUNTERS_GPU_ECC_UNCORRECTED))
        return;
    head(out, "ecc_errors_total", "counter", "Errors of its memory since the driver was loaded.");
    for (uint32_t i = 0; i < rows->count; i++)
        for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
            if (knows(rows->gpus[i], kinds[k].figure))
                fprintf(out, "unetserve_gpu_ecc_errors_total{%s,type=\"%s\"} %" PRIu64 "\n",
                        rows->labels[i], kinds[k].type,
                        counter_read(&rows->gpus[i]->figures[kinds[k].figure]));
}

static void write_reasons(FILE *out, const struct counters_device *device, const char *name)
{
    for (uint32_t why = 0; why < COUNTERS_LOSSES; why++)
        if (counter_read(&device->failures[why]) > 0)
            fprintf(out, "unetserve_gpu_failures_total{device=\"%s\",reason=\"%s\"} %" PRIu64 "\n",
                    name, loss_name(why), counter_read(&device->failures[why]));
}

/* What the supervisor keeps of those that workers are on. */
static void write_failures(const struct queue *queue, FILE *out)
{
    char names[COUNTERS_MAX_GPUS + 1][sizeof queue->devices[0].name + 1];
    bool any = false;
    for (uint32_t i = 0; i <= COUNTERS_MAX_GPUS; i++)
        any |= plain_text(queue->devices[i].name, sizeof queue->devices[i].name, names[i],
                          sizeof names[i]) != 0 &&
               counters_device_failures(&queue->devices[i]) > 0;
    if (!any)
        return;
    head(out, "failures_total", "counter", "Workers that the GPU has failed under, by reason.");
    for (uint32_t i = 0; i <= COUNTERS_MAX_GPUS; i++)
        write_reasons(out, &queue->devices[i], names[i]);
    head(out, "resting", "gauge", "1 while no worker runs on the GPU because it has failed.");
    for (uint32_t i = 0; i <= COUNTERS_MAX_GPUS; i++)
        if (counters_device_failures(&queue->devices[i]) > 0)
            fprintf(out, "unetserve_gpu_resting{device=\"%s\"} %d\n", names[i],
                    counter_read(&queue->devices[i].rests_until_ns) != 0);
}

void metrics_write_gpus(const struct queue *queue, FILE *out)
{
    struct rows rows;
    write_failures(queue, out);
    look(queue, &rows);
    if (rows.count == 0)
        return;
    write_info(out, &rows);
    write_gauges(out, &rows);
    write_throttling(out, &rows);
    write_memory_errors(out, &rows);
}
