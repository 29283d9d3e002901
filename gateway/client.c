#include "gateway/client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define ENTRY_MAX 64 /* [IPv6]:port takes at most 53 */

/* ---- making one ---- */

static struct client client_of_number(enum client_kind kind, uint32_t number)
{
    struct client client = {.kind = (unsigned char)kind};
    memcpy(client.bytes, &number, sizeof number);
    return client;
}

struct client client_of_key(const struct api_key *key)
{
    struct client client = {.kind = CLIENT_KEY};
    memcpy(client.bytes, key->holder, sizeof client.bytes);
    return client;
}

static struct client client_of_ipv4(const void *bytes)
{
    struct client client = {.kind = CLIENT_IPV4};
    memcpy(client.bytes, bytes, 4);
    return client;
}

/* An IPv4 address may come in IPv6's clothes (::ffff:192.0.2.1), from a socket that takes both. */
static struct client client_of_ipv6(const void *bytes)
{
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (memcmp(bytes, mapped, sizeof mapped) == 0)
        return client_of_ipv4((const unsigned char *)bytes + sizeof mapped);
    struct client client = {.kind = CLIENT_IPV6};
    memcpy(client.bytes, bytes, 16);
    return client;
}

static bool client_parse(const char *text, struct client *out)
{
    unsigned char bytes[16];
    if (inet_pton(AF_INET, text, bytes) == 1)
        *out = client_of_ipv4(bytes);
    else if (inet_pton(AF_INET6, text, bytes) == 1)
        *out = client_of_ipv6(bytes);
    else
        return false;
    return true;
}

struct client client_of_socket(int fd, const struct sockaddr *address)
{
    struct ucred user;
    socklen_t size = sizeof user;
    if (address->sa_family == AF_INET)
        return client_of_ipv4(&((const struct sockaddr_in *)(const void *)address)->sin_addr);
    if (address->sa_family == AF_INET6)
        return client_of_ipv6(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &user, &size) == 0)
        return client_of_number(CLIENT_USER, user.uid);
    return client_of_number(CLIENT_UNKNOWN, 0);
}

struct client client_of_peer_address(const char *text)
{
    struct client client;
    if (text && client_parse(text, &client))
        return client;
    if (text && text[0] == ':' && text[1] >= '0' && text[1] <= '9')
        return client_of_number(CLIENT_USER, (uint32_t)strtoul(text + 1, NULL, 10));
    return client_of_number(CLIENT_UNKNOWN, 0);
}

struct client client_block(const struct client *client)
{
    struct client block = *client;
    if (block.kind == CLIENT_IPV6)
        memset(block.bytes + 8, 0, 8);
    return block;
}

/* ---- whom to believe ---- */

/* "10.0.0.0/8", "::1" */
static bool network_read(const char *text, struct client *base, uint32_t *bits)
{
    char host[ENTRY_MAX];
    size_t size = strcspn(text, "/");
    if (size >= sizeof host)
        return false;
    memcpy(host, text, size);
    host[size] = '\0';
    if (!client_parse(host, base))
        return false;
    /* ::ffff:10.0.0.0/104 is 10.0.0.0/8. */
    unsigned long before = base->kind == CLIENT_IPV4 && strchr(host, ':') ? 96 : 0;
    unsigned long most = base->kind == CLIENT_IPV4 ? 32 : 128;
    unsigned long prefix = text[size] ? strtoul(text + size + 1, NULL, 10) : before + most;
    *bits = (uint32_t)(prefix - before);
    return prefix >= before && prefix - before <= most;
}

void trusted_read(const struct config *config, struct trusted *out)
{
    *out = (struct trusted){.local = false};
    for (uint32_t i = 0; i < config->trusted_proxy_count && i < CONFIG_MAX_PROXIES; i++) {
        const char *text = config->trusted_proxies[i];
        if (strcmp(text, "unix:") == 0)
            out->local = true;
        else if (network_read(text, &out->networks[out->count].base,
                              &out->networks[out->count].bits))
            out->count++;
    }
}

static bool same_bits(const unsigned char *a, const unsigned char *b, uint32_t bits)
{
    unsigned last = bits % 8;
    unsigned char mask = (unsigned char)(0xff00 >> last);
    return memcmp(a, b, bits / 8) == 0 && (last == 0 || ((a[bits / 8] ^ b[bits / 8]) & mask) == 0);
}

bool trusted_has(const struct trusted *trusted, const struct client *client)
{
    if (client->kind == CLIENT_USER)
        return trusted->local;
    for (uint32_t i = 0; i < trusted->count; i++)
        if (trusted->networks[i].base.kind == client->kind &&
            same_bits(trusted->networks[i].base.bytes, client->bytes, trusted->networks[i].bits))
            return true;
    return false;
}

/* ---- X-Forwarded-For ---- */

static bool is_port(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    return digits >= 1 && digits <= 5 && text[digits] == '\0';
}

/* An address with or without a port: a.b.c.d, a.b.c.d:port, v6, [v6], [v6]:port. */
static bool entry_parse(char *text, struct client *out)
{
    if (text[0] == '[') {
        char *end = strchr(text, ']');
        if (!end || (end[1] && (end[1] != ':' || !is_port(end + 2))))
            return false;
        *end = '\0';
        return client_parse(text + 1, out) && strchr(text + 1, ':');
    }
    char *colon = strchr(text, ':');
    if (colon && !strchr(colon + 1, ':')) {
        if (!is_port(colon + 1))
            return false;
        *colon = '\0';
    }
    return client_parse(text, out);
}

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\t';
}

/* The entry that ends before `end`; *start gets where it begins, white space around it is left off.
 * False: it is no address. */
static bool entry_read(const char *line, const char *end, const char **start, size_t *size,
                       struct client *out)
{
    const char *from = end;
    while (from > line && from[-1] != ',')
        from--;
    *start = from;
    while (from < end && is_space(*from))
        from++;
    while (end > from && is_space(end[-1]))
        end--;
    char text[ENTRY_MAX];
    *size = (size_t)(end - from);
    if (*size >= sizeof text)
        return false;
    memcpy(text, from, *size);
    text[*size] = '\0';
    return entry_parse(text, out);
}

struct client client_forwarded(const struct trusted *trusted, const struct client *peer,
                               const char *const *lines, size_t count)
{
    struct client known = *peer;
    for (size_t i = count; i-- > 0;) {
        const char *end = lines[i] + strlen(lines[i]);
        for (;;) {
            const char *start;
            size_t size;
            struct client named;
            if (!trusted_has(trusted, &known))
                return known;
            bool address = entry_read(lines[i], end, &start, &size, &named);
            if (address)
                known = named;
            else if (size > 0)
                return known;
            if (start == lines[i])
                break;
            end = start - 1;
        }
    }
    return known;
}
