/* A file of keys: refused with a sentence, or each plain key in it opens the door, and nothing else
 * does. */
#include "gateway/api_key.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct api_keys keys;

static void check(int condition)
{
    if (!condition)
        abort();
}

static int opens(const char *key)
{
    struct api_key_given given = {key, NULL};
    const struct api_key *found;
    const char *challenge = NULL;
    struct problem problem = {0};
    int open = api_keys_admit(&keys, &given, &found, &problem, &challenge);
    check(open ? found >= keys.keys && found < keys.keys + keys.count
               : problem.status == 401 && challenge);
    return open;
}

/* Lines that are short and plain, by another reading than the program's. */
static void try_lines(char *text)
{
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *start = line + strspn(line, " \t");
        start[strcspn(start, "\r")] = '\0';
        for (size_t size = strlen(start); size > 0 && strchr(" \t", start[size - 1]);)
            start[--size] = '\0';
        if (start[0] && start[0] != '#' && !strstr(start, "sha256:"))
            check(opens(start));
    }
}

static void try_keys(const char *path, char *text)
{
    char error[256] = "";
    if (api_keys_load(&keys, NULL, path, error, sizeof error)) {
        check(error[0] != '\0');
        return;
    }
    check(keys.count > 0 && keys.count <= API_KEY_MAX_KEYS);
    for (unsigned i = 0; i < keys.count; i++) {
        const struct api_key *key = &keys.keys[i];
        check(memchr(key->name, 0, sizeof key->name) && memchr(key->models, 0, sizeof key->models));
        check(!key->name[0] || api_key_name_fits(key->name));
        check(!api_key_opens(key, "") || !key->models[0]);
    }
    try_lines(text);
    check(!opens("\n")); /* no line holds it */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[32];
    char *text = calloc(size + 1, 1);
    int fd = memfd_create("keys", MFD_CLOEXEC);
    if (fd < 0 || !text) {
        free(text);
        return 0;
    }
    if (size)
        memcpy(text, data, size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (write(fd, data, size) == (ssize_t)size)
        try_keys(path, text);
    close(fd);
    free(text);
    return 0;
}
