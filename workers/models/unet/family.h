/*
 * From a state dict to a network: the popular UNets are recognised by their parameters' names,
 * under any of the usual prefixes, at any depth and width. The concat order, which no shape tells,
 * follows from the family.
 */
#ifndef FAMILY_H
#define FAMILY_H

#include "network.h"
#include "weights.h"

/* Build the network. family: NULL to recognise, or a name to insist on ("milesial", "mateuszbuda",
 * "aladdinpersson", "zhoudaxia233", "plain", "cbr"). 0 with *out (free with network_free); or
 * -EBADMSG and in report a sentence, then the list of names that do not fit, one a line: "missing
 * NAME [shape]", "unexpected NAME [shape]", "shape NAME [has] want [..]". */
int family_build(const struct weights *weights, const char *family, struct network *out,
                 char *report, size_t report_size);

/* Names of the families known, NULL-terminated. */
const char *const *family_names(void);

#endif
