/*
 * An item of a streamed answer as it goes over the wire: a line of JSON (as LitServe sends it), or
 * a server-sent event. Pure text.
 */
#ifndef GATEWAY_STREAM_TEXT_H
#define GATEWAY_STREAM_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct stream_text {
    char *bytes; /* malloc'd; ends with stream_text_free */
    size_t room, size;
    size_t sent; /* of size */
};

void stream_text_free(struct stream_text *text);

/* Frame one item. JSON has line breaks outside of strings only, and there they mean nothing: a line
 * has none of them. 0 or -ENOMEM. */
int stream_text_set(struct stream_text *text, bool events, const char *item, size_t size);

/* As much of it as fits; 0 when all is sent. */
size_t stream_text_take(struct stream_text *text, char *buffer, size_t size);

#endif
