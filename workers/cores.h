/*
 * The worker's share of the machine: which cores it may use, and what the libraries that start
 * threads are told about it.
 */
#ifndef CORES_H
#define CORES_H

#include <sched.h>
#include <stdint.h>

/* "0-1,4" into a set; numbers below CPU_SETSIZE, ranges in ascending order. 0, or -EINVAL. */
int cores_parse(const char *text, cpu_set_t *out);

/* Bind the process (and every thread that it starts from now on) to those cores. 0, or a negative
 * errno. */
int cores_pin(const cpu_set_t *cores);

/* Have the process's memory, from now on, on that NUMA node as long as there is some. 0, or a
 * negative errno: the kernel knows no such node, or a container's filter forbids the call. */
#define CORES_MAX_NODES 1024
int cores_prefer_node(uint32_t node);

/* How many cores the process may use now, at least 1. */
uint32_t cores_allowed(void);

/* Set the environment that libgomp reads when it is loaded: to be called before any plugin is. 0,
 * or -ENOMEM. */
int cores_prepare_threads(uint32_t threads);

#endif
