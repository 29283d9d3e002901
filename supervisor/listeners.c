#include "supervisor/listeners.h"

#include "lib/config_address.h"
#include "unetserve/log.h"

#include <assert.h>
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

/* A socket for each gateway on one port. The first listens without SO_REUSEPORT: with it, a second
 * unetserve would silently take half of another's connections. Then it lets the others join it, so
 * that the port is never free in between. */
static int tcp_open(struct listeners *listeners, uint32_t number, struct address *address)
{
    int one = 1;
    int fd = socket_bind(address, false);
    if (fd < 0)
        return fd;
    listeners->fds[0][number] = fd;
    int error = socket_name(fd, address);
    if (!error)
        error = socket_listen(fd);
    if (!error && listeners->gateways > 1 &&
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one))
        error = -errno;
    for (uint32_t g = 1; !error && g < listeners->gateways; g++) {
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

/* ---- sockets that an earlier life of this service left in the fd store ---- */

/* Does it still listen for that address, where clients can find it? */
static bool stored_is_sound(int fd, const struct address *address)
{
    struct stat status;
    if (sd_is_socket(fd, address->storage.ss_family, SOCK_STREAM, 1) <= 0)
        return false;
    const char *path = ((const struct sockaddr_un *)&address->storage)->sun_path;
    return address->storage.ss_family != AF_UNIX ||
           (lstat(path, &status) == 0 && S_ISSOCK(status.st_mode));
}

/* More sockets than gateways: somebody may wait in the backlog of each, so none is closed, and they
 * are dealt out. */
static void extra_add(struct listeners *listeners, uint32_t number, int fd)
{
    assert(listeners->gateways > 0);
    if (listeners->extra_count == LISTENERS_MAX_EXTRA) {
        close(fd); /* sixty-four gateways fewer in one restart */
        return;
    }
    uint32_t gateway = listeners->extra_count % listeners->gateways;
    listeners->extras[listeners->extra_count++] = (struct listeners_extra){fd, gateway, number};
}

/* Fewer sockets than gateways: new ones join them. Where that does not work, sockets are shared. */
static void stored_complete(struct listeners *listeners, uint32_t number, uint32_t count,
                            bool is_unix)
{
    int one = 1;
    struct address address;
    bool joins = !is_unix && count < listeners->gateways &&
                 socket_name(listeners->fds[0][number], &address) == 0;
    for (uint32_t g = 0; joins && g < count; g++)
        joins = setsockopt(listeners->fds[g][number], SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) ==
                0;
    for (uint32_t g = count; g < listeners->gateways; g++) {
        int fd = joins ? socket_bind(&address, true) : -1;
        if (fd >= 0 && socket_listen(fd)) {
            close(fd);
            fd = -1;
        }
        listeners->fds[g][number] = fd >= 0 ? fd : listeners->fds[g % count][number];
    }
}

/* Take back what was stored for that address. False: nothing was. */
static bool stored_open(struct listeners *listeners, struct passed *passed, uint32_t number,
                        const char *text, struct address *address)
{
    uint32_t count = 0;
    int fd;
    while ((fd = passed_take_stored(passed, text)) >= 0) {
        if (!stored_is_sound(fd, address)) {
            close(fd);
            continue;
        }
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        if (count < listeners->gateways)
            listeners->fds[count++][number] = fd;
        else
            extra_add(listeners, number, fd);
    }
    if (count == 0)
        return false;
    bool is_unix = address->storage.ss_family == AF_UNIX;
    stored_complete(listeners, number, count, is_unix);
    if (is_unix)
        snprintf(listeners->unix_paths[number], sizeof listeners->unix_paths[number], "%s",
                 ((struct sockaddr_un *)&address->storage)->sun_path);
    else
        socket_name(listeners->fds[0][number], address);
    listeners->taken_back += count;
    return true;
}

/* Leave all of them to the next life, under the addresses as they were asked for. */
static void store_all(const struct listeners *listeners)
{
    uint32_t place = 0;
    for (uint32_t i = 0; i < listeners->count; i++)
        for (uint32_t g = 0; g < listeners->gateways; g++)
            passed_store(listeners->fds[g][i], place++, listeners->asked[i]);
    for (uint32_t i = 0; i < listeners->extra_count; i++)
        passed_store(listeners->extras[i].fd, place++,
                     listeners->asked[listeners->extras[i].number]);
}

static int address_open(struct config *config, struct listeners *listeners, struct passed *passed,
                        uint32_t number, char *error, size_t error_size)
{
    struct address address = {.length = sizeof address.storage};
    char *text = config->listen[number];
    snprintf(listeners->asked[number], CONFIG_ADDRESS_MAX, "%s", text);
    int failed = config_address_parse(text, &address.storage, &address.length);
    if (!failed && !stored_open(listeners, passed, number, text, &address))
        failed = address.storage.ss_family == AF_UNIX ? unix_open(listeners, number, &address)
                                                      : tcp_open(listeners, number, &address);
    if (failed) {
        snprintf(error, error_size, "cannot listen on %s: %s", text,
                 failed == -EADDRINUSE ? "another program listens there"
                 : failed == -EEXIST   ? "something that is no socket is in the way"
                                       : strerror(-failed));
        return failed;
    }
    if (address.storage.ss_family != AF_UNIX) {
        size_t prefix = (size_t)(config_address_bare(text) - text);
        config_address_format(&address.storage, address.length, text + prefix,
                              CONFIG_ADDRESS_MAX - prefix);
    }
    return 0;
}

/* An activated socket speaks TLS if the configuration names its address so. */
static void activated_name(const struct config *asked, char *text)
{
    for (uint32_t i = 0; i < asked->listen_count; i++)
        if (config_address_is_tls(asked->listen[i]) &&
            strcmp(config_address_bare(asked->listen[i]), text) == 0) {
            memcpy(text, asked->listen[i], CONFIG_ADDRESS_MAX);
            return;
        }
}

static int activated_take(const struct config *asked, struct config *config,
                          struct listeners *listeners, int fd, char *error, size_t error_size)
{
    uint32_t number = listeners->count;
    struct address address;
    if (number == CONFIG_MAX_LISTEN) {
        close(fd);
        snprintf(error, error_size, "more sockets were passed than are allowed: %d",
                 CONFIG_MAX_LISTEN);
        return -E2BIG;
    }
    if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0 || socket_name(fd, &address) ||
        config_address_format(&address.storage, address.length, config->listen[number],
                              CONFIG_ADDRESS_MAX)) {
        close(fd);
        snprintf(error, error_size, "passed file descriptor %u is no listening socket", number);
        return -ENOTSOCK;
    }
    activated_name(asked, config->listen[number]);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    for (uint32_t g = 0; g < listeners->gateways; g++)
        listeners->fds[g][number] = fd;
    listeners->passed = true;
    config->listen_count = ++listeners->count;
    return 0;
}

