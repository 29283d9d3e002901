#include "family.h"

#include "family_layers.h"
#include "family_plan.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_MAX_CONVS 8

/* ---- blocks ---- */

struct block_modules {
    struct module *convs[BLOCK_MAX_CONVS];
    size_t conv_count;
    struct module *norms[BLOCK_MAX_CONVS];
    size_t norm_count;
};

/* In natural order; what is beyond the limits stays unused and is reported as unexpected. */
static void gather_block(const struct module_set *set, const char *prefix, size_t limit,
                         struct block_modules *out)
{
    for (size_t i = 0; i < set->count; i++) {
        struct module *module = &set->modules[i];
        if (!module_path_within(module->path, prefix))
            continue;
        if (module->kind == MODULE_CONV && out->conv_count < limit)
            out->convs[out->conv_count++] = module;
        else if (module->kind == MODULE_NORM && out->norm_count < limit)
            out->norms[out->norm_count++] = module;
    }
}

/* Where a convolution's norm would be: the next index ("double_conv.3" -> "double_conv.4"), or
 * "conv1" -> "norm1". */
static void norm_path(const char *conv_path, char *out, size_t size)
{
    const char *dot = strrchr(conv_path, '.');
    const char *last = dot ? dot + 1 : conv_path;
    int head = (int)(last - conv_path);
    size_t digits = strspn(last, "0123456789");
    const char *word = strstr(last, "conv");
    if (digits > 0 && last[digits] == '\0')
        snprintf(out, size, "%.*s%lu", head, conv_path, strtoul(last, NULL, 10) + 1);
    else if (word)
        snprintf(out, size, "%.*snorm%s", (int)(word - conv_path), conv_path, word + 4);
    else
        snprintf(out, size, "%s.norm", conv_path);
}

/* Norms pair with convolutions one to one. Where some are missing, position tells whose is there.
 */
static struct module *pair_norm(struct layer_builder *builder, const struct block_modules *block,
                                size_t i)
{
    const struct module *conv = block->convs[i];
    if (block->norm_count == block->conv_count)
        return block->norms[i];
    char path[FAMILY_PATH_MAX + 24];
    norm_path(conv->path, path, sizeof path);
    struct module *norm = module_find(builder->set, path);
    if (norm && norm->kind == MODULE_NORM)
        return norm;
    for (int leaf = LEAF_WEIGHT; leaf <= LEAF_VAR; leaf++)
        layers_missing(builder, path, (enum module_leaf)leaf, 1, conv->leaves[LEAF_WEIGHT]->dims);
    return NULL;
}

/* What holds for all blocks of a network. */
struct block_rules {
    bool norms;  /* there are norms, so every convolution has one */
    bool biases; /* some convolution of a block has a bias, so every one has */
    bool any_length;
    bool up_biases; /* some transposed convolution has a bias, so every one has */
};

static void part_path(const struct plan_block *block, int part, char *out, size_t size)
{
    snprintf(out, size, "%s%s", block->inner, block->parts[part]);
}

/* The norm of the only convolution left. The other's, if there is one, is no surprise once its
 * convolution was reported. */
static struct module *norm_of_survivor(struct layer_builder *builder,
                                       const struct block_modules *found, bool is_second)
{
    if (found->norm_count == 2) {
        found->norms[!is_second]->used = true;
        return found->norms[is_second];
    }
    char path[FAMILY_PATH_MAX + 24];
    norm_path(found->convs[0]->path, path, sizeof path);
    struct module *norm = module_find(builder->set, path);
    return norm && norm->kind == MODULE_NORM ? norm : NULL;
}

/* A block that should have two convolutions has none or one: report what is missing, with the shape
 * that the rest implies. */
static uint32_t add_broken_block(struct layer_builder *builder, const struct plan_block *block,
                                 const struct block_modules *found, uint32_t input)
{
    char first[FAMILY_PATH_MAX];
    char second[FAMILY_PATH_MAX];
    part_path(block, 0, first, sizeof first);
    part_path(block, 2, second, sizeof second);
    uint64_t first_dims[4] = {0, builder->channels[input], 3, 3};
    uint64_t second_dims[4] = {0, 0, 3, 3};
    if (found->conv_count == 0) {
        input = layers_missing_conv(builder, first, first_dims, input);
        return layers_missing_conv(builder, second, second_dims, input);
    }
    struct module *conv = found->convs[0];
    const uint64_t *has = conv->leaves[LEAF_WEIGHT]->dims;
    bool is_second = strcmp(conv->path, second) == 0 ||
                     (strcmp(conv->path, first) != 0 && has[1] != builder->channels[input]);
    struct layer_conv what = {.conv = conv, .kernel = 3, .stride = 1, .padding = 1, .relu = true};
    if (is_second) {
        first_dims[0] = has[1];
        input = layers_missing_conv(builder, first, first_dims, input);
    }
    what.norm = norm_of_survivor(builder, found, is_second);
    input = layers_conv(builder, &what, input);
    if (is_second)
        return input;
    second_dims[0] = second_dims[1] = has[0];
    return layers_missing_conv(builder, second, second_dims, input);
}

