/*
 * A state dict grouped into modules: everything of one path ("inc.double_conv.0") with its weight,
 * bias and statistics. Prefixes that wrappers put before every name (module., model., net.,
 * _orig_mod.) are taken off. The weights of a loss (criterion., loss_fn.) are left out.
 */
#ifndef FAMILY_MODULES_H
#define FAMILY_MODULES_H

#include "weights.h"

#include <stdbool.h>

#define FAMILY_PATH_MAX 160

enum module_kind {
    MODULE_OTHER, /* nothing that a UNet is made of */
    MODULE_CONV,  /* a weight of four dimensions */
    MODULE_NORM,  /* a weight of one dimension, or running statistics */
};

enum module_leaf { LEAF_WEIGHT, LEAF_BIAS, LEAF_MEAN, LEAF_VAR, LEAF_TRACKED, LEAF_COUNT };

struct module {
    char path[FAMILY_PATH_MAX];
    enum module_kind kind;
    const struct weights_tensor *leaves[LEAF_COUNT]; /* NULL: absent */
    bool used;
};

struct module_set {
    struct module *modules; /* in natural order: a.2 before a.10 */
    size_t count;
    const struct weights_tensor **strangers; /* tensors that belong to no module */
    size_t stranger_count;
};

/* 0 or -ENOMEM. The set points into weights. */
int module_set_make(const struct weights *weights, struct module_set *out);
void module_set_free(struct module_set *set);

/* "weight", "bias", "running_mean", ... */
const char *module_leaf_name(enum module_leaf leaf);

/* Does path lie at or below prefix ("up1" covers "up1" and "up1.conv.0", not "up10")? */
bool module_path_within(const char *path, const char *prefix);

/* Is the path's first component stem, or, with numbered, stem and digits? Then their value is in
 * *number. */
bool module_path_starts(const char *path, const char *stem, bool numbered, uint32_t *number);

/* The module of exactly that path, or NULL. */
struct module *module_find(const struct module_set *set, const char *path);

/* Any module of that kind at or below prefix? */
bool module_any_within(const struct module_set *set, const char *prefix, enum module_kind kind);

#endif
