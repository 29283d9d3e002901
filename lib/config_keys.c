#include "lib/config_keys.h"

#include "lib/config_address.h"
#include "lib/config_oauth.h"
#include "unetserve/config.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVER(field) offsetof(struct config, field), sizeof(((struct config *)0)->field)
#define MODEL(field)  offsetof(struct config_model, field), sizeof(((struct config_model *)0)->field)
#define DAY_MS        (UINT64_C(24) * 3600 * 1000)
#define TERABYTE      (UINT64_C(1) << 40)

#define URL_ALLOWED                                                                                \
    "a URL such as https://id.example.org/realms/maps, http:// only of this machine, at most 511 " \
    "bytes"

static const struct config_key server_keys[] = {
    {"listen", CONFIG_ADDRESSES, SERVER(listen), 1, CONFIG_MAX_LISTEN,
     "up to 8 of ADDRESS:PORT, [IPV6]:PORT or unix:/PATH, with https:// before it for TLS, "
     "separated by commas"},
    {"gateways", CONFIG_NUMBER, SERVER(gateways), 1, 64, "1 to 64"},
    {"max_body_bytes", CONFIG_BYTES, SERVER(max_body_bytes), 1024, TERABYTE,
     "1K to 1T, a number with K, M, G or T"},
    {"queue_memory", CONFIG_BYTES, SERVER(queue_memory), 0, TERABYTE,
     "0 (choose) to 1T, a number with K, M, G or T"},
    {"trusted_proxies", CONFIG_NETWORKS, SERVER(trusted_proxies), 0, CONFIG_MAX_PROXIES,
     "up to 32 networks such as 10.0.0.0/8, or unix:, separated by commas"},
    {"rate_limit", CONFIG_DECIMAL, SERVER(rate_limit_milli), 0, 10000000,
     "0 (no limit) to 10000 requests a second, with up to three decimals"},
    {"rate_burst", CONFIG_NUMBER, SERVER(rate_burst), 0, 1000000,
     "1 to 1000000, or 0 for one second's worth"},
    {"run_dir", CONFIG_ABSOLUTE, SERVER(run_dir), 0, 0, "an absolute path of at most 75 bytes"},
    {"cache_dir", CONFIG_ABSOLUTE, SERVER(cache_dir), 0, 0, "an absolute path"},
    {"api_key_file", CONFIG_ABSOLUTE, SERVER(api_key_file), 0, 0, "an absolute path"},
    {"tls_certificate", CONFIG_ABSOLUTE, SERVER(tls_certificate), 0, 0, "an absolute path"},
    {"tls_key", CONFIG_ABSOLUTE, SERVER(tls_key), 0, 0, "an absolute path"},
    {"tls_client_ca", CONFIG_ABSOLUTE, SERVER(tls_client_ca), 0, 0, "an absolute path"},
    {"max_connections_per_address", CONFIG_NUMBER, SERVER(max_connections_per_address), 0, 1000000,
     "1 to 1000000, or 0 for any number"},
    {"max_receiving_percent", CONFIG_NUMBER, SERVER(max_receiving_percent), 1, 100, "1 to 100"},
    {"cors_allow_origins", CONFIG_ORIGINS, SERVER(cors.allow_origins), 0, 0,
     "* or origins such as https://maps.example.org, in lower case and without a path, separated "
     "by "
     "commas, at most 1023 bytes"},
    {"cors_allow_methods", CONFIG_NAMES, SERVER(cors.allow_methods), 0, 0,
     "* or methods such as POST, separated by commas, at most 255 bytes"},
    {"cors_allow_headers", CONFIG_NAMES, SERVER(cors.allow_headers), 0, 0,
     "* or names of headers, separated by commas, at most 511 bytes"},
    {"cors_expose_headers", CONFIG_NAMES, SERVER(cors.expose_headers), 0, 0,
     "* or names of headers, separated by commas, at most 511 bytes"},
    {"cors_allow_credentials", CONFIG_CHOICE, SERVER(cors.allow_credentials), 0, 0, "on|off"},
    {"cors_max_age", CONFIG_NUMBER, SERVER(cors.max_age), 0, 86400, "0 to 86400 seconds"},
    {"gzip_level", CONFIG_NUMBER, SERVER(gzip_level), 0, 9, "1 to 9, or 0 for no gzip"},
    {"zstd_level", CONFIG_NUMBER, SERVER(zstd_level), 0, 9, "1 to 9, or 0 for no zstd"},
    {"compress_min_bytes", CONFIG_NUMBER, SERVER(compress_min_bytes), 0, 1u << 30,
     "0 to 1073741824"},
    {"oauth_issuer", CONFIG_URL, SERVER(oauth.issuer), 0, 0, URL_ALLOWED},
    {"oauth_audience", CONFIG_WORDS, SERVER(oauth.audience), 0, 0,
     "words separated by single spaces, at most 511 bytes"},
    {"oauth_jwks_url", CONFIG_URL, SERVER(oauth.jwks_url), 0, 0, URL_ALLOWED},
    {"oauth_algorithms", CONFIG_SIGNING, SERVER(oauth.algorithms), 0, 0,
     "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, separated by commas"},
    {"oauth_introspection_url", CONFIG_URL, SERVER(oauth.introspection_url), 0, 0, URL_ALLOWED},
    {"oauth_client_id", CONFIG_TEXT, SERVER(oauth.client_id), 0, 0, "at most 255 bytes"},
    {"oauth_client_secret_file", CONFIG_ABSOLUTE, SERVER(oauth.client_secret_file), 0, 0,
     "an absolute path"},
    {"oauth_ca_file", CONFIG_ABSOLUTE, SERVER(oauth.ca_file), 0, 0, "an absolute path"},
    {"oauth_scope", CONFIG_WORDS, SERVER(oauth.scope), 0, 0,
     "words separated by single spaces, at most 511 bytes"},
    {"oauth_leeway_s", CONFIG_NUMBER, SERVER(oauth.leeway_s), 0, 300, "0 to 300"},
    {"oauth_cache_s", CONFIG_NUMBER, SERVER(oauth.cache_s), 0, 3600, "0 to 3600"},
    {"oauth_refresh_s", CONFIG_NUMBER, SERVER(oauth.refresh_s), 1, 86400, "1 to 86400"},
    {"oauth_refetch_s", CONFIG_NUMBER, SERVER(oauth.refetch_s), 1, 3600, "1 to 3600"},
    {"oauth_keep_s", CONFIG_NUMBER, SERVER(oauth.keep_s), 0, 604800, "0 to 604800"},
    {"oauth_grace_s", CONFIG_NUMBER, SERVER(oauth.grace_s), 0, 86400, "0 to 86400"},
    {"oauth_timeout_ms", CONFIG_NUMBER, SERVER(oauth.timeout_ms), 100, 60000, "100 to 60000"},
    {"drain_timeout_ms", CONFIG_NUMBER, SERVER(drain_timeout_ms), 0, DAY_MS, "0 to 86400000"},
    {"drain_delay_ms", CONFIG_NUMBER, SERVER(drain_delay_ms), 0, DAY_MS, "0 to 86400000"},
    {"send_timeout_ms", CONFIG_NUMBER, SERVER(send_timeout_ms), 1000, DAY_MS, "1000 to 86400000"},
    {"header_timeout_ms", CONFIG_NUMBER, SERVER(header_timeout_ms), 10, DAY_MS, "10 to 86400000"},
    {"max_connections", CONFIG_NUMBER, SERVER(max_connections), 1, 1000000, "1 to 1000000"},
    {"sandbox", CONFIG_CHOICE, SERVER(sandbox), 0, 0, "auto|on|off"},
    {"docs", CONFIG_CHOICE, SERVER(docs), 0, 0, "on|off"},
    {"log_format", CONFIG_WORD, SERVER(log_format), 0, 0, "text|json"},
    {"log_level", CONFIG_WORD, SERVER(log_level), 0, 0, "error|warning|info|debug"},
};

