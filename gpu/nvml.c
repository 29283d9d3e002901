#include "gpu/nvml.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define LIBRARY      "libnvidia-ml.so.1"
#define OLDEST_MAJOR 450 /* the first with MIG, and with all that is asked here */

/* A function's address in a table of pointers to functions, as POSIX wants it. */
static bool find(void *library, const char *name, void *pointer)
{
    void *symbol = dlsym(library, name);
    *(void **)pointer = symbol;
    return symbol != NULL;
}

static int complain_missing(const char *name, char *error, size_t error_size)
{
    snprintf(error, error_size, "the NVIDIA driver is too old: " LIBRARY " has no %s", name);
    return -ENODEV;
}

static int fill(void *library, struct nvml *out, char *error, size_t error_size)
{
    struct nvml nvml = {.init = NULL};
#define NVML_FIND(member, symbol, arguments)                                                       \
    if (!find(library, #symbol, (void *)&nvml.member))                                             \
        return complain_missing(#symbol, error, error_size);
    NVML_CALLS(NVML_FIND)
#undef NVML_FIND
#define NVML_LOOK(member, symbol, arguments) (void)find(library, #symbol, (void *)&nvml.member);
    NVML_OPTIONAL_CALLS(NVML_LOOK)
#undef NVML_LOOK
    (void)find(library, "nvmlErrorString", (void *)&nvml.error_text);
    *out = nvml;
    return 0;
}

const char *nvml_text(const struct nvml *nvml, int code)
{
    const char *text = nvml->error_text ? nvml->error_text(code) : NULL;
    return text ? text : "an error without a name";
}

static int start(struct nvml *nvml, char *error, size_t error_size)
{
    int code = nvml->init();
    if (code == NVML_SUCCESS)
        code = nvml->driver_version(nvml->driver, sizeof nvml->driver);
    if (code != NVML_SUCCESS) {
        snprintf(error, error_size, "the NVIDIA driver does not answer " LIBRARY ": %s",
                 nvml_text(nvml, code));
        return -ENODEV;
    }
    nvml->driver[sizeof nvml->driver - 1] = '\0';
    if (strtol(nvml->driver, NULL, 10) < OLDEST_MAJOR) {
        snprintf(error, error_size, "the NVIDIA driver is version %s, needed is %d or later",
                 nvml->driver, OLDEST_MAJOR);
        return -ENODEV;
    }
    return 0;
}

int nvml_open(struct nvml *out, char *error, size_t error_size)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *reason = dlerror();
        snprintf(error, error_size, "NVML, which comes with the NVIDIA driver, is missing: %s",
                 reason ? reason : LIBRARY);
        return -ENODEV;
    }
    int failure = fill(library, out, error, error_size);
    return failure ? failure : start(out, error, error_size);
}
