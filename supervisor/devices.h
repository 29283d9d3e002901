/* Which GPUs a configuration means. */
#ifndef DEVICES_H
#define DEVICES_H

#include "lib/gpu_list.h"
#include "unetserve/config.h"

/* Does a model want one? */
bool devices_wanted(const struct config *config);

/* Put UUIDs where a model's `devices` counts or names GPUs. 0, or -ENODEV and a sentence. */
int devices_resolve(struct config *config, const struct gpu_list *gpus, char *error,
                    size_t error_size);

#endif
