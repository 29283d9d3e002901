#include "family_encoders.h"

#include <stdio.h>
#include <string.h>

#define LEVELS_MAX 10
#define BLOCKS_MAX 64 /* residual blocks of one layer */
#define SMP_DEPTH  5

/* ---- parts that both have ---- */

/* A convolution by the names of its modules. */
struct named_conv {
    const char *conv;
    const char *norm; /* NULL: without */
    uint32_t kernel;
    uint32_t stride;
    bool relu;
};

/* Without a norm there is a bias; a convolution that is not there is reported as missing. */
static uint32_t add_named(struct layer_builder *builder, const struct named_conv *what,
                          uint32_t input)
{
    struct module *conv = module_find(builder->set, what->conv);
    struct module *norm = what->norm ? module_find(builder->set, what->norm) : NULL;
    if (norm && norm->kind != MODULE_NORM)
        norm = NULL;
    if (!conv || conv->kind != MODULE_CONV) {
        uint64_t dims[4] = {0, builder->channels[input], what->kernel, what->kernel};
        uint32_t value = layers_missing_conv(builder, what->conv, dims, input);
        if (norm)
            norm->used = true;
        return value;
    }
    for (int leaf = LEAF_WEIGHT; what->norm && !norm && leaf <= LEAF_VAR; leaf++)
        layers_missing(builder, what->norm, (enum module_leaf)leaf, 1,
                       conv->leaves[LEAF_WEIGHT]->dims);
    struct layer_conv layer = {.conv = conv,
                               .norm = norm,
                               .kernel = what->kernel,
                               .stride = what->stride,
                               .padding = what->kernel / 2,
                               .relu = what->relu,
                               .needs_bias = !what->norm};
    return layers_conv(builder, &layer, input);
}

static uint32_t join(struct layer_builder *builder, bool skip_first, uint32_t skip, uint32_t up)
{
    return skip_first ? layers_concat(builder, skip, up) : layers_concat(builder, up, skip);
}

static void describe(struct layer_builder *builder, const char *up, uint32_t depth, uint32_t first,
                     uint32_t last)
{
    struct network *network = &builder->network;
    network->in_channels = builder->channels[0];
    network->base_width = builder->channels[first];
    network->classes = builder->channels[last];
    network->depth = depth;
    network->size_multiple = 1u << depth;
    network->size_min = 1u << depth;
    snprintf(network->up, sizeof network->up, "%s", up);
    if (network->classes > 256)
        family_report_object(builder->report, "%u classes; labels have room for 256",
                             network->classes);
}

/* The channels that the convolution of that name takes; 0 when it is not there. */
static uint32_t channels_into(const struct layer_builder *builder, const char *path)
{
    const struct module *conv = module_find(builder->set, path);
    uint64_t channels = conv && conv->kind == MODULE_CONV ? conv->leaves[LEAF_WEIGHT]->dims[1] : 0;
    return channels <= 65535 ? (uint32_t)channels : 0;
}

/* ---- fepegar ---- */

/* Its blocks list their layers a second time, as block.0 and block.1. Where both are there, they
 * are the same tensors; a writer that stores a tensor once may have kept either name. */
static void fepegar_part(const struct layer_builder *builder, const char *unit, const char *word,
                         int place, char *out, size_t size)
{
    char twin[FAMILY_PATH_MAX];
    snprintf(out, size, "%s.%s", unit, word);
    snprintf(twin, sizeof twin, "%s.block.%d", unit, place);
    struct module *second = module_find(builder->set, twin);
    if (!second)
        return;
    second->used = true;
    if (!module_find(builder->set, out))
        snprintf(out, size, "%s", twin);
}

static uint32_t fepegar_conv(struct layer_builder *builder, const char *unit, bool normed,
                             uint32_t kernel, uint32_t input)
{
    char conv[FAMILY_PATH_MAX];
    char norm[FAMILY_PATH_MAX];
    fepegar_part(builder, unit, "conv_layer", 0, conv, sizeof conv);
    if (normed)
        fepegar_part(builder, unit, "norm_layer", 1, norm, sizeof norm);
    struct named_conv what = {.conv = conv,
                              .norm = normed ? norm : NULL,
                              .kernel = kernel,
                              .stride = 1,
                              .relu = kernel > 1};
    return add_named(builder, &what, input);
}

/* conv1, conv2. Only the network's first convolution is without a norm. */
static uint32_t fepegar_block(struct layer_builder *builder, const char *prefix, bool first,
                              uint32_t input)
{
    char unit[128];
    for (int i = 1; i <= 2; i++) {
        snprintf(unit, sizeof unit, "%s.conv%d", prefix, i);
        input = fepegar_conv(builder, unit, !(first && i == 1), 3, input);
    }
    return input;
}

static uint32_t fepegar_up(struct layer_builder *builder, const char *path, uint32_t input)
{
    struct module *conv = module_find(builder->set, path);
    if (conv && conv->kind == MODULE_CONV)
        return layers_conv_up(builder, conv, true, input);
    uint64_t dims[4] = {builder->channels[input], builder->channels[input], 2, 2};
    layers_missing(builder, path, LEAF_WEIGHT, 4, dims);
    layers_missing(builder, path, LEAF_BIAS, 1, dims);
    return layers_upsample(builder, NETWORK_NEAREST, input);
}

static uint32_t count_levels(const struct module_set *set, const char *stem)
{
    uint32_t levels = 0;
    char prefix[64];
    for (uint32_t i = 0; i < LEVELS_MAX; i++) {
        snprintf(prefix, sizeof prefix, "%s.%u", stem, i);
        if (module_any_within(set, prefix, MODULE_CONV))
            levels = i + 1;
    }
    return levels;
}

