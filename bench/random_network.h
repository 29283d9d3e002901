/* A UNet with random weights, built in memory: for measuring, where only the sizes count. */
#ifndef RANDOM_NETWORK_H
#define RANDOM_NETWORK_H

#include "workers/models/unet/network.h"

struct random_network {
    uint32_t base; /* channels of the first level */
    uint32_t depth;
    uint32_t channels;
    uint32_t classes;
};

/* Double convolutions, 2 x 2 pooling, transposed convolutions, concat [skip, up]. 0 or -ENOMEM;
 * free with network_free. */
int random_network_make(const struct random_network *sizes, struct network *out);

#endif
