/*
 * The queue's areas, page-locked for the device where tiles and labels lie in them, so that copies
 * need no memory of our own in between: piece by piece, when a job first comes there, and until
 * the end. What lies elsewhere, or cannot be locked, takes the way through memory of the lane's.
 */
#ifndef GPU_AREAS_H
#define GPU_AREAS_H

#include "gpu_device.h"
#include "workers/backends/backend.h"

/* What is locked at once. A copy that crosses from one piece to the next is made in two: no device
 * takes memory that was locked by two calls for one. */
#define GPU_AREA_PIECE_BYTES ((size_t)4 << 20)

struct gpu_area_piece;

struct gpu_areas {
    struct gpu_device *device;
    const struct backend_options *options; /* area, log, opaque */
    bool read_only;   /* the device takes memory that this process only reads */
    bool given_up[2]; /* [writable]: such areas are not locked */
    size_t count;
    size_t room;
    struct gpu_area_piece *pieces; /* by address */
};

/* Nothing is locked yet. options are kept by reference. 0, -EIO. */
int gpu_areas_open(struct gpu_device *device, const struct backend_options *options,
                   struct gpu_areas *out);

/* Unlock all; no copy is under way. */
void gpu_areas_close(struct gpu_areas *areas);

/* How many of those bytes, from the first on, may be copied at once without the host's help, the
 * device writing them if `written`; locked if need be. *direct is 0 where they may not. 0, -EIO. */
int gpu_areas_lock(struct gpu_areas *areas, const void *address, size_t bytes, bool written,
                   size_t *direct);

#endif
