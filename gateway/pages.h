/*
 * The documents that the gateway writes about the server itself.
 */
#ifndef GATEWAY_PAGES_H
#define GATEWAY_PAGES_H

#include "gateway/models.h"

/* GET /info, LitServe's document. malloc'd, NULL without memory. */
char *pages_info(struct models *models);

/* What runs: models with their workers and interface, processes, slots by state. malloc'd JSON,
 * NULL without memory. */
char *pages_status(struct models *models);

#endif