int listeners_open(struct config *config, struct passed *passed, struct listeners *out, char *error,
                   size_t error_size)
{
    static struct listeners listeners;
    static struct config asked;
    asked = *config;
    listeners = (struct listeners){.gateways = config->gateways};
    memset(listeners.fds, -1, sizeof listeners.fds);
    int failed = 0;
    int fd;
    while (!failed && (fd = passed_take_activated(passed)) >= 0)
        failed = activated_take(&asked, config, &listeners, fd, error, error_size);
    if (!listeners.passed)
        listeners.count = config->listen_count;
    for (uint32_t i = 0; !listeners.passed && !failed && i < listeners.count; i++)
        failed = address_open(config, &listeners, passed, i, error, error_size);
    if (failed) {
        listeners_close(&listeners);
        return failed;
    }
    unsigned dropped = passed_drop_rest(passed);
    if (!listeners.passed)
        store_all(&listeners);
    if (listeners.taken_back || dropped)
        log_event(LOG_LEVEL_INFO, "listening sockets taken back",
                  log_number("taken", listeners.taken_back + listeners.extra_count),
                  log_number("no_longer_named", dropped));
    *out = listeners;
    return 0;
}

void listeners_close(struct listeners *listeners)
{
    for (uint32_t i = 0; i < listeners->count; i++) {
        for (uint32_t g = 0; g < listeners->gateways; g++) {
            bool again = false;
            for (uint32_t before = 0; before < g; before++)
                again = again || listeners->fds[before][i] == listeners->fds[g][i];
            if (listeners->fds[g][i] >= 0 && !again)
                close(listeners->fds[g][i]);
        }
        if (listeners->unix_paths[i][0])
            unlink(listeners->unix_paths[i]);
    }
    for (uint32_t i = 0; i < listeners->extra_count; i++)
        close(listeners->extras[i].fd);
    listeners->count = listeners->extra_count = 0;
}
