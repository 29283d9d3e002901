/*
 * Making a network's layers from modules: shapes are checked, batch norm is folded, used modules
 * are marked. Every function returns the number of the value it makes, also after a report, so that
 * one pass finds everything that is wrong. A channel count of 0 means that it could not be told; no
 * check is made against it.
 */
#ifndef FAMILY_LAYERS_H
#define FAMILY_LAYERS_H

#include "family_modules.h"
#include "family_report.h"
#include "network.h"

/* What becomes of the weights: the layers get them; or they are read and folded, to see that they
 * are numbers, and let go again; or they are not looked at. */
enum layers_values { LAYERS_KEEP, LAYERS_CHECK, LAYERS_SKIP };

struct layer_builder {
    const struct module_set *set;
    struct family_report *report;
    struct network network;
    uint32_t channels[NETWORK_MAX_LAYERS + 1]; /* by value number */
    size_t capacity;
    enum layers_values values;
    int rc; /* -ENOMEM once memory ran out */
};

/* A convolution with its norm (NULL: none) and whether a bias must be there. */
struct layer_conv {
    struct module *conv;
    struct module *norm;
    uint32_t kernel;
    uint32_t stride;
    uint32_t padding;
    bool relu;
    bool needs_bias;
};

uint32_t layers_conv(struct layer_builder *builder, const struct layer_conv *what, uint32_t input);
uint32_t layers_conv_up(struct layer_builder *builder, struct module *conv, bool needs_bias,
                        uint32_t input);
uint32_t layers_max_pool(struct layer_builder *builder, uint32_t kernel, uint32_t stride,
                         uint32_t padding, uint32_t input);
uint32_t layers_upsample(struct layer_builder *builder, enum network_upsample kind, uint32_t input);
uint32_t layers_concat(struct layer_builder *builder, uint32_t first, uint32_t second);
uint32_t layers_fit(struct layer_builder *builder, uint32_t input, uint32_t reference);
uint32_t layers_add(struct layer_builder *builder, uint32_t first, uint32_t second, bool relu);

/* A convolution that is not there: report path.weight with these dimensions (0: unknown) and go on.
 */
uint32_t layers_missing_conv(struct layer_builder *builder, const char *path, const uint64_t *dims,
                             uint32_t input);

/* Report path.leaf as missing. */
void layers_missing(struct layer_builder *builder, const char *path, enum module_leaf leaf,
                    uint32_t rank, const uint64_t *dims);

#endif
