#include "gateway/api_key.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static int add_key(struct api_keys *keys, const char *line, const char **why)
{
    if (keys->count == API_KEY_MAX_KEYS) {
        *why = "there are too many keys";
        return -EMSGSIZE;
    }
    int error = api_key_line_read(line, &keys->keys[keys->count], why);
    if (!error)
        keys->count++;
    return error;
}

/* Without the white space around it, and without its comment if it is one. */
static char *line_trim(char *line)
{
    line += strspn(line, " \t");
    size_t size = strcspn(line, "\r\n");
    while (size > 0 && (line[size - 1] == ' ' || line[size - 1] == '\t'))
        size--;
    line[line[0] == '#' ? 0 : size] = '\0';
    return line;
}

static int load_lines(struct api_keys *keys, FILE *file, unsigned *number, const char **why)
{
    char line[2 * API_KEY_LINE_MAX];
    int error = 0;
    while (!error && fgets(line, sizeof line, file)) {
        ++*number;
        if (!strchr(line, '\n') && !feof(file)) {
            *why = "the line is too long, or holds a zero byte";
            return -EMSGSIZE;
        }
        char *text = line_trim(line);
        if (text[0])
            error = add_key(keys, text, why);
    }
    if (!error && ferror(file))
        error = errno ? -errno : -EIO;
    return error;
}

static int load_file(struct api_keys *keys, const char *path, char *text, size_t size)
{
    const char *why = NULL;
    unsigned number = 0;
    FILE *file = fopen(path, "re");
    if (!file) {
        int error = -errno;
        snprintf(text, size, "%s", strerror(-error));
        return error;
    }
    int error = load_lines(keys, file, &number, &why);
    fclose(file);
    if (error && why)
        snprintf(text, size, "line %u: %s", number, why);
    else if (error)
        snprintf(text, size, "%s", strerror(-error));
    return error;
}

int api_keys_load(struct api_keys *keys, const char *environment, const char *path, char *error,
                  size_t error_size)
{
    const char *why = NULL;
    memset(keys, 0, sizeof *keys);
    int failed = 0;
    if (environment && environment[0]) {
        failed = add_key(keys, environment, &why);
        if (failed)
            snprintf(error, error_size, "the environment's key: %s", why);
    }
    if (!failed && path[0]) {
        failed = load_file(keys, path, error, error_size);
        /* A file without keys must not open the door. */
        if (!failed && keys->count == 0) {
            failed = -ENODATA;
            snprintf(error, error_size, "there is no key in it");
        }
    }
    return failed;
}

/* ---- a request's key ---- */

/* "Bearer KEY": where KEY begins; NULL: another scheme. */
static const char *bearer_of(const char *authorization)
{
    static const char scheme[] = "Bearer";
    size_t size = sizeof scheme - 1;
    if (!authorization || strncasecmp(authorization, scheme, size) != 0 ||
        authorization[size] != ' ')
        return NULL;
    return authorization + size + strspn(authorization + size, " ");
}

/* All keys are looked at, and all of their bytes. */
static const struct api_key *find(const struct api_keys *keys, const char *given)
{
    unsigned char digest[API_KEY_DIGEST_SIZE];
    const struct api_key *found = NULL;
    size_t size = strlen(given);
    /* White space after a value is no part of it, and libmicrohttpd leaves it. */
    while (size > 0 && (given[size - 1] == ' ' || given[size - 1] == '\t'))
        size--;
    if (size == 0 || size >= API_KEY_TEXT_MAX || api_key_digest(given, size, digest))
        return NULL;
    for (unsigned i = 0; i < keys->count; i++)
        found = gnutls_memcmp(keys->keys[i].digest, digest, sizeof digest) == 0 ? &keys->keys[i]
                                                                                : found;
    return found;
}

bool api_keys_admit(const struct api_keys *keys, const struct api_key_given *given,
                    const struct api_key **found, struct problem *problem, const char **challenge)
{
    *found = NULL;
    if (keys->count == 0)
        return true;
    const char *bearer = given->key ? NULL : bearer_of(given->authorization);
    const char *key = given->key ? given->key : bearer;
    *found = key ? find(keys, key) : NULL;
    if (*found)
        return true;
    *challenge = bearer ? "Bearer error=\"invalid_token\"" : "APIKey";
    if (!key)
        problem_set(problem, 401, "Not authenticated");
    else
        problem_set(problem, 401,
                    "Invalid API Key. Check that you are passing a correct '%s' in your header.",
                    bearer ? "Authorization: Bearer KEY" : "X-API-Key");
    return false;
}
