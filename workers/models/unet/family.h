/*
 * From a state dict to a network: the popular UNets are recognised by their parameters' names,
 * under any of the usual prefixes, at any depth and width. The concat order, which no shape tells,
 * follows from the family.
 */
#ifndef FAMILY_H
#define FAMILY_H

#include "network.h"
#include "weights.h"

/* What the user says about a network, over what its names tell. NULL or "" leaves it to them. */
struct family_wish {
    const char *family; /* one of family_names() */
    const char *concat; /* order at each level: "skip_up" or "up_skip" */
};

/* Build the network. wish: NULL for none. 0 with *out (free with network_free); or -EBADMSG and in
 * report a sentence, then the list of names that do not fit, one a line: "missing NAME [shape]",
 * "unexpected NAME [shape]", "shape NAME [has] want [..]". */
int family_build(const struct weights *weights, const struct family_wish *wish, struct network *out,
                 char *report, size_t report_size);

/* The same without a single weight: the layers' weights and bias stay NULL, and what only their
 * values would tell (a NaN) is not noticed. Takes no longer than reading names and shapes. */
int family_plan(const struct weights *weights, const struct family_wish *wish, struct network *out,
                char *report, size_t report_size);

/* The same plan, and whatever family_build would find wrong with the values. */
int family_check(const struct weights *weights, const struct family_wish *wish, struct network *out,
                 char *report, size_t report_size);

/* Names of the families known, NULL-terminated. */
const char *const *family_names(void);

#endif