bool assemble_fepegar(struct layer_builder *builder, int concat)
{
    uint32_t skips[LEVELS_MAX] = {0};
    char path[96];
    uint32_t depth = count_levels(builder->set, "encoder.encoding_blocks");
    uint32_t decoders = count_levels(builder->set, "decoder.decoding_blocks");
    depth = decoders > depth ? decoders : depth;
    if (depth == 0)
        return false;
    fepegar_part(builder, "encoder.encoding_blocks.0.conv1", "conv_layer", 0, path, sizeof path);
    builder->channels[0] = channels_into(builder, path);
    uint32_t value = 0;
    for (uint32_t i = 0; i < depth; i++) {
        snprintf(path, sizeof path, "encoder.encoding_blocks.%u", i);
        skips[i] = fepegar_block(builder, path, i == 0, value);
        value = layers_max_pool(builder, 2, 2, 0, skips[i]);
    }
    value = fepegar_block(builder, "bottom_block", false, value);
    for (uint32_t i = 0; i < depth; i++) {
        snprintf(path, sizeof path, "decoder.decoding_blocks.%u.upsample", i);
        value = fepegar_up(builder, path, value);
        value = join(builder, concat != 0, skips[depth - 1 - i], value);
        snprintf(path, sizeof path, "decoder.decoding_blocks.%u", i);
        value = fepegar_block(builder, path, false, value);
    }
    value = fepegar_conv(builder, "classifier", false, 1, value);
    describe(builder, "transposed", depth, skips[0], value);
    return true;
}

/* ---- segmentation_models_pytorch ---- */

/* prefix + conv and norm, 3x3 unless said otherwise */
static uint32_t smp_conv(struct layer_builder *builder, const char *prefix, const char *conv,
                         const char *norm, const struct named_conv *how, uint32_t input)
{
    char conv_path[FAMILY_PATH_MAX];
    char norm_path[FAMILY_PATH_MAX];
    struct named_conv what = *how;
    snprintf(conv_path, sizeof conv_path, "%s.%s", prefix, conv);
    snprintf(norm_path, sizeof norm_path, "%s.%s", prefix, norm);
    what.conv = conv_path;
    what.norm = norm_path;
    return add_named(builder, &what, input);
}

/* relu(bn2(conv2(relu(bn1(conv1(x))))) + x), where x passes a 1x1 convolution if the shape changes.
 */
static uint32_t smp_residual(struct layer_builder *builder, const char *prefix, uint32_t stride,
                             uint32_t input)
{
    char down[96];
    const struct named_conv first = {.kernel = 3, .stride = stride, .relu = true};
    const struct named_conv second = {.kernel = 3, .stride = 1};
    const struct named_conv shortcut = {.kernel = 1, .stride = stride};
    uint32_t value = smp_conv(builder, prefix, "conv1", "bn1", &first, input);
    value = smp_conv(builder, prefix, "conv2", "bn2", &second, value);
    snprintf(down, sizeof down, "%s.downsample", prefix);
    bool changes = stride != 1 || (builder->channels[input] && builder->channels[value] &&
                                   builder->channels[input] != builder->channels[value]);
    if (changes || module_any_within(builder->set, down, MODULE_CONV))
        input = smp_conv(builder, prefix, "downsample.0", "downsample.1", &shortcut, input);
    return layers_add(builder, value, input, true);
}

/* layer1..4, each a run of residual blocks; all but the first halve the size. */
static uint32_t smp_layer(struct layer_builder *builder, int number, uint32_t input)
{
    char prefix[64];
    uint32_t blocks = 1;
    for (uint32_t i = 1; i < BLOCKS_MAX; i++) {
        snprintf(prefix, sizeof prefix, "encoder.layer%d.%u", number, i);
        if (module_any_within(builder->set, prefix, MODULE_CONV))
            blocks = i + 1;
    }
    for (uint32_t i = 0; i < blocks; i++) {
        snprintf(prefix, sizeof prefix, "encoder.layer%d.%u", number, i);
        input = smp_residual(builder, prefix, i == 0 && number > 1 ? 2 : 1, input);
    }
    return input;
}

bool assemble_smp(struct layer_builder *builder, int concat)
{
    const struct named_conv stem = {.kernel = 7, .stride = 2, .relu = true};
    const struct named_conv plain = {.kernel = 3, .stride = 1, .relu = true};
    const struct named_conv head = {.conv = "segmentation_head.0", .kernel = 3, .stride = 1};
    uint32_t features[SMP_DEPTH];
    builder->channels[0] = channels_into(builder, "encoder.conv1");
    features[0] = smp_conv(builder, "encoder", "conv1", "bn1", &stem, 0);
    uint32_t value = layers_max_pool(builder, 3, 2, 1, features[0]);
    for (int i = 1; i < SMP_DEPTH; i++)
        value = features[i] = smp_layer(builder, i, value);
    for (int i = 0; i < SMP_DEPTH; i++) {
        char prefix[48];
        snprintf(prefix, sizeof prefix, "decoder.blocks.%d", i);
        value = layers_upsample(builder, NETWORK_NEAREST, value);
        if (i < SMP_DEPTH - 1)
            value = join(builder, concat == 1, features[SMP_DEPTH - 2 - i], value);
        value = smp_conv(builder, prefix, "conv1.0", "conv1.1", &plain, value);
        value = smp_conv(builder, prefix, "conv2.0", "conv2.1", &plain, value);
    }
    value = add_named(builder, &head, value);
    describe(builder, "nearest", SMP_DEPTH, features[0], value);
    return true;
}
