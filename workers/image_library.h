/*
 * The shared object that expands image files (workers/images/images.h), found beside the program or
 * beside the Python extension. It need not be there.
 */
#ifndef IMAGE_LIBRARY_H
#define IMAGE_LIBRARY_H

#include "workers/images/images.h"

/* Open it now, while files can be opened. Without it image files are refused with 415, and one
 * line in the log says why. Calls after the first do nothing. */
void image_library_open(void);

/* As images.expand. */
int image_library_expand(const struct images_order *order, void *pixels, struct problem *problem);

#endif
