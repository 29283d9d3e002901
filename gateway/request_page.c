/*
 * What is answered without a job: health, metrics, documentation, what is served.
 */
#include "gateway/docs_page.h"
#include "gateway/metrics.h"
#include "gateway/openapi.h"
#include "gateway/pages.h"
#include "gateway/request_parts.h"

#include <string.h>

struct page {
    int status;
    const char *type;
    char *text; /* malloc'd; NULL: there is no memory for it */
    size_t size;
};

static void request_page(struct request *request, enum route_kind kind, struct page *page)
{
    struct gateway *gateway = request->http->gateway;
    bool ready = kind == ROUTE_HEALTH && !gateway->ending && models_ready(&gateway->models);
    *page = (struct page){.status = 200, .type = ANSWER_TYPE_TEXT};
    switch (kind) {
    case ROUTE_ROOT: page->text = strdup("unetserve running"); break;
    case ROUTE_HEALTH:
        page->text = strdup(ready ? "ok" : "not ready");
        page->status = ready ? 200 : 503;
        break;
    case ROUTE_METRICS:
        page->text = metrics_page(&gateway->models, &page->size);
        page->type = METRICS_TYPE;
        return;
    case ROUTE_DOCS:
        page->text = docs_page(request->answer.policy, sizeof request->answer.policy);
        page->type = ANSWER_TYPE_HTML;
        break;
    case ROUTE_OPENAPI:
        page->text = openapi_page(&request->http->openapi, &gateway->models,
                                  request->http->keys.count > 0);
        page->type = ANSWER_TYPE_JSON;
        break;
    case ROUTE_INFO:
    case ROUTE_MODEL:
        page->text = pages_info(&gateway->models);
        page->type = ANSWER_TYPE_JSON;
        break;
    }
    page->size = page->text ? strlen(page->text) : 0;
}

enum MHD_Result request_show(struct request *request, enum route_kind kind)
{
    struct page page;
    request_page(request, kind, &page);
    if (!page.text) {
        struct problem problem;
        request->answer.policy[0] = '\0';
        problem_set(&problem, 503, "Out of memory, try again later");
        return request_refuse(request, &problem);
    }
    answer_set_body(&request->answer, page.status, page.type, page.text, page.size);
    return request_answer_early(request);
}