static const struct config_key model_keys[] = {
    {"path", CONFIG_TEXT, MODEL(path), 0, 0, "a file or a directory"},
    {"python", CONFIG_ABSOLUTE, MODEL(python), 0, 0, "an absolute path"},
    {"route", CONFIG_ROUTE, MODEL(route), 0, 0,
     "a path such as /predict, of letters, digits, '/', '-', '_', '.' and '~'"},
    {"devices", CONFIG_DEVICES, MODEL(devices), 0, 0,
     "auto, cpu, cuda, a number of GPUs, or GPUs such as 0,2 or cuda:1 or GPU-UUID"},
    {"precision", CONFIG_CHOICE, MODEL(precision), 0, 0, "auto|f32|bf16|f16|int8"},
    {"convolution", CONFIG_CHOICE, MODEL(convolution), 0, 0, "auto|direct|winograd"},
    {"backend", CONFIG_CHOICE, MODEL(backend), 0, 0, "auto|reference|onednn|amx|cudnn"},
    {"engine_timing", CONFIG_CHOICE, MODEL(engine_timing), 0, 0, "on|off"},
    {"workers_per_device", CONFIG_NUMBER, MODEL(workers_per_device), 1, 64, "1 to 64"},
    {"workers", CONFIG_RANGE, MODEL(workers_min), 1, 96, "N or MIN-MAX, 1 to 96"},
    {"scale_wait_ms", CONFIG_NUMBER, MODEL(scale_wait_ms), 10, DAY_MS, "10 to 86400000"},
    {"scale_down_after_ms", CONFIG_NUMBER, MODEL(scale_down_after_ms), 0, DAY_MS, "0 to 86400000"},
    {"threads", CONFIG_NUMBER, MODEL(threads), 0, 1024,
     "1 to 1024, or 0 for the allowed cores divided by the workers"},
    {"max_batch_size", CONFIG_AUTO, MODEL(max_batch_size), 0, 1024,
     "1 to 1024, or auto (or 0) for the model's own choice"},
    {"batch_timeout_ms", CONFIG_DECIMAL, MODEL(batch_timeout_us), 0, 60000000,
     "0 to 60000 milliseconds, with up to three decimals"},
    {"batch_wait", CONFIG_CHOICE, MODEL(batch_wait), 0, 0, "receiving|always"},
    {"timeout_ms", CONFIG_NUMBER, MODEL(timeout_ms), 1, DAY_MS, "1 to 86400000"},
    {"run_timeout_ms", CONFIG_NUMBER, MODEL(run_timeout_ms), 1, DAY_MS, "1 to 86400000"},
    {"tile", CONFIG_NUMBER, MODEL(tile), 0, 65536, "1 to 65536, or 0 for the model's own"},
    {"max_response_bytes", CONFIG_BYTES, MODEL(max_response_bytes), 0, UINT64_C(1) << 30,
     "0 (64K) to 1G, a number with K, M or G"},
    {"sandbox", CONFIG_CHOICE, MODEL(sandbox), 0, 0, "server|auto|on|files|off"},
    {"sandbox_paths", CONFIG_ABSOLUTE, MODEL(sandbox_paths), 0, 0,
     "absolute paths with ':' between them"},
    {"scope", CONFIG_WORDS, MODEL(scope), 0, 0,
     "words separated by single spaces, at most 255 bytes"},
};

