/*
 * A libnvidia-ml.so.1 for machines without NVIDIA's driver: it tells of the GPUs that the JSON file
 * NVMLDOUBLE describes, which is read again at every call, so that a test may change them. "codes"
 * there lets calls fail by their names, with an NVML code; "hang" names one that never returns.
 */
#include "gpu/nvml.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT         __attribute__((visibility("default")))
#define NOT_ENOUGH     7
#define UNKNOWN        999
#define MOST_INSTANCES 7

/* The file as it is now, or NULL. */
static json_t *world(void)
{
    const char *path = getenv("NVMLDOUBLE");
    return path ? json_load_file(path, 0, NULL) : NULL;
}

/* What `call` is to answer before it does anything. */
static int enter(const json_t *all, const char *call)
{
    const char *hang = json_string_value(json_object_get(all, "hang"));
    while (hang && strcmp(hang, call) == 0)
        pause();
    const json_t *code = json_object_get(json_object_get(all, "codes"), call);
    return !all ? UNKNOWN : (int)json_integer_value(code);
}

/* Handles are numbers: the GPU's, and its instance's above, each plus one. */
static nvml_device handle_of(size_t gpu, size_t instance)
{
    return (nvml_device)(uintptr_t)((gpu + 1) | instance << 8);
}

static const json_t *described(const json_t *all, nvml_device device)
{
    size_t gpu = ((uintptr_t)device & 0xff) - 1;
    size_t instance = (uintptr_t)device >> 8;
    const json_t *found = json_array_get(json_object_get(all, "devices"), gpu);
    return instance ? json_array_get(json_object_get(found, "mig"), instance - 1) : found;
}

/* A device's value `key`, to be read by take; what it does not have is not supported. */
static int ask(const char *call, nvml_device device, const char *key,
               int (*take)(const json_t *value, void *out, unsigned size), void *out, unsigned size)
{
    json_t *all = world();
    int code = enter(all, call);
    const json_t *value = json_object_get(described(all, device), key);
    if (code == NVML_SUCCESS)
        code = value ? take(value, out, size) : NVML_NOT_SUPPORTED;
    json_decref(all);
    return code;
}

static int take_text(const json_t *value, void *out, unsigned size)
{
    const char *text = json_string_value(value);
    if (!text || strlen(text) >= size)
        return NOT_ENOUGH;
    memcpy(out, text, strlen(text) + 1);
    return NVML_SUCCESS;
}

static int take_number(const json_t *value, void *out, unsigned size)
{
    (void)size;
    *(unsigned *)out = (unsigned)json_integer_value(value);
    return NVML_SUCCESS;
}

static int take_wide(const json_t *value, void *out, unsigned size)
{
    const json_t *number = json_is_array(value) ? json_array_get(value, size) : value;
    *(unsigned long long *)out = (unsigned long long)json_integer_value(number);
    return NVML_SUCCESS;
}

static int take_bits(const json_t *value, void *out, unsigned words)
{
    unsigned long *bits = out;
    memset(bits, 0, words * sizeof *bits);
    for (size_t i = 0; i < json_array_size(value); i++) {
        size_t bit = (size_t)json_integer_value(json_array_get(value, i));
        if (bit < words * 64)
            bits[bit / 64] |= 1ul << bit % 64;
    }
    return NVML_SUCCESS;
}

static int take_memory(const json_t *value, void *out, unsigned size)
{
    struct nvml_memory *memory = out;
    (void)size;
    memory->total = (unsigned long long)json_integer_value(json_array_get(value, 0));
    memory->used = (unsigned long long)json_integer_value(json_array_get(value, 1));
    memory->free = memory->total - memory->used;
    return NVML_SUCCESS;
}

static int take_rates(const json_t *value, void *out, unsigned size)
{
    struct nvml_utilization *rates = out;
    (void)size;
    rates->gpu = (unsigned)json_integer_value(json_array_get(value, 0));
    rates->memory = (unsigned)json_integer_value(json_array_get(value, 1));
    return NVML_SUCCESS;
}

#define DEFINE(member, symbol, arguments)                                                          \
    EXPORT int symbol arguments;                                                                   \
    int symbol arguments

DEFINE(init, nvmlInit_v2, (void))
{
    json_t *all = world();
    int code = enter(all, __func__);
    json_decref(all);
    return code;
}

DEFINE(driver_version, nvmlSystemGetDriverVersion, (char *text, unsigned size))
{
    json_t *all = world();
    int code = enter(all, __func__);
    if (code == NVML_SUCCESS)
        code = take_text(json_object_get(all, "driver"), text, size);
    json_decref(all);
    return code;
}

