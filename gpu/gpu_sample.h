/* What GPUs are doing now, written where /metrics finds it (struct counters_gpu). */
#ifndef GPU_SAMPLE_H
#define GPU_SAMPLE_H

#include "gpu/gpu_find.h"
#include "unetserve/counters.h"

/* Say whose the rows are: at the start, before the first sample. */
void gpu_sample_begin(const struct gpu_machine *machine,
                      struct counters_gpu rows[COUNTERS_MAX_GPUS]);

/* Read all figures of all GPUs once. What a GPU does not tell is missing in its row. progress is
 * called between GPUs. */
void gpu_sample(const struct nvml *nvml, const struct gpu_machine *machine,
                struct counters_gpu rows[COUNTERS_MAX_GPUS], void (*progress)(void *opaque),
                void *opaque);

#endif
