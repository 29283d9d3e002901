#include "supervisor/listeners.h"

#include "lib/config_address.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define LISTEN_BACKLOG 4096

struct address {
    struct sockaddr_storage storage;
    socklen_t length;
};

static struct sockaddr *address_of(struct address *address)
{
    return (struct sockaddr *)&address->storage;
}

/* A bound socket that does not listen yet; negative errno. */
static int socket_bind(struct address *address, bool shared_port)
{
    int one = 1;
    int family = address->storage.ss_family;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (family != AF_UNIX &&
        (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) ||
         (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one)) ||
         (shared_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one))))
        goto fail;
    if (bind(fd, address_of(address), address->length))
        goto fail;
    return fd;
fail : {
    int error = -errno;
    close(fd);
    return error;
}
}

/* What the socket is bound to, for port 0. */
static int socket_name(int fd, struct address *address)
{
    address->length = sizeof address->storage;
    return getsockname(fd, address_of(address), &address->length) ? -errno : 0;
}

static int socket_listen(int fd)
{
    return listen(fd, LISTEN_BACKLOG) ? -errno : 0;
}

/* A socket for each gateway on one port. The first is tried without SO_REUSEPORT: with it, a second
 * unetserve would silently take half of another's connections. */
static int tcp_open(struct listeners *listeners, uint32_t number, struct address *address)
{
    int fd = socket_bind(address, false);
    if (fd < 0)
        return fd;
    int error = socket_name(fd, address);
    bool shared = listeners->gateways > 1;
    if (!error && !shared) {
        error = socket_listen(fd);
        listeners->fds[0][number] = fd;
        return error;
    }
    if (!error)
        error = socket_listen(fd);
    close(fd);
    for (uint32_t g = 0; !error && g < listeners->gateways; g++) {
        fd = socket_bind(address, true);
        if (fd < 0)
            return fd;
        listeners->fds[g][number] = fd;
        error = socket_listen(fd);
    }
    return error;
}

/* Remove a socket that nobody listens on any more. -EADDRINUSE if somebody does, -EEXIST if it is
 * something else. */
static int unix_clear(struct address *address)
{
    const char *path = ((struct sockaddr_un *)&address->storage)->sun_path;
    struct stat status;
    if (lstat(path, &status))
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(status.st_mode))
        return -EEXIST;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int error = connect(fd, address_of(address), address->length) ? -errno : 0;
    close(fd);
    if (error != -ECONNREFUSED)
        return error == 0 || error == -EAGAIN ? -EADDRINUSE : error;
    return unlink(path) ? -errno : 0;
}

static int unix_open(struct listeners *listeners, uint32_t number, struct address *address)
{
    int error = unix_clear(address);
    if (error)
        return error;
    mode_t before = umask(0117);
    int fd = socket_bind(address, false);
    umask(before);
    if (fd < 0)
        return fd;
    for (uint32_t g = 0; g < listeners->gateways; g++)
        listeners->fds[g][number] = fd;
    snprintf(listeners->unix_paths[number], sizeof listeners->unix_paths[number], "%s",
             ((struct sockaddr_un *)&address->storage)->sun_path);
    return socket_listen(fd);
}

static int address_open(struct config *config, struct listeners *listeners, uint32_t number,
                        char *error, size_t error_size)
{
    struct address address = {.length = sizeof address.storage};
    char *text = config->listen[number];
    int failed = config_address_parse(text, &address.storage, &address.length);
    if (!failed)
        failed = address.storage.ss_family == AF_UNIX ? unix_open(listeners, number, &address)
                                                      : tcp_open(listeners, number, &address);
    if (failed) {
        snprintf(error, error_size, "cannot listen on %s: %s", text,
                 failed == -EADDRINUSE ? "another program listens there"
                 : failed == -EEXIST   ? "something that is no socket is in the way"
                                       : strerror(-failed));
        return failed;
    }
    if (address.storage.ss_family != AF_UNIX)
        config_address_format(&address.storage, address.length, text, CONFIG_ADDRESS_MAX);
    return 0;
}

static int passed_take(struct config *config, struct listeners *listeners, int count, char *error,
                       size_t error_size)
{
    if (count > CONFIG_MAX_LISTEN) {
        snprintf(error, error_size, "%d sockets were passed; allowed: %d", count,
                 CONFIG_MAX_LISTEN);
        return -E2BIG;
    }
    listeners->passed = true;
    listeners->count = (uint32_t)count;
    config->listen_count = (uint32_t)count;
    for (int i = 0; i < count; i++) {
        struct address address;
        int fd = SD_LISTEN_FDS_START + i;
        if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0 || socket_name(fd, &address) ||
            config_address_format(&address.storage, address.length, config->listen[i],
                                  CONFIG_ADDRESS_MAX)) {
            snprintf(error, error_size, "the passed file descriptor %d is no listening socket", fd);
            return -ENOTSOCK;
        }
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        for (uint32_t g = 0; g < listeners->gateways; g++)
            listeners->fds[g][i] = fd;
    }
    return 0;
}

int listeners_open(struct config *config, struct listeners *out, char *error, size_t error_size)
{
    struct listeners listeners = {.gateways = config->gateways, .count = config->listen_count};
    memset(listeners.fds, -1, sizeof listeners.fds);
    int failed = 0;
    int passed = sd_listen_fds(1);
    if (passed > 0)
        failed = passed_take(config, &listeners, passed, error, error_size);
    for (uint32_t i = 0; passed <= 0 && !failed && i < listeners.count; i++)
        failed = address_open(config, &listeners, i, error, error_size);
    if (failed)
        listeners_close(&listeners);
    else
        *out = listeners;
    return failed;
}

void listeners_close(struct listeners *listeners)
{
    for (uint32_t i = 0; i < listeners->count; i++) {
        for (uint32_t g = 0; g < listeners->gateways; g++) {
            bool again = g > 0 && listeners->fds[g][i] == listeners->fds[0][i];
            if (listeners->fds[g][i] >= 0 && !again)
                close(listeners->fds[g][i]);
        }
        if (listeners->unix_paths[i][0])
            unlink(listeners->unix_paths[i]);
    }
    listeners->count = 0;
}
