/* X-Forwarded-For: the first line is the peer, the others are lines of the header. Whatever they
 * say, the result is the peer, or an address behind trusted proxies only; and what stands left of
 * an address that is not trusted changes nothing. */
#include "gateway/client.h"

#include <stdlib.h>
#include <string.h>

#define LINES_MAX 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static void check_one(const struct trusted *trusted, const char *const *lines, size_t count)
{
    struct client peer = client_of_peer_address(lines[0]);
    struct client found = client_forwarded(trusted, &peer, lines + 1, count - 1);
    bool moved = memcmp(&found, &peer, sizeof peer) != 0;
    check(!moved || trusted_has(trusted, &peer));
    check(!moved || found.kind == CLIENT_IPV4 || found.kind == CLIENT_IPV6);
    struct client block = client_block(&found);
    check(block.kind == found.kind);
    if (trusted_has(trusted, &found))
        return;
    const char *forged[LINES_MAX + 1] = {"10.1.1.1, 198.51.100.77"};
    memcpy(forged + 1, lines + 1, (count - 1) * sizeof *lines);
    struct client again = client_forwarded(trusted, &peer, forged, count);
    check(memcmp(&again, &found, sizeof found) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config config;
    static struct trusted trusted;
    if (config.gateways == 0) {
        struct config_error error;
        config_init(&config);
        check(config_set(&config, "server", "trusted_proxies",
                         "10.0.0.0/8, fd00::/7, ::1, 192.0.2.128/25, unix:", &error) == 0);
        trusted_read(&config, &trusted);
    }
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    const char *lines[LINES_MAX];
    size_t count = 0;
    for (char *at = text; at && count < LINES_MAX;) {
        lines[count++] = at;
        at = strchr(at, '\n');
        if (at)
            *at++ = '\0';
    }
    check_one(&trusted, lines, count);
    free(text);
    return 0;
}
