#include "unetserve/layout.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The directory of the running program, without a slash at its end. */
static int program_directory(char *path, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", path, size);
    if (length < 0)
        return -errno;
    if ((size_t)length >= size)
        return -ENAMETOOLONG;
    path[length] = '\0';
    char *slash = strrchr(path, '/');
    if (!slash)
        return -ENOENT;
    *slash = '\0';
    return 0;
}

/* DIRECTORY + place + name + ending, if there is such a file. */
static int candidate_take(const char *directory, const char *place, const char *name,
                          const char *ending, char *path, size_t size)
{
    char text[PATH_MAX];
    int length = snprintf(text, sizeof text, "%s%s%s%s", directory, place, name, ending);
    if (length < 0 || (size_t)length >= sizeof text || (size_t)length >= size)
        return -ENAMETOOLONG;
    if (access(text, F_OK))
        return -ENOENT;
    memcpy(path, text, (size_t)length + 1);
    return 0;
}

/* In the first of the places that has it. Places are relative to the running program's directory.
 */
static int file_find(const char *const places[], const char *name, const char *ending, char *path,
                     size_t size)
{
    char directory[PATH_MAX];
    int error = program_directory(directory, sizeof directory);
    if (error)
        return error;
    error = -ENOENT;
    for (size_t i = 0; places[i]; i++) {
        int tried = candidate_take(directory, places[i], name, ending, path, size);
        if (tried == 0)
            return 0;
        if (tried == -ENAMETOOLONG)
            error = tried;
    }
    return error;
}

int layout_program(const char *name, char *path, size_t size)
{
    static const char *const places[] = {"/", "/../lib/unetserve/", "/../../bin/", NULL};
    return file_find(places, name, "", path, size);
}

int layout_plugin(const char *name, char *path, size_t size)
{
    /* Beside the program in a build tree or in PREFIX/lib/unetserve; or seen from PREFIX/bin. */
    static const char *const places[] = {"/models/", "/../lib/unetserve/models/", NULL};
    return file_find(places, name, ".so", path, size);
}

int layout_python(char *path, size_t size)
{
    static const char *const places[] = {"/python/", "/../lib/unetserve/python/", NULL};
    int error = file_find(places, "unetserve/__init__", ".py", path, size);
    if (error == 0)
        path[strlen(path) - strlen("/unetserve/__init__.py")] = '\0';
    return error;
}

int layout_run_root(char *path, size_t size)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int length = runtime && runtime[0] == '/'
                     ? snprintf(path, size, "%s/unetserve", runtime)
                     : snprintf(path, size, "/tmp/unetserve-%u", (unsigned)getuid());
    return length >= 0 && (size_t)length < size ? 0 : -ENAMETOOLONG;
}
