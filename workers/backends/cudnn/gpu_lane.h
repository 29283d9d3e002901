/*
 * One batch on its way through a device: a stream, page-locked memory that tiles and labels pass
 * through, and their copies on the device. Two lanes let one batch's copies overlap another one's
 * forward pass.
 */
#ifndef GPU_LANE_H
#define GPU_LANE_H

#include "gpu_shapes.h"
#include "workers/backends/backend.h"

struct gpu_lane {
    CUstream stream;
    CUevent done;
    void *host_in; /* page-locked */
    void *host_out;
    CUdeviceptr in;
    CUdeviceptr out;
    size_t in_bytes;
    size_t out_bytes;
    bool busy;
    struct backend_batch batch; /* while busy; its arrays are the caller's */
    size_t logits_offset;       /* in out */
};

/* 0, -ENOMEM, -EIO. */
int gpu_lane_open(struct gpu_device *device, struct gpu_lane *out);
void gpu_lane_close(struct gpu_device *device, struct gpu_lane *lane);

/* Take the tiles over and put everything that is to be done with them on the stream. arena_free: an
 * event of whoever used the arena last. 0, -ENOMEM, -EIO. */
int gpu_lane_begin(struct gpu_lane *lane, struct gpu_shapes *shapes, struct gpu_shape *shape,
                   const struct backend_preprocess *preprocess, const struct backend_batch *batch,
                   CUevent arena_free);

/* Wait for it and hand the answers over. 0, -EIO. */
int gpu_lane_finish(struct gpu_device *device, uint32_t classes, struct gpu_lane *lane);

#endif
