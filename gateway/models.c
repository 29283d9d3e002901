#include "gateway/models.h"

#include <stdlib.h>
#include <string.h>

void models_init(struct models *models, const struct queue *queue, const struct config *config)
{
    *models = (struct models){.queue = queue, .config = config};
}

void models_close(struct models *models)
{
    for (uint32_t i = 0; i < QUEUE_MAX_MODELS; i++) {
        if (models->current[i])
            model_view_drop(models->current[i]);
        models->current[i] = NULL;
    }
}

int models_find_route(const struct models *models, const char *path)
{
    for (uint32_t i = 0; i < models->config->model_count; i++)
        if (strcmp(models->config->models[i].route, path) == 0)
            return (int)i;
    return -1;
}

int models_find_name(const struct models *models, const char *name)
{
    for (uint32_t i = 0; i < models->config->model_count; i++)
        if (strcmp(models->config->models[i].name, name) == 0)
            return (int)i;
    return -1;
}

struct model_view *model_view_keep(struct model_view *view)
{
    view->references++;
    return view;
}

void model_view_drop(struct model_view *view)
{
    if (--view->references == 0)
        free(view);
}

struct model_view *models_view(struct models *models, uint32_t model)
{
    struct model_view *current = models->current[model];
    uint32_t newest = atomic_load_explicit(&models->queue->models[model].generation,
                                           memory_order_acquire);
    if (current && current->generation == newest)
        return model_view_keep(current);
    struct model_view *view = calloc(1, sizeof *view);
    if (!view)
        return NULL;
    if (queue_model_read(models->queue, model, &view->interface, &view->generation)) {
        free(view);
        return NULL;
    }
    view->model = model;
    view->references = 1;
    if (current)
        model_view_drop(current);
    models->current[model] = view;
    return model_view_keep(view);
}

/* "auto" and "cpu" are one; "3" is three devices; "0,2" is two. */
static uint32_t device_count(const char *devices)
{
    uint32_t commas = 0;
    for (const char *at = devices; *at; at++)
        commas += *at == ',';
    if (commas)
        return commas + 1;
    unsigned long count = strtoul(devices, NULL, 10);
    return count >= 1 && count <= QUEUE_MAX_PROCESSES ? (uint32_t)count : 1;
}

uint32_t models_workers_needed(const struct config_model *model)
{
    uint32_t least = model->workers_max ? model->workers_min
                                        : model->workers_per_device * device_count(model->devices);
    return least ? least : 1;
}

bool models_ready(const struct models *models)
{
    for (uint32_t i = 0; i < models->config->model_count; i++)
        if (queue_ready_workers(models->queue, i) <
            models_workers_needed(&models->config->models[i]))
            return false;
    return true;
}
