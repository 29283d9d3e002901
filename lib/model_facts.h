/*
 * What those who write clients want to know of a model, as one JSON object: what its requests and
 * answers look like, an example, its classes. It stands in /openapi.json as x-unetserve-model, and
 * in every client.py.
 */
#ifndef MODEL_FACTS_H
#define MODEL_FACTS_H

#include "unetserve/model.h"

#include <jansson.h>

/*
 * {"name", "version", "request": "tensor"|"fields"|"document",
 *  "answer": "labels"|"document", "streams": bool,
 *  and for tensors: "request_key", "channels", "size_multiple", "size_min", "size_max", "tile",
 *                   "max_batch", "dtypes": [...],
 *  for documents:   "example": {...}, or whatever the schema has as one,
 *  for labels:      "answer_key", "classes": [{"name", "code", "color": "#rrggbb"}]}
 *
 * NULL without memory.
 */
json_t *model_facts(const struct unetserve_interface *interface);

/* The classes alone: [{"name", "code", "color"}]. NULL without memory. */
json_t *model_facts_classes(const struct unetserve_interface *interface);

/* A request_schema or response_schema as JSON: an object, empty if it is none. NULL without memory.
 */
json_t *model_facts_schema(const char *text);

/* A value that a declared field takes. NULL without memory. */
json_t *model_facts_example(const struct unetserve_field *field);

#endif