/* The parser notes in 64 bits which ones it has seen. */
_Static_assert(sizeof server_keys / sizeof server_keys[0] <= 64 &&
                   sizeof model_keys / sizeof model_keys[0] <= 64,
               "there is a bit for every key");

static const struct {
    const char *key, *word;
    int number;
} words[] = {
    {"log_format", "text", LOG_FORMAT_TEXT}, {"log_format", "json", LOG_FORMAT_JSON},
    {"log_level", "error", LOG_LEVEL_ERROR}, {"log_level", "warning", LOG_LEVEL_WARNING},
    {"log_level", "info", LOG_LEVEL_INFO},   {"log_level", "debug", LOG_LEVEL_DEBUG},
};

/* Ranges are two numbers side by side. */
_Static_assert(offsetof(struct config_model, workers_max) ==
                   offsetof(struct config_model, workers_min) + sizeof(uint32_t),
               "workers_min and workers_max are neighbours");
_Static_assert(sizeof(enum log_format) == sizeof(int) && sizeof(enum log_level) == sizeof(int),
               "enums are stored as int");

const struct config_key *config_key_at(bool of_model, size_t n)
{
    if (of_model)
        return n < sizeof model_keys / sizeof model_keys[0] ? &model_keys[n] : NULL;
    return n < sizeof server_keys / sizeof server_keys[0] ? &server_keys[n] : NULL;
}

const struct config_key *config_key_find(bool of_model, const char *name)
{
    const struct config_key *key;
    for (size_t i = 0; (key = config_key_at(of_model, i)); i++)
        if (strcmp(key->name, name) == 0)
            return key;
    return NULL;
}

size_t config_key_number(bool of_model, const struct config_key *key)
{
    return (size_t)(key - (of_model ? model_keys : server_keys));
}

/* ---- reading ---- */

/* Digits only: no sign, no space, no base prefix. */
static int number_read(const char *text, size_t length, uint64_t *out)
{
    uint64_t value = 0;
    if (length == 0 || length > 15)
        return -EINVAL;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -EINVAL;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    *out = value;
    return 0;
}

