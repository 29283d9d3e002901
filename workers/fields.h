/*
 * Documents with declared fields: what a client sent becomes the values that a model works on, or a
 * 422 in pydantic's words; a model's values become the answer's JSON. A plugin with declared fields
 * has no code for any of this.
 */
#ifndef FIELDS_H
#define FIELDS_H

#include "unetserve/model.h"

/* A longer document is refused with 413: it is parsed as a whole, into many times its size. */
#define FIELDS_DOCUMENT_MAX ((size_t)16 << 20)

/* Errors told of one document, at most. */
#define FIELDS_ERRORS_MAX 8

struct fields;

/* Are the declarations such that documents can be read and written by them? 0, or -EBADMSG with a
 * sentence. */
int fields_check(const struct unetserve_interface *interface, char *error, size_t error_size);

/* Read the item's input by the request fields. 0: *out holds the values (fields_free ends them),
 * and item->values points to them; or the document is refused: *out is NULL, item->status is 4xx
 * and the output is written. -ENOMEM; -ENOSPC: no room for the refusal. */
int fields_read(const struct unetserve_interface *interface, struct unetserve_item *item,
                struct fields **out);

/* NULL is allowed. */
void fields_free(struct fields *fields);

/* One JSON object from one value for each response field, terminated, in a buffer of size bytes.
 * 0 with *length; -ENOSPC; -EDOM: a number that is not finite. */
int fields_write(const struct unetserve_interface *interface, const struct unetserve_value *values,
                 char *text, size_t size, size_t *length);

#endif
