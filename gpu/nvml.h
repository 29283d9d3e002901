/*
 * NVML, the NVIDIA driver's library that tells about GPUs, opened at run time: nothing of unetserve
 * is linked against it. Its header belongs to a toolkit that need not be there, so what is used of
 * it is declared here, by its documented interface, which the driver keeps.
 *
 * A call may hang as long as the driver does. So only unetserve-gpu makes any.
 */
#ifndef NVML_H
#define NVML_H

#include <stddef.h>
#include <stdint.h>

#define NVML_TEXT_MAX   96 /* names and UUIDs, their ends included */
#define NVML_CPU_WORDS  16 /* 1024 processors */
#define NVML_NODE_WORDS 4

enum {
    NVML_SUCCESS = 0,
    NVML_NOT_SUPPORTED = 3,
    NVML_NOT_FOUND = 6,
    NVML_GPU_IS_LOST = 15,
};

typedef struct nvml_handle *nvml_device;

struct nvml_utilization {
    unsigned gpu; /* percent of the last moments in which a kernel ran */
    unsigned memory;
};

struct nvml_memory {
    unsigned long long total;
    unsigned long long free;
    unsigned long long used;
};

/* Member, exported name, arguments. Optional ones may be NULL: older drivers lack them. */
#define NVML_CALLS(X)                                                                              \
    X(init, nvmlInit_v2, (void))                                                                   \
    X(driver_version, nvmlSystemGetDriverVersion, (char *text, unsigned size))                     \
    X(device_count, nvmlDeviceGetCount_v2, (unsigned *count))                                      \
    X(device_at, nvmlDeviceGetHandleByIndex_v2, (unsigned index, nvml_device *device))             \
    X(uuid, nvmlDeviceGetUUID, (nvml_device device, char *text, unsigned size))                    \
    X(name, nvmlDeviceGetName, (nvml_device device, char *text, unsigned size))                    \
    X(memory, nvmlDeviceGetMemoryInfo, (nvml_device device, struct nvml_memory * memory))          \
    X(utilization, nvmlDeviceGetUtilizationRates,                                                  \
      (nvml_device device, struct nvml_utilization * rates))                                       \
    X(temperature, nvmlDeviceGetTemperature, (nvml_device device, int sensor, unsigned *celsius))  \
    X(power, nvmlDeviceGetPowerUsage, (nvml_device device, unsigned *milliwatts))

#define NVML_OPTIONAL_CALLS(X)                                                                     \
    X(power_limit, nvmlDeviceGetEnforcedPowerLimit, (nvml_device device, unsigned *milliwatts))    \
    X(clock, nvmlDeviceGetClockInfo, (nvml_device device, int clock, unsigned *mhz))               \
    X(throttle_reasons, nvmlDeviceGetCurrentClocksThrottleReasons,                                 \
      (nvml_device device, unsigned long long *reasons))                                           \
    X(ecc_errors, nvmlDeviceGetTotalEccErrors,                                                     \
      (nvml_device device, int kind, int counter, unsigned long long *count))                      \
    X(mig_mode, nvmlDeviceGetMigMode, (nvml_device device, unsigned *current, unsigned *pending))  \
    X(mig_most, nvmlDeviceGetMaxMigDeviceCount, (nvml_device device, unsigned *count))             \
    X(mig_at, nvmlDeviceGetMigDeviceHandleByIndex,                                                 \
      (nvml_device device, unsigned index, nvml_device *instance))                                 \
    X(cpu_affinity, nvmlDeviceGetCpuAffinity,                                                      \
      (nvml_device device, unsigned words, unsigned long *cpus))                                   \
    X(memory_affinity, nvmlDeviceGetMemoryAffinity,                                                \
      (nvml_device device, unsigned words, unsigned long *nodes, int scope))

/* The functions return an NVML code, NVML_SUCCESS or another. */
struct nvml {
#define NVML_MEMBER(member, symbol, arguments) int(*member) arguments;
    NVML_CALLS(NVML_MEMBER)
    NVML_OPTIONAL_CALLS(NVML_MEMBER)
#undef NVML_MEMBER
    const char *(*error_text)(int code);
    char driver[NVML_TEXT_MAX]; /* the driver's version */
};

/* Open and initialise it; it stays open as long as the process. 0, or -ENODEV and a sentence. */
int nvml_open(struct nvml *out, char *error, size_t error_size);

/* What an NVML code means. */
const char *nvml_text(const struct nvml *nvml, int code);

#endif
