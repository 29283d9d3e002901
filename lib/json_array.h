/*
 * The array of numbers in a JSON document such as {"image": [[[1, 2], ...]]}, written to its
 * destination as float32 while it is read, with its dimensions counted and held against what the
 * model takes. See body_reader.h for the rules.
 */
#ifndef JSON_ARRAY_H
#define JSON_ARRAY_H

#include "unetserve/body_reader.h"

/* Start. interface is kept by reference. text, if it is not NULL, takes the string that may stand
 * in the array's place, or under the key "image_data". */
void json_array_init(struct json_array *array, const struct unetserve_interface *interface,
                     json_array_text *text, void *opaque);

/* The next piece. 0, or -1 with *problem. */
int json_array_feed(struct json_array *array, struct body_sink *sink, const char *bytes,
                    size_t size, struct problem *problem);

/* The document is whole. 0 with *shape (float32, rank 3 or 4; not touched where is_text), or -1
 * with *problem. */
int json_array_finish(struct json_array *array, struct unetserve_shape *shape,
                      struct problem *problem);

#endif