/* In blocks of any length only a norm without a convolution before it ("enc1.1", but no "enc1.0")
 * tells that one is lost. */
static void report_widowed_norms(struct layer_builder *builder, const struct block_modules *block)
{
    for (size_t i = 0; i < block->norm_count; i++) {
        const char *path = block->norms[i]->path;
        const char *dot = strrchr(path, '.');
        unsigned long index = dot ? strtoul(dot + 1, NULL, 10) : 0;
        if (index == 0)
            continue;
        char conv_path[FAMILY_PATH_MAX + 24];
        snprintf(conv_path, sizeof conv_path, "%.*s.%lu", (int)(dot - path), path, index - 1);
        const struct module *conv = module_find(builder->set, conv_path);
        const struct weights_tensor *weight = block->norms[i]->leaves[LEAF_WEIGHT];
        uint64_t dims[4] = {weight ? weight->dims[0] : 0, 0, 3, 3};
        if (!conv || conv->kind != MODULE_CONV)
            layers_missing(builder, conv_path, LEAF_WEIGHT, 4, dims);
    }
}

static uint32_t add_block(struct layer_builder *builder, const struct block_rules *rules,
                          const struct plan_block *block, uint32_t input)
{
    struct block_modules found = {.conv_count = 0};
    gather_block(builder->set, block->prefix, rules->any_length ? BLOCK_MAX_CONVS : 2, &found);
    if (found.conv_count < (rules->any_length ? 1 : 2))
        return add_broken_block(builder, block, &found, input);
    if (found.norm_count > found.conv_count)
        report_widowed_norms(builder, &found);
    for (size_t i = 0; i < found.conv_count; i++) {
        struct layer_conv what = {.conv = found.convs[i],
                                  .norm = rules->norms ? pair_norm(builder, &found, i) : NULL,
                                  .kernel = 3,
                                  .stride = 1,
                                  .padding = 1,
                                  .relu = true,
                                  .needs_bias = rules->biases};
        input = layers_conv(builder, &what, input);
    }
    return input;
}

/* ---- up steps, head ---- */

static struct module *conv_within(const struct module_set *set, const char *prefix)
{
    for (size_t i = 0; i < set->count; i++)
        if (set->modules[i].kind == MODULE_CONV && module_path_within(set->modules[i].path, prefix))
            return &set->modules[i];
    return NULL;
}

static uint32_t add_up(struct layer_builder *builder, const struct plan *plan,
                       const struct block_rules *rules, uint32_t level, uint32_t input)
{
    if (plan->bilinear)
        return layers_upsample(builder, NETWORK_BILINEAR_ALIGNED, input);
    struct module *conv = conv_within(builder->set, plan->ups[level]);
    if (conv)
        return layers_conv_up(builder, conv, rules->up_biases, input);
    uint64_t dims[4] = {builder->channels[input], 0, 2, 2};
    layers_missing(builder, plan->ups[level], LEAF_WEIGHT, 4, dims);
    if (rules->up_biases)
        layers_missing(builder, plan->ups[level], LEAF_BIAS, 1, &dims[1]);
    input = layers_upsample(builder, NETWORK_NEAREST, input);
    builder->channels[input] = 0;
    return input;
}

static void add_head(struct layer_builder *builder, const struct plan *plan, uint32_t input)
{
    struct module *conv = conv_within(builder->set, plan->head);
    if (!conv) {
        uint64_t dims[4] = {0, builder->channels[input], 1, 1};
        layers_missing(builder, plan->head_inner, LEAF_WEIGHT, 4, dims);
        layers_missing(builder, plan->head_inner, LEAF_BIAS, 1, dims);
        return;
    }
    struct layer_conv what = {.conv = conv, .kernel = 1, .stride = 1, .needs_bias = true};
    uint32_t value = layers_conv(builder, &what, input);
    builder->network.classes = builder->channels[value];
    if (builder->network.classes > 256)
        family_report_object(builder->report, "%u classes; labels have room for 256",
                             builder->network.classes);
}

