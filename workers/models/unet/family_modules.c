#include "family_modules.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const leaf_names[LEAF_COUNT] = {
    [LEAF_WEIGHT] = "weight",
    [LEAF_BIAS] = "bias",
    [LEAF_MEAN] = "running_mean",
    [LEAF_VAR] = "running_var",
    [LEAF_TRACKED] = "num_batches_tracked",
};

const char *module_leaf_name(enum module_leaf leaf)
{
    return leaf_names[leaf];
}

bool module_path_within(const char *path, const char *prefix)
{
    size_t length = strlen(prefix);
    return strncmp(path, prefix, length) == 0 && (path[length] == '\0' || path[length] == '.');
}

bool module_path_starts(const char *path, const char *stem, bool numbered, uint32_t *number)
{
    size_t length = strlen(stem);
    if (strncmp(path, stem, length) != 0)
        return false;
    const char *rest = path + length;
    uint32_t value = 0;
    if (numbered) {
        if (!isdigit((unsigned char)*rest))
            return false;
        for (; isdigit((unsigned char)*rest); rest++) {
            if (value > 9999)
                return false;
            value = value * 10 + (uint32_t)(*rest - '0');
        }
    }
    if (*rest != '\0' && *rest != '.')
        return false;
    *number = value;
    return true;
}

/* Runs of digits compare by value, everything else by byte. */
static int compare_natural(const char *a, const char *b)
{
    while (*a && *b) {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            a += strspn(a, "0");
            b += strspn(b, "0");
            size_t a_digits = strspn(a, "0123456789");
            size_t b_digits = strspn(b, "0123456789");
            if (a_digits != b_digits)
                return a_digits < b_digits ? -1 : 1;
            int order = strncmp(a, b, a_digits);
            if (order)
                return order;
            a += a_digits;
            b += b_digits;
        } else if (*a != *b) {
            return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
        } else {
            a++;
            b++;
        }
    }
    return (*a != '\0') - (*b != '\0');
}

/* One tensor on its way into a module. */
struct entry {
    char path[FAMILY_PATH_MAX];
    enum module_leaf leaf;
    const struct weights_tensor *tensor;
};

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a;
    const struct entry *y = b;
    int order = compare_natural(x->path, y->path);
    if (order == 0)
        order = strcmp(x->path, y->path); /* "a.01" and "a.1" stay apart */
    return order ? order : (int)x->leaf - (int)y->leaf;
}

static const char *strip_known_prefixes(const char *name)
{
    static const char *const prefixes[] = {"module.", "model.", "net.", "_orig_mod."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes;) {
        size_t length = strlen(prefixes[i]);
        if (strncmp(name, prefixes[i], length) == 0) {
            name += length;
            i = 0;
        } else {
            i++;
        }
    }
    return name;
}

/* Class weights and other tensors of the loss, which a LightningModule keeps beside its network. */
static bool belongs_to_loss(const char *name)
{
    static const char *const stems[] = {"criterion", "loss", "loss_fn", "loss_func",
                                        "loss_function"};
    for (size_t i = 0; i < sizeof stems / sizeof *stems; i++)
        if (module_path_within(name, stems[i]))
            return true;
    return false;
}

/* Split "inc.double_conv.0.weight"; false for names that end in no known leaf. */
static bool split_name(const char *name, struct entry *out)
{
    const char *dot = strrchr(name, '.');
    if (!dot || dot == name || (size_t)(dot - name) >= sizeof out->path)
        return false;
    for (int leaf = 0; leaf < LEAF_COUNT; leaf++) {
        if (strcmp(dot + 1, leaf_names[leaf]) == 0) {
            memcpy(out->path, name, (size_t)(dot - name));
            out->path[dot - name] = '\0';
            out->leaf = (enum module_leaf)leaf;
            return true;
        }
    }
    return false;
}

/* A wrapper of the user's own ("unet.inc..."): a first component that all modules share. */
static void strip_shared_component(struct entry *entries, size_t count)
{
    while (count > 0) {
        const char *dot = strchr(entries[0].path, '.');
        if (!dot)
            return;
        size_t length = (size_t)(dot - entries[0].path) + 1;
        for (size_t i = 1; i < count; i++)
            if (strncmp(entries[i].path, entries[0].path, length) != 0)
                return;
        for (size_t i = 0; i < count; i++)
            memmove(entries[i].path, entries[i].path + length,
                    strlen(entries[i].path + length) + 1);
    }
}

static enum module_kind kind_of(const struct module *module)
{
    const struct weights_tensor *weight = module->leaves[LEAF_WEIGHT];
    if (weight && weight->rank == 4)
        return MODULE_CONV;
    if ((weight && weight->rank == 1) ||
        (!weight && (module->leaves[LEAF_MEAN] || module->leaves[LEAF_VAR])))
        return MODULE_NORM;
    return MODULE_OTHER;
}

static void fill_modules(const struct entry *entries, size_t count, struct module_set *set)
{
    for (size_t i = 0; i < count; i++) {
        struct module *last = set->count ? &set->modules[set->count - 1] : NULL;
        if (!last || strcmp(last->path, entries[i].path) != 0) {
            last = &set->modules[set->count++];
            memcpy(last->path, entries[i].path, sizeof last->path);
        }
        /* Two names that differ in prefixes only: the second is nobody's. */
        if (last->leaves[entries[i].leaf])
            set->strangers[set->stranger_count++] = entries[i].tensor;
        else
            last->leaves[entries[i].leaf] = entries[i].tensor;
    }
    for (size_t i = 0; i < set->count; i++)
        set->modules[i].kind = kind_of(&set->modules[i]);
}

int module_set_make(const struct weights *weights, struct module_set *out)
{
    struct entry *entries = calloc(weights->count + 1, sizeof *entries);
    struct module_set set = {
        .modules = calloc(weights->count + 1, sizeof *set.modules),
        .strangers = calloc(weights->count + 1, sizeof(void *)),
    };
    if (!entries || !set.modules || !set.strangers) {
        free(entries);
        module_set_free(&set);
        return -ENOMEM;
    }
    size_t count = 0;
    for (size_t i = 0; i < weights->count; i++) {
        const struct weights_tensor *tensor = &weights->tensors[i];
        const char *name = strip_known_prefixes(tensor->name);
        if (belongs_to_loss(name))
            continue;
        entries[count].tensor = tensor;
        if (split_name(name, &entries[count]))
            count++;
        else
            set.strangers[set.stranger_count++] = tensor;
    }
    strip_shared_component(entries, count);
    qsort(entries, count, sizeof *entries, compare_entries);
    fill_modules(entries, count, &set);
    free(entries);
    *out = set;
    return 0;
}

void module_set_free(struct module_set *set)
{
    free(set->modules);
    free(set->strangers);
    *set = (struct module_set){0};
}

struct module *module_find(const struct module_set *set, const char *path)
{
    for (size_t i = 0; i < set->count; i++)
        if (strcmp(set->modules[i].path, path) == 0)
            return &set->modules[i];
    return NULL;
}

bool module_any_within(const struct module_set *set, const char *prefix, enum module_kind kind)
{
    for (size_t i = 0; i < set->count; i++)
        if (set->modules[i].kind == kind && module_path_within(set->modules[i].path, prefix))
            return true;
    return false;
}
