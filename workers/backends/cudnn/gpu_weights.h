/*
 * A network's weights on a device: of the type and in the order that its convolutions read, padded
 * with zeros to the channels that images have in memory. One allocation holds them all.
 */
#ifndef GPU_WEIGHTS_H
#define GPU_WEIGHTS_H

#include "gpu_device.h"
#include "workers/models/unet/network.h"

struct gpu_layer_weights {
    CUdeviceptr weights; /* [out][ky][kx][in]; 0 where the layer has none */
    CUdeviceptr bias;
};

struct gpu_weights {
    CUdeviceptr memory;
    size_t bytes;
    struct gpu_layer_weights *layers; /* one a layer */
};

/* Convert and copy. network has its weights. 0, -ENOMEM, -EIO. Free with gpu_weights_free. */
int gpu_weights_create(struct gpu_device *device, const struct network *network, enum gpu_type type,
                       struct gpu_weights *out);
void gpu_weights_free(struct gpu_device *device, struct gpu_weights *weights);

/* One element, rounded to nearest even; what lies beyond the type becomes infinite. For tests. */
uint16_t gpu_weights_narrow(enum gpu_type type, float value);

#endif
