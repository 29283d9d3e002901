/*
 * A state dict on disk, read safely: safetensors (mapped, every offset checked) or a PyTorch .pth
 * (a zip with a pickle of protocol 2 that may name tensors, ordered dicts and plain values, and
 * nothing else; no code is ever run).
 *
 * Entries keep the file's order. Tensor bytes are views: into the mapping, or into buffers that the
 * set owns (a compressed or non-contiguous member). All views end with weights_close.
 */
#ifndef WEIGHTS_H
#define WEIGHTS_H

#include "workers/backends/packed_file.h"

#include <stddef.h>
#include <stdint.h>

#define WEIGHTS_MAX_TENSORS 65536
#define WEIGHTS_MAX_RANK    8

/* Element types that occur in state dicts. num_batches_tracked is int64 and is carried though
 * nothing uses it. */
enum weights_dtype {
    WEIGHTS_F64,
    WEIGHTS_F32,
    WEIGHTS_F16,
    WEIGHTS_BF16,
    WEIGHTS_I64,
    WEIGHTS_I32,
    WEIGHTS_I16,
    WEIGHTS_I8,
    WEIGHTS_U8,
    WEIGHTS_BOOL,
};

struct weights_tensor {
    const char *name; /* as in the file, after wrappers ("state_dict", "model_state_dict", "model")
                         were opened */
    enum weights_dtype dtype;
    uint32_t rank;
    uint64_t dims[WEIGHTS_MAX_RANK];
    uint64_t elements;
    const void *data; /* elements in C order, little-endian; may be unaligned */
    size_t bytes;
};

struct weights {
    struct weights_tensor *tensors;
    size_t count;
    void *owner; /* mapping, buffers, names */
};

/* Open path by its content (not its suffix). 0, or -ENOENT/-EACCES/-EISDIR from the system,
 * -EBADMSG for bad data, -ENOMEM; error gets one sentence. *out is written on success only. */
int weights_open(const char *path, struct weights *out, char *error, size_t error_size);
void weights_close(struct weights *weights);

/* The hash of the whole file that weights_open opened, as it is now: 12 ms for 124 MB. */
struct packed_hash weights_file_hash(const struct weights *weights);

/* The same from memory, for tests and fuzzers; data must stay until weights_close. */
int weights_parse_safetensors(const void *data, size_t size, struct weights *out, char *error,
                              size_t error_size);
int weights_parse_pth(const void *data, size_t size, struct weights *out, char *error,
                      size_t error_size);

/* The tensor of that exact name, or NULL. */
const struct weights_tensor *weights_find(const struct weights *weights, const char *name);

/* Convert all elements to float. out holds tensor->elements floats. 0, or -EINVAL for integer
 * types. */
int weights_to_f32(const struct weights_tensor *tensor, float *out);

#endif