/* ---- the whole ---- */

static bool any_bias_within(const struct module_set *set, const char *prefix)
{
    for (size_t i = 0; i < set->count; i++) {
        const struct module *module = &set->modules[i];
        if (module->kind == MODULE_CONV && module->leaves[LEAF_BIAS] &&
            module_path_within(module->path, prefix))
            return true;
    }
    return false;
}

static struct block_rules find_rules(const struct module_set *set, const struct plan *plan)
{
    struct block_rules rules = {.any_length = plan->any_length};
    for (size_t i = 0; i < set->count; i++)
        if (set->modules[i].kind == MODULE_NORM)
            rules.norms = true;
    rules.biases = any_bias_within(set, plan->bottom.prefix);
    for (uint32_t i = 0; i < plan->depth; i++) {
        if (any_bias_within(set, plan->encoders[i].prefix) ||
            any_bias_within(set, plan->decoders[i].prefix))
            rules.biases = true;
        if (any_bias_within(set, plan->ups[i]))
            rules.up_biases = true;
    }
    return rules;
}

/* The channels of the input are those that the first convolution wants. */
static uint32_t input_channels(const struct module_set *set, const struct plan *plan)
{
    const struct module *first = conv_within(set, plan->encoders[0].prefix);
    uint64_t channels = first ? first->leaves[LEAF_WEIGHT]->dims[1] : 0;
    return channels <= 65535 ? (uint32_t)channels : 0;
}

static void assemble(struct layer_builder *builder, const struct plan *plan)
{
    struct block_rules rules = find_rules(builder->set, plan);
    uint32_t skips[PLAN_MAX_DEPTH] = {0};
    uint32_t value = 0;
    builder->channels[0] = input_channels(builder->set, plan);
    for (uint32_t i = 0; i < plan->depth; i++) {
        skips[i] = add_block(builder, &rules, &plan->encoders[i], value);
        value = layers_max_pool(builder, 2, 2, 0, skips[i]);
    }
    value = add_block(builder, &rules, &plan->bottom, value);
    for (uint32_t i = 0; i < plan->depth; i++) {
        uint32_t skip = skips[plan->depth - 1 - i];
        value = add_up(builder, plan, &rules, i, value);
        if (plan->fits_any_size)
            value = layers_fit(builder, value, skip);
        value = plan->skip_first ? layers_concat(builder, skip, value)
                                 : layers_concat(builder, value, skip);
        value = add_block(builder, &rules, &plan->decoders[i], value);
    }
    add_head(builder, plan, value);
    struct network *network = &builder->network;
    network->in_channels = builder->channels[0];
    network->base_width = builder->channels[skips[0]];
    network->depth = plan->depth;
    network->size_multiple = plan->fits_any_size ? 1 : 1u << plan->depth;
    network->size_min = 1u << plan->depth;
    snprintf(network->up, sizeof network->up, "%s", plan->bilinear ? "bilinear" : "transposed");
}

/* Counters that averaging and trainers leave among the weights. */
static bool is_harmless(const char *name)
{
    static const char *const known[] = {"mask_values", "n_averaged"};
    const char *dot = strrchr(name, '.');
    const char *last = dot ? dot + 1 : name;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(last, known[i]) == 0)
            return true;
    return false;
}

/* Whatever no layer took: parts of unused modules, statistics on a convolution, and names that no
 * module has. */
static void report_unused(const struct module_set *set, struct family_report *report)
{
    for (size_t i = 0; i < set->count; i++) {
        const struct module *module = &set->modules[i];
        int first = !module->used                 ? LEAF_WEIGHT
                    : module->kind == MODULE_CONV ? LEAF_MEAN
                                                  : LEAF_COUNT;
        for (int leaf = first; leaf < LEAF_COUNT; leaf++) {
            const struct weights_tensor *tensor = module->leaves[leaf];
            if (tensor)
                family_report_unexpected(report, tensor->name, tensor->rank, tensor->dims);
        }
    }
    for (size_t i = 0; i < set->stranger_count; i++) {
        const struct weights_tensor *tensor = set->strangers[i];
        if (!is_harmless(tensor->name))
            family_report_unexpected(report, tensor->name, tensor->rank, tensor->dims);
    }
}