static int bounded_read(const struct config_key *key, const char *text, size_t length,
                        uint64_t *out)
{
    uint64_t value;
    if (number_read(text, length, &value) || value < key->least || value > key->most)
        return -EINVAL;
    *out = value;
    return 0;
}

static int bytes_read(const struct config_key *key, const char *value, uint64_t *out)
{
    static const char units[] = "KMGT";
    size_t digits = strspn(value, "0123456789");
    unsigned shift = 0;
    if (value[digits]) {
        const char *unit = strchr(units, value[digits]);
        if (!unit || value[digits + 1])
            return -EINVAL;
        shift = 10 * (unsigned)(unit - units + 1);
    }
    uint64_t number;
    if (number_read(value, digits, &number) || number > UINT64_MAX >> shift)
        return -EINVAL;
    number <<= shift;
    if (number < key->least || number > key->most)
        return -EINVAL;
    *out = number;
    return 0;
}

/* "2.5" is 2500. */
static int decimal_read(const struct config_key *key, const char *value, uint32_t *out)
{
    size_t digits = strspn(value, "0123456789");
    uint64_t whole;
    uint64_t rest = 0;
    if (number_read(value, digits, &whole) || whole > UINT32_MAX)
        return -EINVAL;
    if (value[digits]) {
        const char *decimals = value + digits + 1;
        size_t count = strlen(decimals);
        if (value[digits] != '.' || count > 3 || number_read(decimals, count, &rest))
            return -EINVAL;
        for (; count < 3; count++)
            rest *= 10;
    }
    uint64_t number = whole * 1000 + rest;
    if (number < key->least || number > key->most)
        return -EINVAL;
    *out = (uint32_t)number;
    return 0;
}

static int range_read(const struct config_key *key, const char *value, uint32_t *pair)
{
    uint64_t from;
    uint64_t to;
    size_t dash = strcspn(value, "-");
    if (bounded_read(key, value, dash, &from))
        return -EINVAL;
    to = from;
    if (value[dash] && bounded_read(key, value + dash + 1, strlen(value + dash + 1), &to))
        return -EINVAL;
    if (from > to)
        return -EINVAL;
    pair[0] = (uint32_t)from;
    pair[1] = (uint32_t)to;
    return 0;
}

static int text_read(const struct config_key *key, char *field, const char *value)
{
    size_t length = strlen(value);
    if (length >= key->size)
        return -EINVAL;
    memcpy(field, value, length + 1);
    return 0;
}

/* Is value one of the words in "a|b|c"? */
static bool choice_has(const char *choices, const char *value)
{
    size_t length = strlen(value);
    while (length > 0) {
        size_t word = strcspn(choices, "|");
        if (word == length && strncmp(choices, value, word) == 0)
            return true;
        if (!choices[word])
            return false;
        choices += word + 1;
    }
    return false;
}

static bool route_fits(const char *value)
{
    return value[0] == '/' && !strstr(value, "//") &&
           value[strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                               "/-_.~")] == '\0';
}

/* Words separated by commas, each of which fits; an empty list does not. */
static bool words_fit(const char *value, bool (*fits)(const char *word, size_t size))
{
    for (;;) {
        value += strspn(value, " ");
        size_t size = strcspn(value, ", ");
        if (size == 0 || !fits(value, size))
            return false;
        value += size + strspn(value + size, " ");
        if (!*value)
            return true;
        if (*value++ != ',')
            return false;
    }
}

static bool has_only(const char *word, size_t size, const char *allowed)
{
    for (size_t i = 0; i < size; i++)
        if (!word[i] || !strchr(allowed, word[i]))
            return false;
    return true;
}

