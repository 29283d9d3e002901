/* What the outside is told about a UNet: sizes, types and classes. */
#include "class_colours.h"
#include "unet.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DEFAULT_TILE      256
#define DEFAULT_MAX_BATCH 8
#define LARGEST_MAX_BATCH 1024

static void fill_class(const struct model_dir *dir, uint32_t label, struct unetserve_class *out)
{
    if (label < dir->class_count) {
        *out = dir->classes[label];
    } else {
        out->code = (uint16_t)label;
        class_colour_default(label, out->rgb);
    }
    if (out->name[0] == '\0')
        snprintf(out->name, sizeof out->name, "class_%u", label);
}

/* One output channel is a yes or no: two labels. */
static uint32_t count_labels(const struct network *network)
{
    return network->classes == 1 ? 2 : network->classes;
}

static int check_agreement(const struct model_dir *dir, const struct network *network, char *error,
                           size_t error_size)
{
    uint32_t labels = count_labels(network);
    if (labels == 0 || labels > UNETSERVE_MAX_CLASSES) {
        snprintf(error, error_size, "%s: %u classes, at most %d fit a mask", dir->weights_path,
                 labels, UNETSERVE_MAX_CLASSES);
        return -EBADMSG;
    }
    if (dir->class_count && dir->class_count != labels) {
        snprintf(error, error_size, "%s: model.json names %u classes, the weights have %u",
                 dir->weights_path, dir->class_count, labels);
        return -EBADMSG;
    }
    if (dir->in_channels && dir->in_channels != network->in_channels) {
        snprintf(error, error_size, "%s: model.json says %u input channels, the weights have %u",
                 dir->weights_path, dir->in_channels, network->in_channels);
        return -EBADMSG;
    }
    return 0;
}

/* The tile that setup or else model.json asks for, if the network runs on it. */
static int choose_tile(const struct model_dir *dir, const struct network *network,
                       const struct unetserve_setup *setup, uint32_t *out, char *error,
                       size_t error_size)
{
    uint32_t tile = setup->tile ? setup->tile : dir->tile ? dir->tile : DEFAULT_TILE;
    uint32_t multiple = network->size_multiple ? network->size_multiple : 1;
    if (tile % multiple == 0 && tile >= network->size_min) {
        *out = tile;
        return 0;
    }
    snprintf(error, error_size,
             "%s: a tile of %u (%s), this network needs a multiple of %u from %u on",
             dir->weights_path, tile, setup->tile ? "configuration" : "model.json", multiple,
             network->size_min);
    return setup->tile ? -EINVAL : -EBADMSG;
}

int unet_interface(const struct model_dir *dir, const struct network *network,
                   const struct unetserve_setup *setup, struct unetserve_interface *out,
                   char *error, size_t error_size)
{
    uint32_t tile = 0;
    int failure = check_agreement(dir, network, error, error_size);
    if (!failure)
        failure = choose_tile(dir, network, setup, &tile, error, error_size);
    if (failure)
        return failure;
    uint32_t max_batch = setup->max_batch ? setup->max_batch : DEFAULT_MAX_BATCH;
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", dir->name[0] ? dir->name : "unet");
    snprintf(out->version, sizeof out->version, "%s", dir->version);
    out->input_kind = UNETSERVE_TENSOR;
    out->output_kind = UNETSERVE_TENSOR;
    snprintf(out->input_field, sizeof out->input_field, "image");
    snprintf(out->output_field, sizeof out->output_field, "output");
    out->input_dtypes = 1u << UNETSERVE_U8 | 1u << UNETSERVE_I8 | 1u << UNETSERVE_U16 |
                        1u << UNETSERVE_I16 | 1u << UNETSERVE_F16 | 1u << UNETSERVE_F32;
    out->channels = network->in_channels;
    out->size_multiple = network->size_multiple ? network->size_multiple : 1;
    out->size_min = network->size_min ? network->size_min : 1;
    out->tile = tile;
    out->max_batch = max_batch > LARGEST_MAX_BATCH ? LARGEST_MAX_BATCH : max_batch;
    out->output_dtype = UNETSERVE_U8;
    out->class_count = count_labels(network);
    for (uint32_t i = 0; i < out->class_count; i++)
        fill_class(dir, i, &out->classes[i]);
    return 0;
}
