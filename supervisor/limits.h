/*
 * What the machine and the control group allow: version 2 (memory.max and cpu.max, each level up to
 * the root) and version 1.
 */
#ifndef LIMITS_H
#define LIMITS_H

#include <stdint.h>

/* Bytes of memory that this process and its children may use, the machine's if there is no lower
 * limit. */
uint64_t limits_memory(void);

/* Cores that the quota pays for, rounded up; 0: no quota. */
unsigned limits_cpus(void);

/* The text of memory.max; UINT64_MAX for "max" and for what cannot be read. */
uint64_t limits_parse_memory(const char *text);

/* The text of cpu.max ("150000 100000"); 0 for "max" and for what cannot be read. */
unsigned limits_parse_cpu(const char *text);

#endif
