/*
 * What the symmetric families share: encoder blocks with a max pool between them, a bottom block,
 * and for each level an up step, a concat with the encoder's output and a decoder block; a 1x1
 * convolution at the end. A plan says which part of the state dict each of these is; shapes fill in
 * the rest. Families of another build make their layers themselves: family_encoders.h.
 */
#ifndef FAMILY_PLAN_H
#define FAMILY_PLAN_H

#include "family_layers.h"

#define PLAN_MAX_DEPTH 10

/* A run of convolutions, each with its norm if there is one. */
struct plan_block {
    char prefix[48]; /* its modules lie at or below */
    char inner[96];  /* how the family writes the names of its parts ... */
    const char *const
        *parts; /* ... inner + parts[0..3]: conv, norm, conv, norm; used to name what is missing */
};

struct plan {
    uint32_t depth;
    bool skip_first;    /* concat [skip, up]; else [up, skip] */
    bool bilinear;      /* up steps are bilinear with aligned corners; else transposed */
    bool fits_any_size; /* up is padded to the skip's size */
    bool any_length;    /* blocks may have any number of convolutions; else exactly two */
    struct plan_block encoders[PLAN_MAX_DEPTH];
    struct plan_block bottom;
    char ups[PLAN_MAX_DEPTH][48]; /* in the order of execution, as decoders */
    struct plan_block decoders[PLAN_MAX_DEPTH];
    char head[48];       /* prefix */
    char head_inner[64]; /* the family's name of the last convolution */
};

struct family {
    const char *name;
    const char *const *stems; /* first components of its names; '#' stands for a number */
    /* Make the plan. false when not even the depth can be told. */
    bool (*plan)(const struct module_set *set, struct plan *out);
    /* Instead of a plan: all layers, see family_encoders.h. */
    bool (*assemble)(struct layer_builder *builder, int concat);
};

/* All families, ended by one without a name. */
extern const struct family family_table[];

/* The family whose names cover the set best, or NULL when none covers half of it. */
const struct family *family_recognise(const struct module_set *set);

#endif
