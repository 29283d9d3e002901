/*
 * Answers: a label mask (uint8, H x W or N x H x W) as JSON, npy or indexed PNG, in one allocated
 * buffer.
 */
#ifndef MASK_WRITER_H
#define MASK_WRITER_H

#include "unetserve/model.h"

enum mask_format { MASK_JSON, MASK_NPY, MASK_PNG };

/* Encode. field: the JSON key ("output"). *out is malloc'd, the caller frees it. 0, -ENOMEM,
 * -EINVAL (a shape that the format cannot hold: none holds an empty one, PNG takes one H x W mask;
 * labels beyond class_count are drawn black). PNG uses the classes' colours as palette and carries
 * their names and codes in a text chunk ("Classes": "0 10 Tree cover\n..."). JSON is compact, as
 * LitServe's:
 * {"output":[[0,1],[2,3]]}. */
int mask_encode(enum mask_format format, const struct unetserve_interface *interface,
                const struct unetserve_shape *shape, const uint8_t *labels, void **out,
                size_t *out_size);

/* The npy header (version 1.0, padded to 64 bytes) for a little-endian C-order array. Returns its
 * length, or -EINVAL. */
int npy_header_write(const struct unetserve_shape *shape, char *header, size_t size);

/* Read a whole npy header from the start of data. 0 with shape, *big_endian and *data_offset;
 * -EAGAIN: more bytes are needed than size; -EBADMSG with a sentence in error; -ENOTSUP, likewise,
 * for a right header of an array that no model takes: other types than tensor.h's, Fortran order,
 * more than UNETSERVE_MAX_DIMS dimensions. Headers are at most 64 KiB. */
int npy_header_read(const void *data, size_t size, struct unetserve_shape *shape, int *big_endian,
                    size_t *data_offset, char *error, size_t error_size);

#endif