/* A GPU by its number, an instance of one by two, "cuda:" and such, or either's UUID. */
static bool device_fits(const char *word, size_t size)
{
    bool named = size > 4 && (strncmp(word, "GPU-", 4) == 0 || strncmp(word, "MIG-", 4) == 0);
    if (named)
        return has_only(word, size,
                        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-/");
    if (size > 5 && strncmp(word, "cuda:", 5) == 0) {
        word += 5;
        size -= 5;
    }
    return size < 10 && has_only(word, size, "0123456789:") && word[0] != ':' &&
           word[size - 1] != ':';
}

static bool devices_fit(const char *value)
{
    if (choice_has("auto|cpu|cuda", value))
        return true;
    return words_fit(value, device_fits);
}

/* A name as HTTP has them, which "*" is, too. */
static bool name_fits(const char *word, size_t size)
{
    return has_only(word, size,
                    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                    "!#$%&'*+-.^_`|~");
}

/* As browsers write them: "scheme://host" or "scheme://host:port"; "null" is a page without one. */
static bool origin_fits(const char *word, size_t size)
{
    static const char of_scheme[] = "abcdefghijklmnopqrstuvwxyz0123456789+-.";
    static const char of_host[] = "abcdefghijklmnopqrstuvwxyz0123456789-._:[]";
    if ((size == 1 && *word == '*') || (size == 4 && memcmp(word, "null", 4) == 0))
        return true;
    size_t scheme = strspn(word, of_scheme);
    return scheme > 0 && scheme + 3 < size && memcmp(word + scheme, "://", 3) == 0 &&
           has_only(word + scheme + 3, size - scheme - 3, of_host);
}

static bool algorithm_fits(const char *word, size_t size)
{
    static const char families[] = "RPE";
    static const char sizes[] = "256384512";
    const char *hash = size == 5 && word[0] && strchr(families, word[0]) && word[1] == 'S'
                           ? strstr(sizes, (char[]){word[2], word[3], word[4], '\0'})
                           : NULL;
    return hash && (hash - sizes) % 3 == 0;
}

static int url_read(const struct config_key *key, char *field, const char *value)
{
    struct config_url url;
    return config_url_read(value, &url) ? -EINVAL : text_read(key, field, value);
}

static int word_read(const struct config_key *key, int *field, const char *value)
{
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i].key, key->name) == 0 && strcmp(words[i].word, value) == 0) {
            *field = words[i].number;
            return 0;
        }
    return -EINVAL;
}

/* One entry of a list, in the one spelling that is kept. */
static int entry_read(const struct config_key *key, const char *text, char *out, size_t size)
{
    if (key->kind == CONFIG_NETWORKS) {
        size_t length = strlen(text);
        if (config_network_check(text) || length >= size)
            return -EINVAL;
        memcpy(out, text, length + 1);
        return 0;
    }
    struct sockaddr_storage address;
    socklen_t length;
    if (config_address_parse(text, &address, &length))
        return -EINVAL;
    size_t prefix = (size_t)(config_address_bare(text) - text);
    memcpy(out, text, prefix);
    return config_address_format(&address, length, out + prefix, size - prefix) ? -EINVAL : 0;
}

static int list_read(const struct config_key *key, char *entries, size_t entry_size,
                     uint32_t *count, const char *value, bool append)
{
    char fresh[CONFIG_MAX_PROXIES][CONFIG_ADDRESS_MAX] = {""};
    _Static_assert(CONFIG_MAX_PROXIES >= CONFIG_MAX_LISTEN, "the longer of the lists");
    uint32_t had = append ? *count : 0;
    uint32_t got = 0;
    int error = 0;
    while (!error) {
        value += strspn(value, " \t,");
        size_t length = strcspn(value, " \t,");
        if (length == 0)
            break;
        char text[CONFIG_ADDRESS_MAX];
        if (length >= sizeof text || had + got >= key->most) {
            error = -EINVAL;
            break;
        }
        memcpy(text, value, length);
        text[length] = '\0';
        error = entry_read(key, text, fresh[got++], entry_size);
        value += length;
    }
    if (!error && had + got < key->least)
        error = -EINVAL;
    for (uint32_t i = 0; !error && i < got; i++)
        memcpy(entries + (had + i) * entry_size, fresh[i], entry_size);
    if (!error)
        *count = had + got;
    return error;
}

/* What a line of the file cannot carry cannot be a value: it would not come back the same. */
static bool value_survives(const char *value)
{
    size_t length = strlen(value);
    if (length == 0)
        return true;
    if (value[0] == ' ' || value[length - 1] == ' ' || value[0] == ';')
        return false;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)value[i] < 0x20 || value[i] == 0x7f ||
            (value[i] == ';' && value[i - 1] == ' '))
            return false;
    return true;
}

static int number_field_read(const struct config_key *key, uint32_t *field, const char *value)
{
    uint64_t number = 0;
    bool automatic = key->kind == CONFIG_AUTO && strcmp(value, "auto") == 0;
    if (!automatic && bounded_read(key, value, strlen(value), &number))
        return -EINVAL;
    *field = (uint32_t)number;
    return 0;
}

