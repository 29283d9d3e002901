/* A file of keys: refused, or each key in it opens the door and nothing else does. */
#include "gateway/api_key.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static void try_keys(const char *path)
{
    static struct api_keys keys;
    struct problem problem;
    uint32_t number;
    if (api_keys_load(&keys, NULL, path))
        return;
    check(keys.count > 0 && keys.count <= API_KEY_MAX_KEYS);
    for (unsigned i = 0; i < keys.count; i++) {
        check(memchr(keys.keys[i], 0, API_KEY_MAX_SIZE) != NULL);
        check(api_keys_admit(&keys, keys.keys[i], &number, &problem));
    }
    check(!api_keys_admit(&keys, NULL, &number, &problem) && problem.status == 401);
    check(!api_keys_admit(&keys, "\n", &number, &problem)); /* no line holds it */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[32];
    int fd = memfd_create("keys", MFD_CLOEXEC);
    if (fd < 0)
        return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (write(fd, data, size) == (ssize_t)size)
        try_keys(path);
    close(fd);
    return 0;
}
