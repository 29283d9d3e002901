/* What a model takes, in words for people. */
#ifndef BODY_CHECK_H
#define BODY_CHECK_H

#include "unetserve/model.h"

#include <stdbool.h>

/* Is a height or width one that the model takes? If not, sentence says why: "width 250 is not a
 * multiple of 16". */
bool body_check_side(const struct unetserve_interface *interface, const char *name, uint64_t side,
                     char *sentence, size_t size);

/* Does the model take this type? float64 counts as float32, which it becomes. */
bool body_check_dtype(const struct unetserve_interface *interface, uint32_t dtype);

/* "uint16, float32": the types that the model takes. Returns text. */
const char *body_list_dtypes(const struct unetserve_interface *interface, char *text, size_t size);

#endif
