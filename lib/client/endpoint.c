#include "endpoint.h"

#include "unetserve/layout.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SYSTEM_SOCKET "/run/unetserve/client.ipc"

/* A killed instance leaves its socket file behind, so being there is not enough. */
static bool somebody_listens(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return false;
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    /* A full backlog (EAGAIN) is a listener too. */
    bool listens = connect(fd, (const struct sockaddr *)&address, sizeof address) == 0 ||
                   errno == EAGAIN || errno == EINPROGRESS;
    close(fd);
    return listens;
}

/* In /tmp anybody could have made a directory of the name that is looked for. */
static bool is_own_directory(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == geteuid();
}

struct endpoint_list {
    char *text;
    size_t size;
    size_t used;
    unsigned count;
};

static void endpoint_list_add(struct endpoint_list *list, const char *path)
{
    size_t left = list->size - list->used;
    int length = snprintf(list->text + list->used, left, "%sipc://%s", list->count ? "\n" : "",
                          path);
    if (length > 0 && (size_t)length < left)
        list->used += (size_t)length;
    else
        list->text[list->used] = 0;
    list->count++;
}

static void endpoint_list_scan(struct endpoint_list *list, const char *root)
{
    if (!is_own_directory(root))
        return;
    DIR *directory = opendir(root);
    if (!directory)
        return;
    const struct dirent *entry;
    while ((entry = readdir(directory))) {
        char path[PATH_MAX];
        if (entry->d_name[0] == '.')
            continue;
        int length = snprintf(path, sizeof path, "%s/%s/client.ipc", root, entry->d_name);
        if (length > 0 && (size_t)length < sizeof path && somebody_listens(path))
            endpoint_list_add(list, path);
    }
    closedir(directory);
}

int endpoint_find(char *text, size_t size)
{
    const char *named = getenv("UNETSERVE_ENDPOINT");
    if (named && *named) {
        if (strlen(named) >= size)
            return -ENAMETOOLONG;
        memcpy(text, named, strlen(named) + 1);
        return 0;
    }
    struct endpoint_list list = {text, size, 0, 0};
    char root[PATH_MAX];
    if (layout_run_root(root, sizeof root) == 0)
        endpoint_list_scan(&list, root);
    if (list.count == 0 && somebody_listens(SYSTEM_SOCKET))
        endpoint_list_add(&list, SYSTEM_SOCKET);
    if (list.count == 0)
        return -ENOENT;
    if (list.count > 1)
        return -EBUSY;
    return list.used > 0 ? 0 : -ENAMETOOLONG;
}
