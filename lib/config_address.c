#include "lib/config_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define TLS_PREFIX "https://"

bool config_address_is_tls(const char *text)
{
    return strncmp(text, TLS_PREFIX, sizeof TLS_PREFIX - 1) == 0;
}

const char *config_address_bare(const char *text)
{
    return config_address_is_tls(text) ? text + sizeof TLS_PREFIX - 1 : text;
}

static int digits_parse(const char *text, unsigned long limit, unsigned long *out)
{
    if (!*text || strlen(text) > 5 || text[strspn(text, "0123456789")])
        return -EINVAL;
    unsigned long value = strtoul(text, NULL, 10);
    if (value > limit)
        return -EINVAL;
    *out = value;
    return 0;
}

static int unix_parse(const char *path, struct sockaddr_storage *out, socklen_t *length)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = strlen(path);
    if (path[0] != '/' || size >= sizeof address.sun_path)
        return -EINVAL;
    memcpy(address.sun_path, path, size + 1);
    memset(out, 0, sizeof *out);
    memcpy(out, &address, sizeof address);
    *length = (socklen_t)sizeof address;
    return 0;
}

static int ipv6_parse(const char *host, unsigned long port, struct sockaddr_storage *out,
                      socklen_t *length)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET6, host, &address.sin6_addr) != 1)
        return -EINVAL;
    memset(out, 0, sizeof *out);
    memcpy(out, &address, sizeof address);
    *length = (socklen_t)sizeof address;
    return 0;
}

static int ipv4_parse(const char *host, unsigned long port, struct sockaddr_storage *out,
                      socklen_t *length)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host,
                  &address.sin_addr) != 1)
        return -EINVAL;
    memset(out, 0, sizeof *out);
    memcpy(out, &address, sizeof address);
    *length = (socklen_t)sizeof address;
    return 0;
}

int config_address_parse(const char *text, struct sockaddr_storage *out, socklen_t *length)
{
    text = config_address_bare(text);
    if (strncmp(text, "unix:", 5) == 0)
        return unix_parse(text + 5, out, length);
    char host[INET6_ADDRSTRLEN + 3];
    const char *colon = strrchr(text, ':');
    unsigned long port;
    if (!colon || (size_t)(colon - text) >= sizeof host || digits_parse(colon + 1, 65535, &port))
        return -EINVAL;
    size_t size = (size_t)(colon - text);
    memcpy(host, text, size);
    host[size] = '\0';
    if (size > 2 && host[0] == '[' && host[size - 1] == ']') {
        host[size - 1] = '\0';
        return ipv6_parse(host + 1, port, out, length);
    }
    return ipv4_parse(host, port, out, length);
}

int config_address_format(const struct sockaddr_storage *address, socklen_t length, char *text,
                          size_t size)
{
    char host[INET6_ADDRSTRLEN] = "";
    int written;
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        written = snprintf(text, size, "%s:%u", host, (unsigned)ntohs(in->sin_port));
    } else if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        written = snprintf(text, size, "[%s]:%u", host, (unsigned)ntohs(in6->sin6_port));
    } else if (address->ss_family == AF_UNIX && length > offsetof(struct sockaddr_un, sun_path)) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)address;
        written = snprintf(text, size, "unix:%.*s", (int)sizeof un->sun_path, un->sun_path);
    } else {
        return -EAFNOSUPPORT;
    }
    return written >= 0 && (size_t)written < size ? 0 : -ENOSPC;
}

int config_network_check(const char *text)
{
    char host[INET6_ADDRSTRLEN];
    unsigned char bytes[16];
    if (strcmp(text, "unix:") == 0)
        return 0;
    size_t size = strcspn(text, "/");
    if (size >= sizeof host)
        return -EINVAL;
    memcpy(host, text, size);
    host[size] = '\0';
    unsigned long most;
    if (inet_pton(AF_INET, host, bytes) == 1)
        most = 32;
    else if (inet_pton(AF_INET6, host, bytes) == 1)
        most = 128;
    else
        return -EINVAL;
    unsigned long prefix;
    return text[size] ? digits_parse(text + size + 1, most, &prefix) : 0;
}
