/*
 * One batch on its way through a device. Tiles go in, are computed and labels come out on three
 * streams that all lanes share, each waiting for the one before by an event: so with two lanes one
 * batch's copies overlap the other one's forward pass. Copies are made straight from and to the
 * queue's areas where those can be page-locked, else through memory of the lane's.
 */
#ifndef GPU_LANE_H
#define GPU_LANE_H

#include "gpu_areas.h"
#include "gpu_shapes.h"
#include "workers/backends/backend.h"

#define GPU_LANE_TILES 8 /* in a lane at once; beyond this a GPU is busy */

struct gpu_streams {
    CUstream in;
    CUstream forward;
    CUstream out;
};

/* Memory on both sides; the host's is made when it is needed first. */
struct gpu_buffer {
    void *host; /* page-locked */
    CUdeviceptr device;
    size_t host_bytes;
    size_t device_bytes;
};

struct gpu_lane {
    CUevent loaded;   /* the tiles are on the device */
    CUevent labelled; /* the answers are there */
    CUevent done;     /* they are with the host */
    struct gpu_buffer in;
    struct gpu_buffer out;
    bool busy;
    struct backend_batch batch; /* while busy; its arrays are those below, without inputs */
    uint8_t *labels[GPU_LANE_TILES];
    float *logits[GPU_LANE_TILES];
    size_t logits_offset;            /* in out */
    size_t straight[GPU_LANE_TILES]; /* bytes of labels that need not pass through out.host */
};

/* What lanes work with. */
struct gpu_way {
    struct gpu_device *device;
    struct gpu_streams streams;
    struct gpu_areas areas;
    struct gpu_shapes *shapes;
    const struct backend_preprocess *preprocess;
};

/* 0, -ENOMEM, -EIO. */
int gpu_streams_open(struct gpu_device *device, struct gpu_streams *out);
void gpu_streams_close(struct gpu_device *device, struct gpu_streams *streams);

/* 0, -ENOMEM, -EIO. */
int gpu_lane_open(struct gpu_device *device, struct gpu_lane *out);
void gpu_lane_close(struct gpu_device *device, struct gpu_lane *lane);

/* Put everything that is to be done with at most GPU_LANE_TILES tiles on the streams. They, and
 * where the answers go, must stay until gpu_lane_finish, but not the batch and its arrays. 0,
 * -ENOMEM, -EIO. */
int gpu_lane_begin(struct gpu_lane *lane, struct gpu_way *way, struct gpu_shape *shape,
                   const struct backend_batch *batch);

/* Wait for it; the answers are where they belong then. 0, -EIO. */
int gpu_lane_finish(struct gpu_device *device, uint32_t classes, struct gpu_lane *lane);

#endif
