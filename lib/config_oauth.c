#include "lib/config_oauth.h"

#include "lib/config_keys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- URLs ---- */

static bool is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (strcmp(host, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* The host's text up to its port or path. NULL, or what follows it. */
static const char *host_read(const char *text, char host[CONFIG_URL_HOST_MAX])
{
    static const char of_names[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.";
    static const char of_v6[] = "0123456789abcdefABCDEF:.";
    struct in6_addr address;
    bool v6 = *text == '[';
    text += v6;
    size_t size = strspn(text, v6 ? of_v6 : of_names);
    if (size == 0 || size >= CONFIG_URL_HOST_MAX || (v6 && text[size] != ']'))
        return NULL;
    memcpy(host, text, size);
    host[size] = '\0';
    if (v6 && inet_pton(AF_INET6, host, &address) != 1)
        return NULL;
    return text + size + v6;
}

/* ":443", or nothing. NULL, or what follows it. */
static const char *port_read(const char *text, uint16_t *port)
{
    if (*text != ':')
        return text;
    size_t digits = strspn(text + 1, "0123456789");
    unsigned long number = digits > 0 && digits <= 5 ? strtoul(text + 1, NULL, 10) : 0;
    if (number == 0 || number > UINT16_MAX)
        return NULL;
    *port = (uint16_t)number;
    return text + 1 + digits;
}

/* Of what may stand in a path or a query as it is; a percent sign is somebody's own doing. */
static bool path_fits(const char *path)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                  "-._~/%!$&'()*+,:=@?";
    return (*path == '/' || *path == '\0') && path[strspn(path, allowed)] == '\0';
}

int config_url_read(const char *text, struct config_url *out)
{
    struct config_url url = {.tls = strncmp(text, "https://", 8) == 0};
    if (!url.tls && strncmp(text, "http://", 7) != 0)
        return -EINVAL;
    url.port = url.tls ? 443 : 80;
    const char *rest = host_read(text + (url.tls ? 8 : 7), url.host);
    rest = rest ? port_read(rest, &url.port) : NULL;
    if (!rest || !path_fits(rest) || (!url.tls && !is_loopback(url.host)))
        return -EINVAL;
    *out = url;
    return 0;
}

/* ---- words ---- */

bool config_words_fit(const char *text)
{
    for (size_t i = 0; text[i]; i++) {
        bool space = text[i] == ' ';
        if (text[i] < 0x20 || text[i] == 0x7f || text[i] == '"' || text[i] == '\\' ||
            (space && (i == 0 || text[i + 1] == ' ' || text[i + 1] == '\0')))
            return false;
    }
    return text[0] != '\0';
}

bool config_words_have(const char *words, const char *word, size_t size)
{
    while (*words) {
        size_t length = strcspn(words, " ");
        if (length == size && memcmp(words, word, size) == 0)
            return true;
        words += length + (words[length] == ' ');
    }
    return false;
}

bool config_words_have_all(const char *words, const char *wanted)
{
    while (*wanted) {
        size_t size = strcspn(wanted, " ");
        if (!config_words_have(words, wanted, size))
            return false;
        wanted += size + (wanted[size] == ' ');
    }
    return true;
}

/* ---- the whole ---- */

bool config_has_oauth(const struct config *config)
{
    return config->oauth.issuer[0] || config->oauth.introspection_url[0];
}

/* FNV-1a: to tell configurations apart, not to protect anything. */
uint64_t config_oauth_mark(const struct config *config)
{
    static char text[PATH_MAX + 16];
    const struct config_key *key;
    uint64_t mark = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; (key = config_key_at(false, i)); i++) {
        if (strncmp(key->name, "oauth_", 6) != 0)
            continue;
        config_key_write(key, config, text, sizeof text);
        for (size_t k = 0; k <= strlen(text); k++)
            mark = (mark ^ (unsigned char)text[k]) * UINT64_C(0x100000001b3);
    }
    return mark;
}

static int complain(char *text, size_t size, const char *key, const char *why, const char *allowed)
{
    snprintf(text, size, "[server]: key '%s': %s; allowed: %s", key, why, allowed);
    return -EINVAL;
}

static int scopes_validate(const struct config *config, char *text, size_t size)
{
    if (config_has_oauth(config))
        return 0;
    if (config->oauth.scope[0])
        return complain(text, size, "oauth_scope",
                        "without oauth_issuer or "
                        "oauth_introspection_url nobody has a scope",
                        "one of these with it");
    for (uint32_t i = 0; i < config->model_count; i++)
        if (config->models[i].scope[0]) {
            snprintf(text, size,
                     "[model %s]: key 'scope': without oauth_issuer or oauth_introspection_url "
                     "nobody has a scope; allowed: one of these with it",
                     config->models[i].name);
            return -EINVAL;
        }
    return 0;
}

int config_oauth_validate(const struct config *config, char *text, size_t size)
{
    const struct config_oauth *oauth = &config->oauth;
    bool asks = oauth->introspection_url[0];
    if (oauth->jwks_url[0] && !oauth->issuer[0])
        return complain(text, size, "oauth_issuer", "oauth_jwks_url needs it",
                        "the issuer that tokens name");
    if (oauth->issuer[0] && !oauth->audience[0])
        return complain(text, size, "oauth_audience",
                        "oauth_issuer needs it, or tokens for other services would do here",
                        "names of this service in tokens");
    if (oauth->audience[0] && !config_has_oauth(config))
        return complain(text, size, "oauth_audience", "nothing would use it",
                        "oauth_issuer or oauth_introspection_url with it");
    if (asks && (!oauth->client_id[0] || !oauth->client_secret_file[0]))
        return complain(
            text, size, oauth->client_id[0] ? "oauth_client_secret_file" : "oauth_client_id",
            "oauth_introspection_url needs it", "what the provider gave to this service");
    if (!asks && (oauth->client_id[0] || oauth->client_secret_file[0]))
        return complain(text, size, "oauth_introspection_url",
                        "nothing would use oauth_client_id and oauth_client_secret_file",
                        "a URL with them");
    return scopes_validate(config, text, size);
}
