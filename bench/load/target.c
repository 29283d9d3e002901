#include "target.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int set_address(struct target *target, const char *host, uint16_t port)
{
    struct sockaddr_in *four = (struct sockaddr_in *)&target->address;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&target->address;
    if (strcmp(host, "localhost") == 0) {
        host = "127.0.0.1";
    }
    if (inet_pton(AF_INET, host, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(port);
        target->address_size = sizeof *four;
        return ntohl(four->sin_addr.s_addr) >> 24 == 127 ? 0 : -EACCES;
    }
    if (inet_pton(AF_INET6, host, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(port);
        target->address_size = sizeof *six;
        return IN6_IS_ADDR_LOOPBACK(&six->sin6_addr) ? 0 : -EACCES;
    }
    return -EINVAL;
}

static int parse_port(const char *text, uint16_t *out)
{
    char *end = NULL;
    unsigned long port = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || port == 0 || port > 65535) {
        return -EINVAL;
    }
    *out = (uint16_t)port;
    return 0;
}

int target_parse(const char *url, struct target *out)
{
    struct target target = {0};
    static const char scheme[] = "http://";
    if (strncmp(url, scheme, sizeof scheme - 1) != 0) {
        return -EINVAL;
    }
    const char *authority = url + sizeof scheme - 1;
    size_t size = strcspn(authority, "/");
    char host[sizeof target.host] = {0};
    const char *path = authority[size] == '/' ? authority + size : "/";
    if (size >= sizeof target.host || strlen(path) >= sizeof target.path ||
        strpbrk(path, " \t\r\n") != NULL) {
        return -EINVAL;
    }
    memcpy(target.host, authority, size);
    memcpy(host, authority, size);
    memcpy(target.path, path, strlen(path));
    char *colon = strrchr(host, ':');
    uint16_t port = 0;
    if (colon == NULL || parse_port(colon + 1, &port) != 0) {
        return -EINVAL;
    }
    *colon = '\0';
    char *name = host;
    if (host[0] == '[' && colon > host + 1 && colon[-1] == ']') {
        colon[-1] = '\0';
        name++;
    }
    int error = set_address(&target, name, port);
    if (error == 0) {
        *out = target;
    }
    return error;
}

int target_request_make(const struct target *target, const char *const *fields, size_t field_count,
                        const void *body, size_t body_size, struct target_request *out)
{
    char *bytes = NULL;
    size_t size = 0;
    for (size_t i = 0; i < field_count; i++) {
        if (strchr(fields[i], ':') == NULL || strpbrk(fields[i], "\r\n") != NULL) {
            return -EINVAL;
        }
    }
    FILE *stream = open_memstream(&bytes, &size);
    if (stream == NULL) {
        return -ENOMEM;
    }
    fprintf(stream, "%s %s HTTP/1.1\r\nHost: %s\r\n", body != NULL ? "POST" : "GET", target->path,
            target->host);
    for (size_t i = 0; i < field_count; i++) {
        fprintf(stream, "%s\r\n", fields[i]);
    }
    if (body != NULL) {
        fprintf(stream, "Content-Length: %zu\r\n", body_size);
    }
    fputs("\r\n", stream);
    if (body != NULL) {
        fwrite(body, 1, body_size, stream);
    }
    bool failed = ferror(stream) != 0;
    if (fclose(stream) != 0 || failed) {
        free(bytes);
        return -ENOMEM;
    }
    *out = (struct target_request){.bytes = bytes, .size = size};
    return 0;
}
