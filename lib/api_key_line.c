#include "lib/api_key_line.h"

#include "lib/config_keys.h"
#include "unetserve/config.h"

#include <ctype.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <string.h>

#define METHOD       "sha256:"
#define PREFIX       "unetserve_"
#define SALT_BYTES   8
#define SECRET_BYTES 24

int api_key_digest(const char *key, size_t size, unsigned char digest[API_KEY_DIGEST_SIZE])
{
    _Static_assert(API_KEY_DIGEST_SIZE == 32, "SHA-256's");
    return gnutls_hash_fast(GNUTLS_DIG_SHA256, key, size, digest) ? -EIO : 0;
}

bool api_key_name_fits(const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)name[i]) && !strchr("._-@", name[i]))
            return false;
    return length > 0 && length < API_KEY_NAME_MAX;
}

/* ---- reading ---- */

static int hex_digit(char letter)
{
    if (letter >= '0' && letter <= '9')
        return letter - '0';
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

static bool hex_read(const char *text, size_t bytes, unsigned char *out)
{
    for (size_t i = 0; i < bytes; i++) {
        int high = hex_digit(text[2 * i]);
        int low = high < 0 ? -1 : hex_digit(text[2 * i + 1]);
        if (low < 0)
            return false;
        out[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

/* "sha256:SALT:DIGEST" */
static bool digest_read(const char *word, unsigned char digest[API_KEY_DIGEST_SIZE])
{
    static const size_t salt = sizeof METHOD - 1;
    static const size_t colon = salt + 2 * SALT_BYTES;
    unsigned char ignored[SALT_BYTES];
    return strlen(word) == colon + 1 + 2 * (size_t)API_KEY_DIGEST_SIZE && word[colon] == ':' &&
           hex_read(word + salt, SALT_BYTES, ignored) &&
           hex_read(word + colon + 1, API_KEY_DIGEST_SIZE, digest);
}

/* As the configuration's own key of that name. */
static bool number_read(const char *name, const char *value, size_t offset, uint32_t *out)
{
    static struct config config;
    if (config_key_read(config_key_find(false, name), &config, value, false))
        return false;
    memcpy(out, (const char *)&config + offset, sizeof *out);
    return true;
}

static bool models_fit(const char *names)
{
    size_t length = strlen(names);
    return length > 0 && length < API_KEY_MODELS_MAX && names[0] != ',' &&
           names[length - 1] != ',' && !strstr(names, ",,");
}

static const char *option_read(const char *word, struct api_key *key, bool *has_burst)
{
    if (strncmp(word, "rate=", 5) == 0) {
        if (key->has_rate ||
            !number_read("rate_limit", word + 5, offsetof(struct config, rate_limit_milli),
                         &key->rate_milli))
            return "rate= takes 0 to 10000 a second, with up to three decimals, once";
        key->has_rate = true;
    } else if (strncmp(word, "burst=", 6) == 0) {
        if (*has_burst ||
            !number_read("rate_burst", word + 6, offsetof(struct config, rate_burst), &key->burst))
            return "burst= takes 0 to 1000000, once";
        *has_burst = true;
    } else if (strncmp(word, "models=", 7) == 0) {
        if (key->models[0] || !models_fit(word + 7))
            return "models= takes names of models with commas between them, once";
        memcpy(key->models, word + 7, strlen(word + 7) + 1);
    } else if (strncmp(word, "priority=", 9) == 0) {
        if (key->priority || word[9] < '1' || word[9] > '9' || word[10])
            return "priority= takes 1 to 9, once";
        key->priority = word[9] - '0';
    } else {
        return "after the digest there may be rate=, burst=, models= and priority=";
    }
    return NULL;
}

static const char *hashed_read(char *line, struct api_key *key)
{
    char *rest = NULL;
    const char *name = strtok_r(line, " \t", &rest);
    const char *word = strtok_r(NULL, " \t", &rest);
    if (!name || !word || !digest_read(word, key->digest))
        return "a digest is sha256:SALT:DIGEST, of 16 and 64 digits 0-9a-f";
    if (!api_key_name_fits(name))
        return "a key's name has up to 63 letters, digits and ._-@";
    memcpy(key->name, name, strlen(name) + 1);
    bool has_burst = false;
    while ((word = strtok_r(NULL, " \t", &rest))) {
        const char *why = option_read(word, key, &has_burst);
        if (why)
            return why;
    }
    return has_burst && !key->has_rate ? "burst= goes with rate=" : NULL;
}

static bool is_hashed(const char *line)
{
    const char *second = line + strcspn(line, " \t");
    second += strspn(second, " \t");
    return strncmp(second, METHOD, sizeof METHOD - 1) == 0;
}

int api_key_line_read(const char *line, struct api_key *out, const char **why)
{
    char copy[API_KEY_LINE_MAX];
    struct api_key key = {.name = ""};
    size_t length = strlen(line);
    bool hashed = is_hashed(line);
    *why = NULL;
    if (length >= (hashed ? sizeof copy : (size_t)API_KEY_TEXT_MAX)) {
        *why = "the line is too long";
    } else if (hashed) {
        memcpy(copy, line, length + 1);
        *why = hashed_read(copy, &key);
    } else if (strncmp(line, METHOD, sizeof METHOD - 1) == 0) {
        *why = "a name stands before the digest";
    } else if (api_key_digest(line, length, key.digest)) {
        *why = "SHA-256 cannot be computed";
    }
    if (!*why && api_key_digest(key.name, strlen(key.name), key.holder))
        *why = "SHA-256 cannot be computed";
    if (*why)
        return -EINVAL;
    if (!key.name[0])
        memcpy(key.holder, key.digest, sizeof key.holder);
    *out = key;
    return 0;
}

/* ---- making ---- */

static void hex_write(const unsigned char *bytes, size_t size, char *out)
{
    for (size_t i = 0; i < size; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

int api_key_make(const char *name, char key[API_KEY_TEXT_MAX], char line[API_KEY_LINE_MAX])
{
    unsigned char random[SALT_BYTES + SECRET_BYTES];
    unsigned char digest[API_KEY_DIGEST_SIZE];
    char salt[2 * SALT_BYTES + 1];
    char secret[2 * SECRET_BYTES + 1];
    char hash[2 * API_KEY_DIGEST_SIZE + 1];
    if (gnutls_rnd(GNUTLS_RND_KEY, random, sizeof random))
        return -EIO;
    hex_write(random, SALT_BYTES, salt);
    hex_write(random + SALT_BYTES, SECRET_BYTES, secret);
    int size = snprintf(key, API_KEY_TEXT_MAX, PREFIX "%s_%s", salt, secret);
    if (api_key_digest(key, (size_t)size, digest))
        return -EIO;
    hex_write(digest, sizeof digest, hash);
    snprintf(line, API_KEY_LINE_MAX, "%.63s " METHOD "%s:%s", name, salt, hash);
    return 0;
}

bool api_key_opens(const struct api_key *key, const char *model)
{
    size_t length = strlen(model);
    const char *at = key->models;
    if (!at[0])
        return true;
    for (;;) {
        size_t word = strcspn(at, ",");
        if (word == length && strncmp(at, model, word) == 0)
            return true;
        if (!at[word])
            return false;
        at += word + 1;
    }
}
