#include "gateway/api_key.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int add_key(struct api_keys *keys, const char *key, size_t size)
{
    if (keys->count >= API_KEY_MAX_KEYS || size >= API_KEY_MAX_SIZE)
        return -EMSGSIZE;
    char *place = keys->keys[keys->count++];
    memset(place, 0, API_KEY_MAX_SIZE);
    memcpy(place, key, size);
    return 0;
}

static int load_file(struct api_keys *keys, const char *path)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return -errno;
    char line[2 * API_KEY_MAX_SIZE];
    int error = 0;
    while (!error && fgets(line, sizeof line, file)) {
        char *key = line + strspn(line, " \t");
        size_t size = strcspn(key, "\r\n");
        while (size > 0 && (key[size - 1] == ' ' || key[size - 1] == '\t'))
            size--;
        if (size > 0 && key[0] != '#')
            error = add_key(keys, key, size);
    }
    if (!error && ferror(file))
        error = -EIO;
    fclose(file);
    return error;
}

int api_keys_load(struct api_keys *keys, const char *environment, const char *path)
{
    memset(keys, 0, sizeof *keys);
    int error = 0;
    if (environment && environment[0])
        error = add_key(keys, environment, strlen(environment));
    if (!error && path[0]) {
        error = load_file(keys, path);
        /* A file without keys must not open the door. */
        if (!error && keys->count == 0)
            error = -ENODATA;
    }
    return error;
}

/* All bytes are looked at, whatever they are. */
static bool same_key(const char key[API_KEY_MAX_SIZE], const char given[API_KEY_MAX_SIZE])
{
    unsigned char difference = 0;
    for (size_t i = 0; i < API_KEY_MAX_SIZE; i++)
        difference |= (unsigned char)(key[i] ^ given[i]);
    return difference == 0;
}

bool api_keys_admit(const struct api_keys *keys, const char *given, uint32_t *number,
                    struct problem *problem)
{
    if (keys->count == 0) {
        *number = 0;
        return true;
    }
    if (!given) {
        problem_set(problem, 401, "Not authenticated");
        return false;
    }
    char padded[API_KEY_MAX_SIZE] = {0};
    uint32_t found = API_KEY_MAX_KEYS;
    size_t size = strlen(given);
    /* White space after a value is no part of it, and libmicrohttpd leaves it. */
    while (size > 0 && (given[size - 1] == ' ' || given[size - 1] == '\t'))
        size--;
    if (size < sizeof padded) {
        snprintf(padded, sizeof padded, "%.*s", (int)size, given);
        for (unsigned i = 0; i < keys->count; i++)
            found = same_key(keys->keys[i], padded) ? i : found;
    }
    if (found < API_KEY_MAX_KEYS) {
        *number = found;
        return true;
    }
    problem_set(
        problem, 401,
        "Invalid API Key. Check that you are passing a correct 'X-API-Key' in your header.");
    return false;
}
