/*
 * A form as the JSON object of its fields, which is what models that take documents get of it: text
 * as strings (what is no UTF-8 becomes U+FFFD). A file becomes an object where the model takes
 * files: {"unetserve.UploadFile": {"filename": ..., "content_type": ..., "data": base64}}; else it
 * is refused.
 */
#ifndef FORM_DOCUMENT_H
#define FORM_DOCUMENT_H

#include "lib/base64.h"
#include "lib/form.h"

/* Takes a piece of the document. 0, or -1 with *problem. */
typedef int form_document_put(void *opaque, const char *text, size_t size, struct problem *problem);

struct form_document {
    form_document_put *put;
    void *opaque;
    bool takes_files;
    bool begun;   /* there was a field */
    bool in_file; /* the one that is coming is a file */
    char rest[4]; /* of a file: bytes that wait for two more; of text: of a character */
    uint8_t rest_size, rest_left, low, high;
};

void form_document_init(struct form_document *document, bool takes_files, form_document_put *put,
                        void *opaque);

/* As form_taker has them; opaque is the struct form_document. */
int form_document_begin(void *opaque, const struct form_part *part, struct problem *problem);
int form_document_data(void *opaque, const char *bytes, size_t size, struct problem *problem);
int form_document_end(void *opaque, struct problem *problem);

/* The form is whole. */
int form_document_finish(struct form_document *document, struct problem *problem);

#endif
