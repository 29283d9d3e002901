#include "source.h"

#include "family.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

typedef int make_network(const struct weights *weights, const struct family_wish *wish,
                         struct network *out, char *report, size_t report_size);

/* What is wrong with a network begins with the name of its file. */
static int make(const struct source *source, make_network *how, struct network *out, char *error,
                size_t error_size)
{
    const struct family_wish wish = {.family = source->dir.family, .concat = source->dir.concat};
    size_t used = (size_t)snprintf(error, error_size, "%s: ", source->dir.weights_path);
    if (used > error_size)
        used = error_size;
    return how(&source->weights, &wish, out, error + used, error_size - used);
}

static int open_source(const char *path, make_network *how, struct source *out, char *error,
                       size_t error_size)
{
    *out = (struct source){0};
    int failure = model_dir_load(path, &out->dir, error, error_size);
    if (failure)
        return failure;
    failure = weights_open(out->dir.weights_path, &out->weights, error, error_size);
    if (failure)
        return failure;
    failure = make(out, how, &out->plan, error, error_size);
    if (failure)
        weights_close(&out->weights);
    return failure;
}

int source_open(const char *path, bool with_id, struct source *out, char *error, size_t error_size)
{
    int failure = open_source(path, family_plan, out, error, error_size);
    if (!failure && with_id)
        out->id = weights_file_hash(&out->weights);
    return failure;
}

int source_open_checked(const char *path, struct source *out, char *error, size_t error_size)
{
    return open_source(path, family_check, out, error, error_size);
}

/* The same bytes as when it was opened? Somebody may be writing over them. */
static bool is_unchanged(const struct source *source)
{
    static const struct packed_hash none = {0, 0};
    struct packed_hash now = memcmp(&source->id, &none, sizeof none) == 0
                                 ? none
                                 : weights_file_hash(&source->weights);
    return memcmp(&source->id, &now, sizeof now) == 0;
}

int source_load(struct source *source, const struct network **out, char *error, size_t error_size)
{
    if (!source->full.layers) {
        int failure = make(source, family_build, &source->full, error, error_size);
        if (failure)
            return failure;
    }
    if (!is_unchanged(source)) {
        snprintf(error, error_size, "%s: changed while it was read", source->dir.weights_path);
        return -EBADMSG;
    }
    *out = &source->full;
    return 0;
}

int source_load_ranges(struct source *source, struct quantise_ranges *out, char *error,
                       size_t error_size)
{
    struct packed_hash hash = weights_file_hash(&source->weights);
    return quantise_file_load(source->dir.weights_path, &source->plan, &hash, out, error,
                              error_size);
}

void source_close(struct source *source)
{
    network_free(&source->full);
    network_free(&source->plan);
    weights_close(&source->weights);
}
