/*
 * How large the queue's slots are and how many there are of each size, from what the models take. A
 * pure function.
 */
#ifndef GEOMETRY_H
#define GEOMETRY_H

#include "unetserve/queue.h"

struct geometry_request {
    const struct unetserve_interface *interfaces; /* model_count of them */
    uint32_t tiles[QUEUE_MAX_MODELS];             /* the configuration's; 0: the interface's */
    uint64_t
        responses[QUEUE_MAX_MODELS]; /* the longest documents that are answered; 0: usual ones */
    uint32_t model_count;
    uint64_t memory;         /* bytes, for all areas together */
    uint64_t max_body_bytes; /* no slot is larger than twice this */
};

/* 0 with *out; -ENOSPC: memory does not hold one job of each kind, *needed (if not NULL) says how
 * much would. */
int geometry_plan(const struct geometry_request *request, struct queue_geometry *out,
                  uint64_t *needed);

#endif
