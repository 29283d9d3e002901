/* Which GPUs there are, by NVML: what can be dealt out to workers, and what has figures. */
#ifndef GPU_FIND_H
#define GPU_FIND_H

#include "gpu/nvml.h"
#include "lib/gpu_list.h"

#include <stdbool.h>

/* A GPU, or an instance of one. */
struct gpu_found {
    nvml_device device;
    bool instance; /* of MIG: has its own memory, and little else */
    bool whole;    /* a GPU that is divided into instances: it runs nothing itself */
    struct gpu_entry entry;
};

struct gpu_machine {
    uint32_t count;
    struct gpu_found found[GPU_LIST_MAX];
};

/* Look. A GPU that does not answer is left out; so is what is beyond GPU_LIST_MAX. 0, or -ENODEV
 * and a sentence. */
int gpu_find(const struct nvml *nvml, struct gpu_machine *out, char *error, size_t error_size);

/* Those of them that workers can be given, of those the ones that `visible` names, which is
 * CUDA_VISIBLE_DEVICES: indices and UUIDs (or how they begin), up to the first that is none. NULL:
 * all. */
void gpu_find_list(const struct gpu_machine *machine, const char *visible, struct gpu_list *out);

#endif
