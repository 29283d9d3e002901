#include "onednn_packed.h"

#include "workers/backends/packed_share.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the key ---- */

/* Numbers that are hashed together; all of it is set, so that padding plays no part. */
struct layer_numbers {
    uint32_t op;
    uint32_t inputs[2];
    uint32_t channels;
    uint32_t kernel;
    uint32_t stride;
    uint32_t padding;
    uint32_t upsample;
    uint32_t relu;
};

struct key_numbers {
    struct packed_hash weights;
    struct packed_hash layers;
    struct packed_hash ranges; /* of int8 */
    char program[16];
    char library[48];
    uint32_t isa;
    uint32_t winograd; /* output channels that its kernel takes together; 0: not wanted */
    uint32_t type;
    uint32_t threads;
    uint32_t tile;
    uint32_t in_channels;
    uint32_t format;
};

static struct packed_hash hash_layers(const struct network *network)
{
    static const struct packed_hash none = {0, 0};
    size_t count = network->layer_count;
    struct layer_numbers *numbers = (struct layer_numbers *)calloc(count, sizeof *numbers);
    if (numbers == NULL) {
        return none; /* a key of its own, that only others short of memory meet */
    }
    for (size_t i = 0; i < count; i++) {
        const struct network_layer *layer = &network->layers[i];
        numbers[i] = (struct layer_numbers){(uint32_t)layer->op,
                                            {layer->inputs[0], layer->inputs[1]},
                                            layer->channels,
                                            layer->kernel,
                                            layer->stride,
                                            layer->padding,
                                            (uint32_t)layer->upsample,
                                            layer->relu ? 1 : 0};
    }
    struct packed_hash hash = packed_hash_of(numbers, count * sizeof *numbers);
    free(numbers);
    return hash;
}

struct packed_hash onednn_packed_key(const struct network *network,
                                     const struct backend_options *options, enum onednn_type type,
                                     const struct onednn_winograd_kernel *winograd, uint32_t tile)
{
    const dnnl_version_t *version = dnnl_version();
    struct key_numbers key;
    memset(&key, 0, sizeof key);
    key.weights = options->weights_id;
    key.layers = hash_layers(network);
    key.ranges = options->ranges != NULL ? options->ranges->id : (struct packed_hash){0, 0};
    key.isa = (uint32_t)dnnl_get_effective_cpu_isa();
    key.winograd = winograd != NULL ? (uint32_t)winograd->panel : 0;
    key.type = (uint32_t)type;
    key.threads = options->threads;
    key.tile = tile;
    key.in_channels = network->in_channels;
    key.format = PACKED_VERSION;
    snprintf(key.program, sizeof key.program, "%s", UNETSERVE_VERSION);
    snprintf(key.library, sizeof key.library, "%d.%d.%d %.32s", version->major, version->minor,
             version->patch, version->hash);
    return packed_hash_of(&key, sizeof key);
}

/* ---- writing ---- */

int onednn_packed_write(const struct network *network, const struct onednn_weights *weights,
                        struct packed_draft *draft, char *note, size_t note_size)
{
    static const struct packed_hash plain = {0, 0};
    struct packed_collection all;
    packed_collection_begin(&all, 3 * network->layer_count);
    for (size_t i = 0; i < network->layer_count; i++) {
        const struct onednn_weights *own = &weights[i];
        const struct onednn_form *first = &own->forms[0];
        if (first->data == NULL) {
            continue;
        }
        uint32_t layer = (uint32_t)i;
        packed_collect(&all, layer, PACKED_WEIGHTS, onednn_weights_hash(own), first->data,
                       onednn_weights_bytes(own));
        size_t bytes = (size_t)own->dims[0] * sizeof(float);
        packed_collect(&all, layer, PACKED_BIAS, plain, own->bias, bytes);
        if (own->scales != NULL) {
            packed_collect(&all, layer, PACKED_SCALES, plain, own->scales, bytes);
        }
    }
    return packed_collection_commit(&all, draft, note, note_size);
}
