/*
 * Documents of jansson's that are whole or not there: when a part cannot be made for want of
 * memory, jansson's own functions leave it out and say so in a return value; here the container
 * goes, becomes NULL, and stays it. A NULL in an "o" of json_pack makes that fail in turn, so that
 * only the end need be looked at.
 */
#ifndef JSON_WHOLE_H
#define JSON_WHOLE_H

#include <jansson.h>

/* Both take item over. *container may be NULL. */
void json_whole_append(json_t **list, json_t *item);
void json_whole_set(json_t **object, const char *key, json_t *item);

/* A text from a plugin, of at most size bytes; JSON is UTF-8, so in one that is not, what is not
 * ASCII becomes '?'. */
json_t *json_whole_string(const char *text, size_t size);

/* json_loadb, but without memory NULL with errno ENOMEM (otherwise EBADMSG, with *error), always:
 * jansson 2.14 calls a token invalid that it has no memory for, has no sentence, or leaves a
 * character out and goes on. */
json_t *json_whole_load(const char *text, size_t size, size_t flags, json_error_t *error);

/* Takes root over. malloc'd compact text, or NULL. */
char *json_whole_text(json_t *root);

#endif
