#include "lib/ipc_bind.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#define SCHEME      "ipc://"
#define ADDRESS_MAX (sizeof SCHEME + sizeof((struct sockaddr_un *)0)->sun_path)

/* Whoever connects is asked for its user (SO_PEERCRED); others than this one and root are hung up
 * on, should the permissions of path and directory have been changed. */
static int filter_peers(void *socket)
{
    const uid_t users[] = {geteuid(), 0};
    for (size_t i = 0; i < sizeof users / sizeof users[0]; i++)
        if (zmq_setsockopt(socket, ZMQ_IPC_FILTER_UID, &users[i], sizeof users[i]))
            return -errno;
    return 0;
}

int ipc_bind(void *socket, const char *directory, const char *name)
{
    char bound[ADDRESS_MAX];
    char path[ADDRESS_MAX];
    int length = snprintf(bound, sizeof bound, SCHEME "%s/%s.%d", directory, name, (int)getpid());
    if (length < 0 || (size_t)length >= sizeof bound)
        return -ENAMETOOLONG;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int error = filter_peers(socket);
    if (error)
        return error;
    mode_t before = umask(0177);
    error = zmq_bind(socket, bound) ? -errno : 0;
    umask(before);
    if (!error && rename(bound + sizeof SCHEME - 1, path))
        error = -errno;
    return error;
}
