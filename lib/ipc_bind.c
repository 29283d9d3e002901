#include "lib/ipc_bind.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#define SCHEME      "ipc://"
#define ADDRESS_MAX (sizeof SCHEME + sizeof((struct sockaddr_un *)0)->sun_path)

int ipc_bind(void *socket, const char *directory, const char *name)
{
    char bound[ADDRESS_MAX];
    char path[ADDRESS_MAX];
    int length = snprintf(bound, sizeof bound, SCHEME "%s/%s.%d", directory, name, (int)getpid());
    if (length < 0 || (size_t)length >= sizeof bound)
        return -ENAMETOOLONG;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    mode_t before = umask(0077);
    int error = zmq_bind(socket, bound) ? -errno : 0;
    umask(before);
    if (!error && rename(bound + sizeof SCHEME - 1, path))
        error = -errno;
    return error;
}
