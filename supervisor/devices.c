#include "supervisor/devices.h"

#include "supervisor/describe.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

bool devices_wanted(const struct config *config)
{
    for (uint32_t i = 0; i < config->model_count; i++)
        if (strcmp(describe_device(&config->models[i]), "cpu") != 0)
            return true;
    return false;
}

int devices_resolve(struct config *config, const struct gpu_list *gpus, char *error,
                    size_t error_size)
{
    for (uint32_t i = 0; i < config->model_count; i++) {
        struct config_model *model = &config->models[i];
        char resolved[sizeof model->devices];
        char reason[GPU_LIST_ERROR_MAX + 300];
        if (gpu_list_resolve(gpus, model->devices, resolved, sizeof resolved, reason,
                             sizeof reason)) {
            snprintf(error, error_size, "model '%s': %s", model->name, reason);
            return -ENODEV;
        }
        memcpy(model->devices, resolved, sizeof resolved);
    }
    return 0;
}