static const struct family *choose_family(const char *wanted, const struct module_set *set,
                                          struct family_report *report)
{
    if (!wanted || !*wanted) {
        const struct family *family = family_recognise(set);
        if (!family)
            family_report_object(report, "these names belong to none of the UNets known here: "
                                         "milesial, mateuszbuda, aladdinpersson, zhoudaxia233, "
                                         "plain, cbr, fepegar, smp");
        return family;
    }
    for (const struct family *family = family_table; family->name; family++)
        if (strcmp(family->name, wanted) == 0)
            return family;
    family_report_object(report,
                         "no family \"%.32s\"; known: milesial, mateuszbuda, "
                         "aladdinpersson, zhoudaxia233, plain, cbr, fepegar, smp",
                         wanted);
    return NULL;
}

const char *const *family_names(void)
{
    static const char *const names[] = {"milesial",     "mateuszbuda", "aladdinpersson",
                                        "zhoudaxia233", "plain",       "cbr",
                                        "fepegar",      "smp",         NULL};
    return names;
}

/* 1: skip first, 0: up first, -1: as the family does. false, and a report, when it is no order. */
static bool choose_order(const char *wanted, struct layer_builder *builder, int *out)
{
    *out = -1;
    if (!wanted || !*wanted)
        return true;
    *out = strcmp(wanted, "skip_up") == 0;
    if (*out || strcmp(wanted, "up_skip") == 0)
        return true;
    family_report_object(builder->report, "no concat \"%.32s\"; known: skip_up, up_skip", wanted);
    return false;
}

/* false when not even the depth can be told. */
static bool make_layers(struct layer_builder *builder, const struct family *family, int concat)
{
    struct plan plan;
    if (family->assemble)
        return family->assemble(builder, concat);
    if (!family->plan(builder->set, &plan))
        return false;
    if (concat >= 0)
        plan.skip_first = concat;
    assemble(builder, &plan);
    return true;
}

/* Build into builder->network; what is wrong lands in the report. */
static int build(struct layer_builder *builder, const struct family_wish *wish,
                 const char **family_name)
{
    const struct family *family = choose_family(wish->family, builder->set, builder->report);
    int concat = -1;
    if (family) {
        *family_name = family->name;
        snprintf(builder->network.family, sizeof builder->network.family, "%s", family->name);
        if (choose_order(wish->concat, builder, &concat) && !make_layers(builder, family, concat))
            family_report_object(builder->report,
                                 "the names do not tell how deep this %s network is", family->name);
    }
    report_unused(builder->set, builder->report);
    if (builder->rc < 0)
        return builder->rc;
    return family_report_any(builder->report) ? -EBADMSG : 0;
}

static int make(const struct weights *weights, const struct family_wish *wish,
                enum layers_values values, struct network *out, char *report, size_t report_size)
{
    static const struct family_wish none = {NULL, NULL};
    const char *family_name = "";
    struct family_report collected = {.lines = malloc(report_size + 1), .size = report_size};
    struct layer_builder *builder = calloc(1, sizeof *builder);
    struct module_set set = {0};
    int rc = -ENOMEM;
    if (collected.lines && builder)
        rc = module_set_make(weights, &set);
    if (rc == 0) {
        collected.lines[0] = '\0';
        builder->set = &set;
        builder->values = values;
        builder->report = &collected;
        rc = build(builder, wish ? wish : &none, &family_name);
        if (rc == 0)
            *out = builder->network;
        else
            network_free(&builder->network);
    }
    if (rc == -EBADMSG)
        family_report_write(&collected, family_name, report, report_size);
    else if (rc < 0 && report_size > 0)
        snprintf(report, report_size, "out of memory");
    module_set_free(&set);
    free(collected.lines);
    free(builder);
    return rc;
}

int family_build(const struct weights *weights, const struct family_wish *wish, struct network *out,
                 char *report, size_t report_size)
{
    return make(weights, wish, LAYERS_KEEP, out, report, report_size);
}

int family_plan(const struct weights *weights, const struct family_wish *wish, struct network *out,
                char *report, size_t report_size)
{
    return make(weights, wish, LAYERS_SKIP, out, report, report_size);
}

int family_check(const struct weights *weights, const struct family_wish *wish, struct network *out,
                 char *report, size_t report_size)
{
    return make(weights, wish, LAYERS_CHECK, out, report, report_size);
}
