/*
 * Where unetserve's own files lie: beside the running program in a build tree (build/unetserve,
 * build/models/unet.so), or as installed (PREFIX/bin, PREFIX/lib/unetserve). Found through
 * /proc/self/exe, so a moved tree works.
 */
#ifndef LAYOUT_H
#define LAYOUT_H

#include <stddef.h>

/* What the names of packed weights begin with, in cache_dir or run_dir (packed_cache.h). */
#define LAYOUT_PACKED_PREFIX "packed-"

/* Path of a role's program ("unetserve-gateway"). 0, or -ENOENT / -ENAMETOOLONG. */
int layout_program(const char *name, char *path, size_t size);

/* Path of a built-in plugin ("unet" -> .../models/unet.so). */
int layout_plugin(const char *name, char *path, size_t size);

/* The directory to import the Python package `unetserve` from. */
int layout_python(char *path, size_t size);

/* The default run directory's parent for this user: $XDG_RUNTIME_DIR/unetserve, or
 * /tmp/unetserve-UID. The supervisor puts one directory an instance there; clients look for the
 * only one. */
int layout_run_root(char *path, size_t size);

#endif
