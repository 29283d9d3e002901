#include "supervisor/probe.h"

#include "lib/config_address.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sysexits.h>
#include <unistd.h>

#define PROBE_TIMEOUT_S  3 /* for each of connecting, sending, and every piece of the answer */
#define PROBE_ANSWER_MAX 4096

static int probe_connect(const struct sockaddr_storage *address, socklen_t length)
{
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    const struct timeval limit = {.tv_sec = PROBE_TIMEOUT_S};
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) ||
        connect(fd, (const struct sockaddr *)address, length)) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

/* The answer, ended by a zero byte. 0, or a negative errno. */
static int probe_ask(int fd, char answer[PROBE_ANSWER_MAX])
{
    static const char question[] =
        "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    size_t size = 0;
    if (send(fd, question, sizeof question - 1, MSG_NOSIGNAL) != (ssize_t)sizeof question - 1)
        return errno ? -errno : -EPIPE;
    while (size < PROBE_ANSWER_MAX - 1) {
        ssize_t got = recv(fd, answer + size, PROBE_ANSWER_MAX - 1 - size, 0);
        if (got < 0)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        if (got == 0)
            break;
        size += (size_t)got;
    }
    answer[size] = '\0';
    return 0;
}

int probe_health(const char *address)
{
    struct sockaddr_storage to;
    socklen_t length;
    char answer[PROBE_ANSWER_MAX];
    if (config_address_parse(address, &to, &length)) {
        fprintf(stderr,
                "unetserve: --probe: '%.200s': expected an address such as 127.0.0.1:8000 or "
                "unix:/path\n",
                address);
        return EX_USAGE;
    }
    int fd = probe_connect(&to, length);
    int error = fd < 0 ? fd : probe_ask(fd, answer);
    if (fd >= 0)
        close(fd);
    if (error) {
        fprintf(stderr, "unetserve: no answer at %.200s: %s\n", address, strerror(-error));
        return EX_UNAVAILABLE;
    }
    int status = 0;
    const char *body = strstr(answer, "\r\n\r\n");
    if (sscanf(answer, "HTTP/1.%*1[01] %3d ", &status) != 1 || !body) {
        fprintf(stderr, "unetserve: what answers at %.200s does not speak HTTP/1.1\n", address);
        return EX_UNAVAILABLE;
    }
    printf("%.200s\n", body + 4);
    return status == 200 ? 0 : EX_UNAVAILABLE;
}
