/*
 * GET /docs: one page, of gateway/docs/page.html with its style and its script, which shows what
 * /openapi.json says and sends requests. It loads nothing but that document.
 */
#ifndef GATEWAY_DOCS_PAGE_H
#define GATEWAY_DOCS_PAGE_H

#include <stddef.h>

/* malloc'd HTML, NULL without memory; and in policy (at least 256 bytes) the value of its
 * Content-Security-Policy, by which the page's own style and script run, and no other. */
char *docs_page(char *policy, size_t policy_size);

#endif
