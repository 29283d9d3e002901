/*
 * A software model of AMX's tile instructions (palette 1, bfloat16 and bytes), after the operation
 * sections of Intel's manual: what a processor would do with the same operands, bit for bit, or
 * that it would raise an exception. Every thread has tiles of its own, as on a processor. It also
 * counts, for estimates of time.
 */
#ifndef AMX_MODEL_H
#define AMX_MODEL_H

#include "workers/backends/amx/amx_kernels.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AMX_MODEL_TILES 8

/* What became of an instruction: NULL, or the exception and why ("#UD: ..."). Static storage. */
typedef const char *amx_fault;

struct amx_counts {
    uint64_t configs;
    uint64_t loads;
    uint64_t load_rows; /* lines read by them, where none crosses two */
    uint64_t stores;
    uint64_t store_rows;
    uint64_t sums;     /* TDPBF16PS and TDPBUSD */
    uint64_t sum_rows; /* rows of the first factor in them */
};

amx_fault amx_model_config(const struct amx_config *config);
void amx_model_release(void);
amx_fault amx_model_zero(unsigned tile);
amx_fault amx_model_load(unsigned tile, const void *from, size_t step);
amx_fault amx_model_store(unsigned tile, void *to, size_t step);
amx_fault amx_model_sum(unsigned sums, unsigned a, unsigned b);
amx_fault amx_model_sum_codes(unsigned sums, unsigned a, unsigned b);

/* Whether products are computed, or only counted; in all threads. It computes at first. */
void amx_model_compute(bool yes);

/* What all threads have executed since the last call. */
struct amx_counts amx_model_take_counts(void);

/* The kernels, on the model. A fault ends the process with its sentence. */
extern const struct amx_kernels amx_modelled;

#endif
