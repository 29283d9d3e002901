#include "auth/keep.h"

#include "lib/auth_wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

_Static_assert(sizeof(struct keep_area) <= AUTH_KEEP_BYTES, "the supervisor makes enough of it");

struct keep_area *keep_open(int fd)
{
    struct stat status;
    if (fstat(fd, &status) || status.st_size < (off_t)sizeof(struct keep_area))
        return NULL;
    void *area = mmap(NULL, sizeof(struct keep_area), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return area == MAP_FAILED ? NULL : area;
}

void keep_close(struct keep_area *area)
{
    if (area)
        munmap(area, sizeof *area);
}

void keep_store(struct keep_area *area, uint64_t mark, const char *text, size_t size,
                uint64_t fetched_ns)
{
    if (!area || size > sizeof area->sets[0].text)
        return;
    uint32_t next = atomic_load_explicit(&area->version, memory_order_relaxed) + 1;
    struct keep_set *set = &area->sets[next & 1];
    set->mark = mark;
    set->fetched_ns = fetched_ns;
    set->size = (uint32_t)size;
    memcpy(set->text, text, size);
    atomic_store_explicit(&area->version, next, memory_order_release);
}

int keep_read(const struct keep_area *area, uint64_t mark, uint64_t now_ns, struct jwks *keys,
              uint64_t *fetched_ns)
{
    if (!area)
        return -ENODATA;
    uint32_t version = atomic_load_explicit(&area->version, memory_order_acquire);
    const struct keep_set *set = &area->sets[version & 1];
    /* Its last owner may be one that was killed and does not go: it is read once. */
    uint64_t at_ns = set->fetched_ns;
    uint32_t size = set->size;
    if (set->mark != mark || at_ns == 0 || at_ns > now_ns)
        return -ENODATA;
    if (size > sizeof set->text)
        return -EBADMSG;
    char *text = malloc(size + 1);
    if (!text)
        return -ENODATA;
    memcpy(text, set->text, size);
    const char *why = NULL;
    int error = jwks_read(text, size, keys, &why);
    free(text);
    *fetched_ns = at_ns;
    return error ? -EBADMSG : 0;
}
