/*
 * Where a method and a path lead.
 */
#ifndef GATEWAY_ROUTES_H
#define GATEWAY_ROUTES_H

#include "gateway/models.h"

#include "unetserve/problem.h"

enum route_kind {
    ROUTE_ROOT,
    ROUTE_HEALTH,
    ROUTE_INFO,
    ROUTE_METRICS,
    ROUTE_OPENAPI,
    ROUTE_DOCS,
    ROUTE_MODEL
};

struct route {
    enum route_kind kind;
    uint32_t model; /* ROUTE_MODEL: index in the model table */
};

/* 0 with *route; or -1 with *problem: 404, or 405 with *allow, the value of that header (static,
 * else NULL). */
int routes_find(const struct models *models, const char *method, const char *path,
                struct route *route, struct problem *problem, const char **allow);

/* Is it open to those who have no key? Probes have none, and who reads about the models is not yet
 * one who asks them. */
bool routes_need_no_key(enum route_kind kind);

#endif
