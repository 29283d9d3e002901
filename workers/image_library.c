#include "workers/image_library.h"

#include "unetserve/layout.h"
#include "unetserve/log.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#define NAME "unetserve-images.so"

static struct {
    bool tried;
    const struct images *images;
} library;

/* Beside the shared object that this code is in, if it is in one. */
static bool find_beside(char *path, size_t size)
{
    Dl_info info;
    if (!dladdr(&library, &info) || !info.dli_fname)
        return false;
    const char *slash = strrchr(info.dli_fname, '/');
    if (!slash || !strstr(slash, ".so"))
        return false;
    int length = snprintf(path, size, "%.*s/" NAME, (int)(slash - info.dli_fname), info.dli_fname);
    return length > 0 && (size_t)length < size;
}

static const struct images *open_library(const char **reason)
{
    char path[PATH_MAX];
    *reason = NAME " is not installed";
    if (!find_beside(path, sizeof path) && layout_program(NAME, path, sizeof path))
        return NULL;
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        *reason = dlerror();
        return NULL;
    }
    const struct images *(*entry)(void) = NULL;
    *(void **)&entry = dlsym(handle, "unetserve_images");
    const struct images *images = entry ? entry() : NULL;
    *reason = NAME " is of another version";
    return images && images->abi == IMAGES_ABI ? images : NULL;
}

void image_library_open(void)
{
    const char *reason;
    if (library.tried)
        return;
    library.tried = true;
    library.images = open_library(&reason);
    if (!library.images)
        log_event(LOG_LEVEL_WARNING, "image files as request bodies are refused",
                  log_text("reason", reason));
}

int image_library_expand(const struct images_order *order, void *pixels, struct problem *problem)
{
    image_library_open();
    if (library.images)
        return library.images->expand(order, pixels, problem);
    problem_set(problem, 415,
                "This server reads no image files: send application/x-npy, application/json or "
                "application/octet-stream");
    return -EBADMSG;
}
