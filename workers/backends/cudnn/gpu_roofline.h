/*
 * What a step costs at the least: its arithmetic, the bytes that it moves, and how long a device
 * takes for the larger of both. Peaks follow from a device's clocks and its compute capability, so
 * they are those of the data sheets; no measurement stands behind them.
 */
#ifndef GPU_ROOFLINE_H
#define GPU_ROOFLINE_H

#include "gpu_layout.h"

struct gpu_peaks {
    double flop_per_s; /* dense tensor cores with float sums; for f32, plain cores */
    double bytes_per_s;
};

struct gpu_device_facts {
    char name[64];
    int capability; /* 90: 9.0 */
    double processors;
    double clock_hz;
    double memory_clock_hz;
};

/* The facts out of a description of a device (cuDNN's JSON form). 0, -EINVAL with a sentence. */
int gpu_device_facts_read(const char *text, size_t size, struct gpu_device_facts *out, char *error,
                          size_t error_size);

struct gpu_peaks gpu_peaks_of(const struct gpu_device_facts *facts, enum gpu_type type);

struct gpu_cost {
    double flop; /* of the network's own channels, as network_flop counts */
    double bytes;
};

struct gpu_cost gpu_step_cost(const struct network *network, const struct gpu_layout *layout,
                              const struct gpu_step *step);
double gpu_cost_seconds(const struct gpu_cost *cost, const struct gpu_peaks *peaks);

#endif
