/*
 * The files of gateway/docs, which are part of the program.
 */
#ifndef GATEWAY_DOCS_FILES_H
#define GATEWAY_DOCS_FILES_H

#include <stddef.h>

enum docs_name { DOCS_OPENAPI, DOCS_PAGE, DOCS_STYLE, DOCS_SCRIPT };

struct docs_file {
    const char *text; /* terminated */
    size_t size;      /* without the terminator */
};

struct docs_file docs_file(enum docs_name name);

#endif
