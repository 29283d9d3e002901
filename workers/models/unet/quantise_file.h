/*
 * quantization.json beside the weights: how large the outputs of a network's layers get, as
 * `unetctl calibrate` found them, for precision int8. Bytes from outside: bounded, checked, and
 * worth nothing for other weights than those that it names by their hash.
 *
 *     {"format": 1, "weights": "<32 hex digits>", "method": "percentile 99.99",
 *      "layers": [{"layer": 0, "name": "inc.double_conv.0", "low": 0, "high": 1.73}, ...]}
 *
 * An entry may have "float": true, for a convolution that is to run in float, and "channels":
 * [[low, high, mean], ...], which say the same for each channel, and what it is on average.
 */
#ifndef QUANTISE_FILE_H
#define QUANTISE_FILE_H

#include "network.h"
#include "workers/backends/quantise.h"

#define QUANTISE_FILE_NAME "quantization.json"

struct quantise_entry {
    uint32_t layer;
    char name[64]; /* as in struct network_layer */
    float low;
    float high;
    bool keep;
    uint32_t channel_count; /* 0: nothing is known of them */
    struct quantise_channel *channels;
};

struct quantise_file {
    struct packed_hash weights; /* of the weights file */
    char method[64];
    size_t count;
    struct quantise_entry *entries;
};

/* Read text. 0 (free it with quantise_file_free), -EBADMSG, -ENOMEM; error gets a sentence. */
int quantise_file_parse(const char *text, size_t size, struct quantise_file *out, char *error,
                        size_t error_size);
void quantise_file_free(struct quantise_file *file);

/* As text, to be freed. NULL: no memory, or a name that is not UTF-8. */
char *quantise_file_print(const struct quantise_file *file);

/* The ranges for that network, whose weights file has that hash. 0 (free them with
 * quantise_ranges_free), -EBADMSG where they are those of others, -ENOMEM. */
int quantise_file_bind(const struct quantise_file *file, const struct network *network,
                       const struct packed_hash *weights, struct quantise_ranges *out, char *error,
                       size_t error_size);

/* Read the file beside weights_path and bind it. -EINVAL: there is none, and the sentence says how
 * to get one. Others as above, and those of open. */
int quantise_file_load(const char *weights_path, const struct network *network,
                       const struct packed_hash *weights, struct quantise_ranges *out, char *error,
                       size_t error_size);

#endif