DEFINE(device_count, nvmlDeviceGetCount_v2, (unsigned *count))
{
    json_t *all = world();
    int code = enter(all, __func__);
    *count = (unsigned)json_array_size(json_object_get(all, "devices"));
    json_decref(all);
    return code;
}

DEFINE(device_at, nvmlDeviceGetHandleByIndex_v2, (unsigned index, nvml_device *device))
{
    json_t *all = world();
    int code = enter(all, __func__);
    *device = handle_of(index, 0);
    if (code == NVML_SUCCESS && !described(all, *device))
        code = NVML_NOT_FOUND;
    json_decref(all);
    return code;
}

DEFINE(uuid, nvmlDeviceGetUUID, (nvml_device device, char *text, unsigned size))
{
    return ask(__func__, device, "uuid", take_text, text, size);
}

DEFINE(name, nvmlDeviceGetName, (nvml_device device, char *text, unsigned size))
{
    return ask(__func__, device, "name", take_text, text, size);
}

DEFINE(memory, nvmlDeviceGetMemoryInfo, (nvml_device device, struct nvml_memory *memory))
{
    return ask(__func__, device, "memory", take_memory, memory, 0);
}

DEFINE(utilization, nvmlDeviceGetUtilizationRates,
       (nvml_device device, struct nvml_utilization *rates))
{
    return ask(__func__, device, "utilization", take_rates, rates, 0);
}

DEFINE(temperature, nvmlDeviceGetTemperature, (nvml_device device, int sensor, unsigned *celsius))
{
    return sensor ? UNKNOWN : ask(__func__, device, "temperature", take_number, celsius, 0);
}

DEFINE(power, nvmlDeviceGetPowerUsage, (nvml_device device, unsigned *milliwatts))
{
    return ask(__func__, device, "power", take_number, milliwatts, 0);
}

DEFINE(power_limit, nvmlDeviceGetEnforcedPowerLimit, (nvml_device device, unsigned *milliwatts))
{
    return ask(__func__, device, "power_limit", take_number, milliwatts, 0);
}

DEFINE(clock, nvmlDeviceGetClockInfo, (nvml_device device, int clock, unsigned *mhz))
{
    return clock != 1 ? UNKNOWN : ask(__func__, device, "clock", take_number, mhz, 0);
}

DEFINE(throttle_reasons, nvmlDeviceGetCurrentClocksThrottleReasons,
       (nvml_device device, unsigned long long *reasons))
{
    return ask(__func__, device, "throttle", take_wide, reasons, 0);
}

DEFINE(ecc_errors, nvmlDeviceGetTotalEccErrors,
       (nvml_device device, int kind, int counter, unsigned long long *count))
{
    return counter ? UNKNOWN : ask(__func__, device, "ecc", take_wide, count, (unsigned)kind);
}

DEFINE(mig_mode, nvmlDeviceGetMigMode, (nvml_device device, unsigned *current, unsigned *pending))
{
    json_t *all = world();
    int code = enter(all, __func__);
    *current = *pending = json_object_get(described(all, device), "mig") != NULL;
    json_decref(all);
    return code;
}

DEFINE(mig_most, nvmlDeviceGetMaxMigDeviceCount, (nvml_device device, unsigned *count))
{
    (void)device;
    *count = MOST_INSTANCES;
    return NVML_SUCCESS;
}

DEFINE(mig_at, nvmlDeviceGetMigDeviceHandleByIndex,
       (nvml_device device, unsigned index, nvml_device *instance))
{
    json_t *all = world();
    int code = enter(all, __func__);
    *instance = handle_of(((uintptr_t)device & 0xff) - 1, index + 1);
    if (code == NVML_SUCCESS && !json_is_object(described(all, *instance)))
        code = NVML_NOT_FOUND;
    json_decref(all);
    return code;
}

DEFINE(cpu_affinity, nvmlDeviceGetCpuAffinity,
       (nvml_device device, unsigned words, unsigned long *cpus))
{
    return ask(__func__, device, "cpus", take_bits, cpus, words);
}

DEFINE(memory_affinity, nvmlDeviceGetMemoryAffinity,
       (nvml_device device, unsigned words, unsigned long *nodes, int scope))
{
    return scope ? UNKNOWN : ask(__func__, device, "nodes", take_bits, nodes, words);
}

EXPORT const char *nvmlErrorString(int code);
const char *nvmlErrorString(int code)
{
    return code == 9 ? "Driver Not Loaded" : code == NVML_GPU_IS_LOST ? "GPU is lost" : "an error";
}
