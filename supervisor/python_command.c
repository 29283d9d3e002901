#include "supervisor/python_command.h"

#include "unetserve/layout.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As a shell would find it. */
static int program_in_path(const char *name, char *path, size_t size)
{
    const char *list = getenv("PATH");
    while (list && *list) {
        size_t length = strcspn(list, ":");
        int written = snprintf(path, size, "%.*s/%s", (int)length, list, name);
        if (list[0] == '/' && written > 0 && (size_t)written < size && access(path, X_OK) == 0)
            return 0;
        list += length + (list[length] == ':');
    }
    return -ENXIO;
}

static int words_join(const char *const *words, struct python_command *out)
{
    size_t at = (size_t)snprintf(out->words, sizeof out->words, "UNETSERVE_WORKER=");
    for (size_t i = 0; words[i]; i++) {
        int length = snprintf(out->words + at, sizeof out->words - at, "%s%s", i ? "\n" : "",
                              words[i]);
        if (length < 0 || (size_t)length >= sizeof out->words - at)
            return -E2BIG;
        at += (size_t)length;
    }
    return 0;
}

int python_command_make(const struct config_model *model, const char *const *words,
                        struct python_command *out)
{
    char package[PATH_MAX];
    int error = 0;
    if (model->python[0])
        memcpy(out->program, model->python, sizeof out->program);
    else
        error = program_in_path("python3", out->program, sizeof out->program);
    if (!error)
        error = words_join(words, out);
    if (error)
        return error;
    size_t count = 0;
    out->environment[count++] = out->words;
    if (layout_python(package, sizeof package) == 0) {
        const char *others = getenv("PYTHONPATH");
        int length = snprintf(out->package, sizeof out->package, "PYTHONPATH=%s%s%s", package,
                              others && others[0] ? ":" : "", others ? others : "");
        if (length < 0 || (size_t)length >= sizeof out->package)
            return -E2BIG;
        out->environment[count++] = out->package;
    }
    out->environment[count] = NULL;
    out->arguments[0] = out->program;
    out->arguments[1] = (char *)(uintptr_t)model->path;
    out->arguments[2] = NULL;
    return 0;
}
