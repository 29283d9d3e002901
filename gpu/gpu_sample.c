#include "gpu/gpu_sample.h"

#include "unetserve/queue.h"

#include <stdio.h>
#include <string.h>

#define SENSOR_GPU      0
#define CLOCK_PROCESSOR 1
#define ECC_SINCE_START 0

_Static_assert(COUNTERS_MAX_GPUS >= GPU_LIST_MAX, "each has its row");
_Static_assert(sizeof((struct counters_gpu *)0)->uuid >= GPU_TEXT_MAX, "as long as they may be");

void gpu_sample_begin(const struct gpu_machine *machine,
                      struct counters_gpu rows[COUNTERS_MAX_GPUS])
{
    for (uint32_t i = 0; i < COUNTERS_MAX_GPUS; i++) {
        struct counters_gpu *row = &rows[i];
        counter_set(&row->sampled_ns, 0); /* who read it before goes without */
        atomic_thread_fence(memory_order_seq_cst);
        memset(row->uuid, 0, sizeof row->uuid);
        memset(row->index, 0, sizeof row->index);
        memset(row->name, 0, sizeof row->name);
        if (i >= machine->count)
            continue;
        const struct gpu_entry *entry = &machine->found[i].entry;
        snprintf(row->uuid, sizeof row->uuid, "%s", entry->uuid);
        snprintf(row->index, sizeof row->index, "%s", entry->index);
        snprintf(row->name, sizeof row->name, "%s", entry->name);
    }
}

struct reading {
    struct counters_gpu *row;
    uint64_t known; /* figures that are there, a bit each */
    bool lost;
};

/* A figure, if the call brought it. */
static void take(struct reading *reading, enum counters_gpu_figure figure, int code, uint64_t value)
{
    reading->lost |= code == NVML_GPU_IS_LOST;
    if (code != NVML_SUCCESS)
        return;
    counter_set(&reading->row->figures[figure], value);
    reading->known |= UINT64_C(1) << figure;
}

static void read_memory(const struct nvml *nvml, nvml_device device, struct reading *reading)
{
    struct nvml_memory memory = {0};
    int code = nvml->memory(device, &memory);
    take(reading, COUNTERS_GPU_MEMORY_USED, code, memory.used);
    take(reading, COUNTERS_GPU_MEMORY_TOTAL, code, memory.total);
}

static void read_utilization(const struct nvml *nvml, nvml_device device, struct reading *reading)
{
    struct nvml_utilization rates = {0};
    int code = nvml->utilization(device, &rates);
    take(reading, COUNTERS_GPU_UTILIZATION, code, rates.gpu);
    take(reading, COUNTERS_GPU_MEMORY_UTILIZATION, code, rates.memory);
}

/* What a whole GPU has, and an instance of one does not. */
static void read_board(const struct nvml *nvml, nvml_device device, struct reading *reading)
{
    unsigned value = 0;
    unsigned long long wide = 0;
    int code = nvml->temperature(device, SENSOR_GPU, &value);
    take(reading, COUNTERS_GPU_TEMPERATURE, code, value);
    code = nvml->power(device, &value);
    take(reading, COUNTERS_GPU_POWER, code, value);
    code = nvml->power_limit ? nvml->power_limit(device, &value) : NVML_NOT_SUPPORTED;
    take(reading, COUNTERS_GPU_POWER_LIMIT, code, value);
    code = nvml->clock ? nvml->clock(device, CLOCK_PROCESSOR, &value) : NVML_NOT_SUPPORTED;
    take(reading, COUNTERS_GPU_CLOCK, code, value);
    code = nvml->throttle_reasons ? nvml->throttle_reasons(device, &wide) : NVML_NOT_SUPPORTED;
    take(reading, COUNTERS_GPU_THROTTLE, code, wide);
    for (int kind = 0; nvml->ecc_errors && kind < 2; kind++) {
        code = nvml->ecc_errors(device, kind, ECC_SINCE_START, &wide);
        take(reading, kind ? COUNTERS_GPU_ECC_UNCORRECTED : COUNTERS_GPU_ECC_CORRECTED, code, wide);
    }
}

void gpu_sample(const struct nvml *nvml, const struct gpu_machine *machine,
                struct counters_gpu rows[COUNTERS_MAX_GPUS], void (*progress)(void *opaque),
                void *opaque)
{
    for (uint32_t i = 0; i < machine->count; i++) {
        const struct gpu_found *found = &machine->found[i];
        struct reading reading = {.row = &rows[i]};
        read_memory(nvml, found->device, &reading);
        read_utilization(nvml, found->device, &reading);
        if (!found->instance)
            read_board(nvml, found->device, &reading);
        counter_set(&rows[i].known, reading.known);
        counter_set(&rows[i].lost, reading.lost);
        atomic_store_explicit(&rows[i].sampled_ns, queue_now_ns(), memory_order_release);
        progress(opaque);
    }
}
