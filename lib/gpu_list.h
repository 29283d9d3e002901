/*
 * The GPUs of this machine, as unetserve-gpu --list tells them: who is asked is a process of its
 * own, because the driver may hang whoever asks it.
 */
#ifndef GPU_LIST_H
#define GPU_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GPU_LIST_MAX       64
#define GPU_TEXT_MAX       96
#define GPU_CPU_WORDS      16 /* 1024 processors */
#define GPU_LIST_WAIT_MS   20000
#define GPU_LIST_ERROR_MAX 400

/* What a worker can be given: a GPU, or, where MIG is on, one instance of it. */
struct gpu_entry {
    char uuid[GPU_TEXT_MAX];      /* "GPU-..." or "MIG-..." */
    char index[24];               /* "0"; an instance: "0:1" */
    char name[GPU_TEXT_MAX];      /* of the product */
    uint64_t memory_bytes;        /* in all; 0: not known */
    int node;                     /* NUMA node, -1: not known */
    uint64_t cpus[GPU_CPU_WORDS]; /* near it, a bit each; none: not known */
};

struct gpu_list {
    uint32_t count;
    struct gpu_entry entries[GPU_LIST_MAX];
    char driver[GPU_TEXT_MAX];      /* its version */
    char error[GPU_LIST_ERROR_MAX]; /* why there can be none: a sentence; empty otherwise */
};

/* One line of JSON to be freed, NULL: out of memory; and back. 0, -EBADMSG, -ENOMEM. */
char *gpu_list_to_json(const struct gpu_list *list);
int gpu_list_from_json(const char *text, size_t size, struct gpu_list *out);

/* Ask unetserve-gpu, which lies beside this program or in ../lib/unetserve. Blocks, at most
 * GPU_LIST_WAIT_MS and a little. Always fills *out: what went wrong is in its error. */
void gpu_list_ask(struct gpu_list *out);

/* The GPU with that UUID, index ("0", "0:1") or the latter after "cuda:". NULL: there is none. */
const struct gpu_entry *gpu_list_find(const struct gpu_list *list, const char *which);

/* Make of the configuration's `devices` what it means here: UUIDs, separated by commas; auto and
 * cpu stay as they are, and so do "cuda" and "1" where nothing is known of GPUs (the driver's first
 * one, then). 0, or -ENODEV and a sentence. */
int gpu_list_resolve(const struct gpu_list *list, const char *devices, char *out, size_t size,
                     char *error, size_t error_size);

#endif
