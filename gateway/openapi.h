/*
 * GET /openapi.json: OpenAPI 3.1, made of what is the same for every server
 * (gateway/docs/openapi.json) and of what the served models declare.
 */
#ifndef GATEWAY_OPENAPI_H
#define GATEWAY_OPENAPI_H

#include "gateway/models.h"

/* keys: are there API keys? Tokens are the configuration's to tell. malloc'd JSON, NULL without
 * memory. Models that no
 * worker has been ready for yet are left out. */
char *openapi_make(struct models *models, bool keys);

/* The document as it was made last, for as long as it is true: anybody may ask for it. Zero at
 * first. */
struct openapi {
    char *text;
    uint32_t generations[QUEUE_MAX_MODELS]; /* of the models that it tells of */
    bool keys;
    uint64_t tokens; /* config_oauth_mark */
};

/* A copy of it, made anew where a model has changed. malloc'd, NULL without memory. */
char *openapi_page(struct openapi *openapi, struct models *models, bool keys);
void openapi_close(struct openapi *openapi);

#endif
