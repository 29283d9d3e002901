/*
 * A form around a body's content: of a model that takes documents it becomes a document, of one
 * that takes images the one file in it is the content.
 */
#ifndef BODY_FORM_H
#define BODY_FORM_H

#include "lib/form_document.h"
#include "unetserve/body_reader.h"

/* Takes a piece of the content. 0, or -1 with *problem. */
typedef int body_form_content(void *opaque, const char *bytes, size_t size,
                              struct problem *problem);

struct body_form {
    const struct unetserve_interface *interface;
    body_form_content *content;
    void *opaque;
    bool begun;    /* urlencoded: its first byte was there */
    bool had_file; /* of an image model */
    bool in_file;
    struct form_document document;
    union {
        struct form_multipart multipart;
        struct form_urlencoded urlencoded;
    } as;
};

/* malloc'd, or NULL with *problem: 400 without a boundary, 503 without memory. format:
 * BODY_MULTIPART or BODY_URLENCODED. */
struct body_form *body_form_open(const struct unetserve_interface *interface,
                                 enum body_format format, const char *content_type,
                                 body_form_content *content, void *opaque, struct problem *problem);

/* Is what begins so no urlencoded form, but JSON that a client calls one, as curl -d does? Passes
 * over blanks; false also while there is nothing else. */
bool body_form_is_json(const struct body_form *form, const char **bytes, size_t *size);

int body_form_feed(struct body_form *form, enum body_format format, const char *bytes, size_t size,
                   struct problem *problem);

/* The form is whole. 0, or -1 with *problem (truncated; no file in it). */
int body_form_finish(struct body_form *form, enum body_format format, struct problem *problem);

#endif
