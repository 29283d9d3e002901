/*
 * A model plugin, found and loaded. What the configuration calls the model's path is either a
 * plugin (ending in .so) or something that the built-in UNet plugin serves (a weights file or a
 * model directory).
 */
#ifndef LOAD_PLUGIN_H
#define LOAD_PLUGIN_H

#include "unetserve/model.h"

/* What the first plugins had, and any must. */
#define PLUGIN_LEAST_SIZE offsetof(struct unetserve_model_ops, batch)

struct plugin {
    void *handle;                   /* of dlopen */
    struct unetserve_model_ops ops; /* a copy: NULL where the plugin's table ends earlier */
};

/* Load it and check that it speaks this ABI. 0; -ENOENT: not there; -EBADMSG: no plugin, or for
 * another ABI. error gets one sentence. */
int plugin_load(const char *model_path, struct plugin *out, char *error, size_t error_size);

/* ops from anywhere (a test, a plugin): 0, or -EBADMSG with a sentence. */
int plugin_check(const struct unetserve_model_ops *ops, char *error, size_t error_size);

/* The process exit status (sysexits) for what describe, setup or plugin_load returned. */
int plugin_exit_status(int error);

#endif
