/*
 * How the two readers put a weights set together. A builder owns what it was given from the moment
 * of the call: after weights_builder_finish the set owns it, after weights_builder_abort nothing of
 * it is left.
 */
#ifndef WEIGHTS_BUILDER_H
#define WEIGHTS_BUILDER_H

#include "weights.h"

#include <stdarg.h>
#include <stdbool.h>

struct weights_builder {
    struct weights_tensor *tensors;
    size_t count;
    size_t capacity;
    void **buffers; /* freed with the set: names and tensor bytes */
    size_t buffer_count;
    size_t buffer_capacity;
};

/* Write one sentence into error and return -EBADMSG. */
int weights_refuse(char *error, size_t error_size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Bytes of one element, 1..8. */
size_t weights_dtype_size(enum weights_dtype dtype);

/* Elements of a shape; false where the product does not fit 63 bits. */
bool weights_count_elements(uint32_t rank, const uint64_t *dims, uint64_t *out);

/* Append a tensor; its name is copied. 0, -ENOMEM, or -E2BIG beyond WEIGHTS_MAX_TENSORS. */
int weights_builder_add(struct weights_builder *builder, const char *name,
                        const struct weights_tensor *tensor);

/* A buffer that lives as long as the set, or NULL. */
void *weights_builder_allocate(struct weights_builder *builder, size_t bytes);

/* Make the set. 0, -ENOMEM, or -EBADMSG when a name occurs twice; the builder is empty afterwards
 * in every case. */
int weights_builder_finish(struct weights_builder *builder, struct weights *out, char *error,
                           size_t error_size);

void weights_builder_abort(struct weights_builder *builder);

#endif