int config_key_read(const struct config_key *key, void *base, const char *value, bool append)
{
    char *field = (char *)base + key->offset;
    if (!value_survives(value))
        return -EINVAL;
    switch (key->kind) {
    case CONFIG_NUMBER:
    case CONFIG_AUTO: return number_field_read(key, (uint32_t *)field, value);
    case CONFIG_DECIMAL: return decimal_read(key, value, (uint32_t *)field);
    case CONFIG_BYTES: return bytes_read(key, value, (uint64_t *)field);
    case CONFIG_RANGE: return range_read(key, value, (uint32_t *)field);
    case CONFIG_WORD: return word_read(key, (int *)field, value);
    case CONFIG_TEXT: return value[0] ? text_read(key, field, value) : -EINVAL;
    case CONFIG_ABSOLUTE: return value[0] == '/' ? text_read(key, field, value) : -EINVAL;
    case CONFIG_ROUTE: return route_fits(value) ? text_read(key, field, value) : -EINVAL;
    case CONFIG_ORIGINS:
        return words_fit(value, origin_fits) ? text_read(key, field, value) : -EINVAL;
    case CONFIG_NAMES: return words_fit(value, name_fits) ? text_read(key, field, value) : -EINVAL;
    case CONFIG_URL: return url_read(key, field, value);
    case CONFIG_WORDS: return config_words_fit(value) ? text_read(key, field, value) : -EINVAL;
    case CONFIG_SIGNING:
        return words_fit(value, algorithm_fits) ? text_read(key, field, value) : -EINVAL;
    case CONFIG_CHOICE:
        return choice_has(key->allowed, value) ? text_read(key, field, value) : -EINVAL;
    case CONFIG_DEVICES: return devices_fit(value) ? text_read(key, field, value) : -EINVAL;
    case CONFIG_ADDRESSES:
        return list_read(key, field, CONFIG_ADDRESS_MAX, &((struct config *)base)->listen_count,
                         value, append);
    case CONFIG_NETWORKS:
        return list_read(key, field, sizeof((struct config *)0)->trusted_proxies[0],
                         &((struct config *)base)->trusted_proxy_count, value, append);
    }
    return -EINVAL;
}

/* ---- writing ---- */

static bool list_write(const char *entries, size_t entry_size, uint32_t count, char *text,
                       size_t size)
{
    size_t at = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < count; i++) {
        int written = snprintf(text + at, size - at, "%s%s", i ? ", " : "",
                               entries + i * entry_size);
        if (written < 0 || (size_t)written >= size - at)
            return false;
        at += (size_t)written;
    }
    return true;
}

static const char *word_of(const struct config_key *key, int number)
{
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i].key, key->name) == 0 && words[i].number == number)
            return words[i].word;
    assert(!"an enum of the configuration has a value that it cannot have");
    return "";
}

static int scalar_write(const struct config_key *key, const char *field, char *text, size_t size)
{
    const uint32_t *numbers = (const uint32_t *)(const void *)field;
    switch (key->kind) {
    case CONFIG_NUMBER: return snprintf(text, size, "%u", numbers[0]);
    case CONFIG_AUTO:
        return numbers[0] ? snprintf(text, size, "%u", numbers[0]) : snprintf(text, size, "auto");
    case CONFIG_DECIMAL:
        if (numbers[0] == CONFIG_MODELS_CHOICE)
            return snprintf(text, size, "%s", "");
        return snprintf(text, size, "%u.%03u", numbers[0] / 1000, numbers[0] % 1000);
    case CONFIG_BYTES:
        return snprintf(text, size, "%llu",
                        (unsigned long long)*(const uint64_t *)(const void *)field);
    case CONFIG_WORD: return snprintf(text, size, "%s", word_of(key, (int)numbers[0]));
    case CONFIG_RANGE:
        if (numbers[1] == 0)
            return snprintf(text, size, "%s", "");
        return snprintf(text, size, "%u-%u", numbers[0], numbers[1]);
    default: return snprintf(text, size, "%s", field);
    }
}

bool config_key_write(const struct config_key *key, const void *base, char *text, size_t size)
{
    const char *field = (const char *)base + key->offset;
    if (key->kind == CONFIG_ADDRESSES)
        return list_write(field, CONFIG_ADDRESS_MAX, ((const struct config *)base)->listen_count,
                          text, size);
    if (key->kind == CONFIG_NETWORKS)
        return list_write(field, sizeof((struct config *)0)->trusted_proxies[0],
                          ((const struct config *)base)->trusted_proxy_count, text, size);
    int written = scalar_write(key, field, text, size);
    return written >= 0 && (size_t)written < size;
}
