/*
 * From the name of a precision to the types that this processor and this oneDNN compute in.
 */
#ifndef ONEDNN_PRECISION_H
#define ONEDNN_PRECISION_H

#include "onednn_kernels.h"

struct onednn_precision {
    enum onednn_type type; /* of floats: with int8, of what it leaves in float */
    bool integer;          /* int8 */
    bool winograd;         /* where it pays */
};

/* Is that precision to be had here? 0, or -EINVAL and a sentence. */
int onednn_precision_check(const char *precision, char *error, size_t error_size);

/* 0, or -EINVAL and a sentence: of that, or that int8 has no ranges for the network. */
int onednn_precision_choose(const struct network *network, const struct backend_options *options,
                            struct onednn_precision *out, char *error, size_t error_size);

#endif
