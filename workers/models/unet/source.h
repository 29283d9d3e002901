/*
 * Where a UNet comes from: its description, its weights file and the network that they make. The
 * network's plan is there at once; its weights are read, converted and folded only for who asks,
 * since a worker that finds them packed has no use for them.
 */
#ifndef SOURCE_H
#define SOURCE_H

#include "model_dir.h"
#include "network.h"
#include "quantise_file.h"
#include "weights.h"

#include <stdbool.h>

struct source {
    struct model_dir dir;
    struct weights weights;
    struct packed_hash id; /* of the weights file, where it was asked for */
    struct network plan;   /* no weights, no bias */
    struct network full;   /* after source_load */
    const char *cache_dir; /* where what is made of it may be kept; NULL: nowhere */
};

/* Open what the configuration names. with_id: hash the weights file, too. 0 (close it with
 * source_close); -ENOENT, -EACCES, -EBADMSG, -ENOMEM with a sentence. */
int source_open(const char *path, bool with_id, struct source *out, char *error, size_t error_size);

/* The same, and -EBADMSG where source_load would find a weight that is no number. */
int source_open_checked(const char *path, struct source *out, char *error, size_t error_size);

/* The network with its weights, which stay the source's. -EBADMSG also when the file changed since
 * it was opened with an id. Errors as above. */
int source_load(struct source *source, const struct network **out, char *error, size_t error_size);

/* The ranges of activations beside the weights, for precision int8. Errors as for
 * quantise_file_load. */
int source_load_ranges(struct source *source, struct quantise_ranges *out, char *error,
                       size_t error_size);

void source_close(struct source *source);

#endif
