#include "supervisor/passed.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define STORED "stored/"

/* What of a stored socket's name tells its address. NULL if it is no stored one's. */
static const char *address_part(const char *name)
{
    if (strncmp(name, STORED, strlen(STORED)) != 0)
        return NULL;
    const char *slash = strchr(name + strlen(STORED), '/');
    return slash ? slash + 1 : NULL;
}

static void address_encode(const char *address, char *out, size_t size)
{
    snprintf(out, size, "%s", address);
    for (char *at = out; *at; at++)
        if (*at == ':')
            *at = '_';
}

static void socket_add(struct passed *out, int from, const char *name)
{
    int fd = out->count < PASSED_MAX ? fcntl(from, F_DUPFD_CLOEXEC, PASSED_ABOVE) : -1;
    close(from);
    if (fd < 0)
        return;
    struct passed_socket *socket = &out->sockets[out->count++];
    socket->fd = fd;
    socket->stored = address_part(name) != NULL;
    snprintf(socket->name, sizeof socket->name, "%s", name);
}

void passed_take(struct passed *out)
{
    char **names = NULL;
    int count = sd_listen_fds_with_names(1, &names);
    out->count = 0;
    close_range((unsigned)(SD_LISTEN_FDS_START + (count > 0 ? count : 0)), ~0u, 0);
    for (int i = 0; i < count; i++) {
        socket_add(out, SD_LISTEN_FDS_START + i, names && names[i] ? names[i] : "");
        if (names)
            free(names[i]);
    }
    free((void *)names);
}

int passed_take_stored(struct passed *passed, const char *address)
{
    char wanted[PASSED_NAME_MAX];
    address_encode(address, wanted, sizeof wanted);
    for (uint32_t i = 0; i < passed->count; i++) {
        struct passed_socket *socket = &passed->sockets[i];
        if (socket->fd < 0 || !socket->stored || strcmp(address_part(socket->name), wanted) != 0)
            continue;
        int fd = socket->fd;
        socket->fd = -1;
        return fd;
    }
    return -1;
}

int passed_take_activated(struct passed *passed)
{
    for (uint32_t i = 0; i < passed->count; i++) {
        struct passed_socket *socket = &passed->sockets[i];
        if (socket->fd < 0 || socket->stored)
            continue;
        int fd = socket->fd;
        socket->fd = -1;
        return fd;
    }
    return -1;
}

void passed_store(int fd, uint32_t place, const char *address)
{
    char encoded[PASSED_NAME_MAX - 32];
    char state[PASSED_NAME_MAX + 64];
    address_encode(address, encoded, sizeof encoded);
    /* FDPOLL=0: the store is to keep it whatever happens on it. */
    snprintf(state, sizeof state, "FDSTORE=1\nFDPOLL=0\nFDNAME=" STORED "%u/%s", place, encoded);
    sd_pid_notify_with_fds(0, 0, state, &fd, 1);
}

unsigned passed_drop_rest(struct passed *passed)
{
    unsigned dropped = 0;
    for (uint32_t i = 0; i < passed->count; i++) {
        struct passed_socket *socket = &passed->sockets[i];
        if (socket->fd < 0 || !socket->stored)
            continue;
        sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", socket->name);
        close(socket->fd);
        socket->fd = -1;
        dropped++;
    }
    return dropped;
}
