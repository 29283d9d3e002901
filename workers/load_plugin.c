#include "workers/load_plugin.h"
#include "unetserve/layout.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

static int find_plugin(const char *model_path, char *path, char *error, size_t error_size)
{
    size_t length = strlen(model_path);
    if (length > 3 && strcmp(model_path + length - 3, ".so") == 0) {
        /* An absolute path: dlopen searches the library directories for a name without a slash. */
        if (realpath(model_path, path))
            return 0;
        snprintf(error, error_size, "%s: %s", model_path, strerror(errno));
        return errno == EACCES ? -EACCES : -ENOENT;
    }
    if (access(model_path, R_OK)) {
        int failure = errno;
        snprintf(error, error_size, "%s: %s", model_path, strerror(failure));
        return failure == EACCES ? -EACCES : -ENOENT;
    }
    if (layout_plugin("unet", path, PATH_MAX)) {
        snprintf(error, error_size, "the built-in plugin models/unet.so is not installed");
        return -ENOENT;
    }
    return 0;
}

int plugin_check(const struct unetserve_model_ops *ops, char *error, size_t error_size)
{
    if (!ops || ops->abi != UNETSERVE_MODEL_ABI) {
        snprintf(error, error_size, "plugin for ABI %u, this unetserve speaks %d",
                 ops ? ops->abi : 0, UNETSERVE_MODEL_ABI);
        return -EBADMSG;
    }
    if (ops->size < PLUGIN_LEAST_SIZE) {
        snprintf(error, error_size, "plugin's table has %u bytes, at least %zu are needed",
                 ops->size, PLUGIN_LEAST_SIZE);
        return -EBADMSG;
    }
    if (!ops->name || !ops->describe || !ops->setup || !ops->predict || !ops->teardown) {
        snprintf(error, error_size,
                 "plugin lacks one of name, describe, setup, predict and teardown");
        return -EBADMSG;
    }
    return 0;
}

int plugin_load(const char *model_path, struct plugin *out, char *error, size_t error_size)
{
    char path[PATH_MAX];
    int failure = find_plugin(model_path, path, error, error_size);
    if (failure)
        return failure;
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *reason = dlerror();
        snprintf(error, error_size, "%s", reason ? reason : "dlopen failed");
        return -EBADMSG;
    }
    /* ISO C has no conversion from an object pointer to a function pointer; POSIX promises that
     * this one works. */
    const struct unetserve_model_ops *(*entry)(void) = NULL;
    *(void **)&entry = dlsym(handle, "unetserve_model");
    if (!entry) {
        snprintf(error, error_size, "%s exports no unetserve_model", path);
        dlclose(handle);
        return -EBADMSG;
    }
    char reason[256];
    const struct unetserve_model_ops *ops = entry();
    if (plugin_check(ops, reason, sizeof reason)) {
        snprintf(error, error_size, "%s: %s", path, reason);
        dlclose(handle);
        return -EBADMSG;
    }
    *out = (struct plugin){.handle = handle};
    memcpy(&out->ops, ops, ops->size < sizeof out->ops ? ops->size : sizeof out->ops);
    return 0;
}

int plugin_exit_status(int error)
{
    switch (error) {
    case 0: return EXIT_SUCCESS;
    case -EBADMSG: return EX_DATAERR;
    case -ENOENT:
    case -EACCES:
    case -ENOTDIR:
    case -EISDIR: return EX_NOINPUT;
    case -ENODEV: return EX_UNAVAILABLE;
    case -EINVAL: return EX_CONFIG;
    case -ENOMEM: return EX_OSERR;
    default: return EX_SOFTWARE;
    }
}
