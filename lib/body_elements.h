/* The elements of a binary body: brought to native byte order, float64 to float32, and checked to
 * be finite, as they arrive. */
#ifndef BODY_ELEMENTS_H
#define BODY_ELEMENTS_H

#include "unetserve/body_reader.h"

/* Start, with a shape that the model takes. Asks the sink for all the room at once. 0, or -1 with
 * *problem. */
int body_elements_init(struct body_elements *elements, const struct unetserve_shape *shape,
                       bool big_endian, struct body_sink *sink, struct problem *problem);

/* The next piece. 0, or -1 with *problem (more data than the shape says, a value that is not
 * finite). */
int body_elements_feed(struct body_elements *elements, struct body_sink *sink, const char *bytes,
                       size_t size, struct problem *problem);

/* The shape as it is stored. */
struct unetserve_shape body_elements_shape(const struct body_elements *elements);

/* The body is whole. 0 with *shape and *stored_bytes, or -1 with *problem (truncated). */
int body_elements_finish(const struct body_elements *elements, struct unetserve_shape *shape,
                         size_t *stored_bytes, struct problem *problem);

#endif
