#include "gateway/routes.h"

#include <string.h>

static const struct {
    const char *path;
    enum route_kind kind;
    bool docs; /* can be turned off */
} pages[] = {{"/", ROUTE_ROOT, false},
             {"/health", ROUTE_HEALTH, false},
             {"/info", ROUTE_INFO, false},
             {"/metrics", ROUTE_METRICS, false},
             {"/openapi.json", ROUTE_OPENAPI, true},
             {"/docs", ROUTE_DOCS, true}};

static bool is_read(const char *method)
{
    return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
}

static int refuse_method(struct problem *problem, const char **allow, const char *allowed)
{
    problem_set(problem, 405, "Method Not Allowed");
    *allow = allowed;
    return -1;
}

int routes_find(const struct models *models, const char *method, const char *path,
                struct route *route, struct problem *problem, const char **allow)
{
    *allow = NULL;
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
        if (strcmp(path, pages[i].path) != 0 ||
            (pages[i].docs && strcmp(models->config->docs, "off") == 0))
            continue;
        if (!is_read(method))
            return refuse_method(problem, allow, "GET, HEAD");
        *route = (struct route){pages[i].kind, 0};
        return 0;
    }
    int model = models_find_route(models, path);
    if (model < 0) {
        problem_set(problem, 404, "Not Found");
        return -1;
    }
    if (strcmp(method, "POST") != 0)
        return refuse_method(problem, allow, "POST");
    *route = (struct route){ROUTE_MODEL, (uint32_t)model};
    return 0;
}

bool routes_need_no_key(enum route_kind kind)
{
    return kind == ROUTE_HEALTH || kind == ROUTE_OPENAPI || kind == ROUTE_DOCS;
}
