/*
 * What the gateway knows of the models: which route leads to which, and a private copy of each
 * one's published interface, so that a request keeps the interface that it was decoded by while a
 * reload publishes the next.
 */
#ifndef GATEWAY_MODELS_H
#define GATEWAY_MODELS_H

#include "unetserve/config.h"
#include "unetserve/queue.h"

struct model_view {
    uint32_t references;
    uint32_t model;      /* index in the model table */
    uint32_t generation; /* of the interface */
    struct unetserve_interface interface;
};

struct models {
    const struct queue *queue;
    const struct config *config;
    struct model_view *current[QUEUE_MAX_MODELS];
};

void models_init(struct models *models, const struct queue *queue, const struct config *config);
void models_close(struct models *models);

/* The index of the model with that route, or of that name; -1 if there is none. */
int models_find_route(const struct models *models, const char *path);
int models_find_name(const struct models *models, const char *name);

/* The newest interface of a model, with a reference for the caller; NULL while no worker has ever
 * been ready. */
struct model_view *models_view(struct models *models, uint32_t model);
struct model_view *model_view_keep(struct model_view *view);
void model_view_drop(struct model_view *view);

/* Ready workers that a model needs for /health, and whether all models have theirs. */
uint32_t models_workers_needed(const struct config_model *model);
bool models_ready(const struct models *models);

#endif
