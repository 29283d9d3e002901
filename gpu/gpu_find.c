#include "gpu/gpu_find.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define NODE_SCOPE 0

/* As far as processors and memory near it are known. */
static void find_neighbours(const struct nvml *nvml, nvml_device device, struct gpu_entry *entry)
{
    unsigned long cpus[NVML_CPU_WORDS] = {0};
    unsigned long nodes[NVML_NODE_WORDS] = {0};
    entry->node = -1;
    _Static_assert(NVML_CPU_WORDS == GPU_CPU_WORDS && sizeof cpus[0] == sizeof entry->cpus[0],
                   "both are words of 64 bits");
    if (nvml->cpu_affinity && nvml->cpu_affinity(device, NVML_CPU_WORDS, cpus) == NVML_SUCCESS)
        memcpy(entry->cpus, cpus, sizeof entry->cpus);
    if (!nvml->memory_affinity ||
        nvml->memory_affinity(device, NVML_NODE_WORDS, nodes, NODE_SCOPE) != NVML_SUCCESS)
        return;
    for (int i = NVML_NODE_WORDS * 64; i-- > 0;)
        if (nodes[i / 64] >> i % 64 & 1)
            entry->node = i; /* the first */
}

static int describe(const struct nvml *nvml, nvml_device device, struct gpu_entry *entry)
{
    struct nvml_memory memory = {0};
    int code = nvml->uuid(device, entry->uuid, sizeof entry->uuid);
    if (code == NVML_SUCCESS)
        code = nvml->name(device, entry->name, sizeof entry->name);
    entry->uuid[sizeof entry->uuid - 1] = entry->name[sizeof entry->name - 1] = '\0';
    if (nvml->memory(device, &memory) == NVML_SUCCESS)
        entry->memory_bytes = memory.total;
    return code;
}

static struct gpu_found *more(struct gpu_machine *machine)
{
    if (machine->count == GPU_LIST_MAX)
        return NULL;
    struct gpu_found *found = &machine->found[machine->count];
    memset(found, 0, sizeof *found);
    return found;
}

static bool is_divided(const struct nvml *nvml, nvml_device device)
{
    unsigned current = 0, pending = 0;
    return nvml->mig_mode && nvml->mig_most && nvml->mig_at &&
           nvml->mig_mode(device, &current, &pending) == NVML_SUCCESS && current == 1;
}

static void find_instances(const struct nvml *nvml, const struct gpu_found *gpu, unsigned number,
                           struct gpu_machine *machine)
{
    unsigned most = 0;
    if (nvml->mig_most(gpu->device, &most) != NVML_SUCCESS)
        return;
    for (unsigned i = 0; i < most && i < GPU_LIST_MAX; i++) {
        struct gpu_found *found = more(machine);
        if (!found || nvml->mig_at(gpu->device, i, &found->device) != NVML_SUCCESS)
            continue; /* places may be empty */
        if (describe(nvml, found->device, &found->entry) != NVML_SUCCESS)
            continue;
        found->instance = true;
        found->entry.node = gpu->entry.node;
        memcpy(found->entry.cpus, gpu->entry.cpus, sizeof found->entry.cpus);
        snprintf(found->entry.index, sizeof found->entry.index, "%u:%u", number, i);
        machine->count++;
    }
}

int gpu_find(const struct nvml *nvml, struct gpu_machine *out, char *error, size_t error_size)
{
    unsigned count = 0;
    int code = nvml->device_count(&count);
    out->count = 0;
    if (code != NVML_SUCCESS) {
        snprintf(error, error_size, "the NVIDIA driver does not count its GPUs: %s",
                 nvml_text(nvml, code));
        return -ENODEV;
    }
    for (unsigned i = 0; i < count && i < GPU_LIST_MAX; i++) {
        struct gpu_found *found = more(out);
        if (!found || nvml->device_at(i, &found->device) != NVML_SUCCESS ||
            describe(nvml, found->device, &found->entry) != NVML_SUCCESS)
            continue;
        find_neighbours(nvml, found->device, &found->entry);
        snprintf(found->entry.index, sizeof found->entry.index, "%u", i);
        found->whole = is_divided(nvml, found->device);
        out->count++;
        if (found->whole)
            find_instances(nvml, found, i, out);
    }
    return 0;
}

/* ---- who may be seen ---- */

static const struct gpu_found *find_named(const struct gpu_machine *machine, const char *name,
                                          size_t length)
{
    for (uint32_t i = 0; i < machine->count; i++) {
        const struct gpu_found *found = &machine->found[i];
        bool by_index = strlen(found->entry.index) == length &&
                        strncmp(found->entry.index, name, length) == 0;
        bool by_uuid = length > 4 && strncmp(found->entry.uuid, name, length) == 0;
        if (!found->whole && (by_index || by_uuid))
            return found;
    }
    return NULL;
}

void gpu_find_list(const struct gpu_machine *machine, const char *visible, struct gpu_list *out)
{
    out->count = 0;
    for (uint32_t i = 0; i < machine->count && !visible; i++)
        if (!machine->found[i].whole)
            out->entries[out->count++] = machine->found[i].entry;
    while (visible && *visible && out->count < GPU_LIST_MAX) {
        size_t length = strcspn(visible, ",");
        const struct gpu_found *found = find_named(machine, visible, length);
        if (!found || gpu_list_find(out, found->entry.uuid))
            return; /* as CUDA does: what comes behind it is not seen */
        out->entries[out->count++] = found->entry;
        visible += length + (visible[length] == ',');
    }
}
