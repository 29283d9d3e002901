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

uint32_t models_workers_needed(const struct config_model *model)
{
    uint32_t least = config_model_workers(model);
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
