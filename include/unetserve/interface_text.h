/*
 * A model's interface as one JSON line: what `unetserve-worker --describe` prints and the
 * supervisor reads to dimension the queue, and what `unetctl inspect` and status pages show.
 */
#ifndef INTERFACE_TEXT_H
#define INTERFACE_TEXT_H

#include "unetserve/model.h"

/* Returns a malloc'd line without a newline, or NULL (out of memory). */
char *interface_to_json(const struct unetserve_interface *interface);

/* 0 with *out, or -EBADMSG. Every field is bounded. */
int interface_from_json(const char *text, size_t size, struct unetserve_interface *out);

/* What an enum unetserve_field_type is called there: "float", ...; "?": there is no such type. */
const char *interface_field_type(uint32_t type);

#endif
