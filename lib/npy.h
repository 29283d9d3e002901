/* numpy's file format, the part that mask_writer.h leaves out. */
#ifndef NPY_H
#define NPY_H

#include "unetserve/mask_writer.h"

enum { NPY_HEADER_MAX = 65536, NPY_PREFIX_MIN = 10, NPY_PREFIX_MAX = 12 };

/* How long the header is, as far as size bytes tell: the whole of it, prefix included, or (while
 * less than the prefix is there) how many bytes are needed to know. 0 with *needed, or -EBADMSG
 * with a sentence in error. */
int npy_header_length(const void *data, size_t size, size_t *needed, char *error,
                      size_t error_size);

#endif
