/*
 * From the name of a precision to the types that this processor and this oneDNN compute in.
 */
#ifndef ONEDNN_PRECISION_H
#define ONEDNN_PRECISION_H

#include "onednn_kernels.h"

struct onednn_precision {
    enum onednn_type type; /* of floats: with int8, of what it leaves in float */
    bool integer;          /* int8 */
};

/* 0, or -EINVAL and a sentence. */
int onednn_precision_choose(const struct network *network, const struct backend_options *options,
                            struct onednn_precision *out, char *error, size_t error_size);

#endif
