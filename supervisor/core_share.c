#include "supervisor/core_share.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

int core_share_allowed(unsigned paid, struct core_share *out)
{
    /* Larger than the kernel's own set, whatever it was built for. */
    static cpu_set_t sets[8];
    memset(sets, 0, sizeof sets);
    if (sched_getaffinity(0, sizeof sets, sets))
        return -errno;
    struct core_share cores = {.count = 0};
    for (unsigned id = 0; id < sizeof sets * 8 && cores.count < CORE_SHARE_MAX; id++)
        if (CPU_ISSET_S(id, sizeof sets, sets))
            cores.ids[cores.count++] = (uint16_t)id;
    if (cores.count == 0)
        return -ENODEV;
    if (paid > 0 && paid < cores.count)
        cores.count = paid;
    *out = cores;
    return 0;
}

void core_share_cut(const struct core_share *all, unsigned workers, unsigned worker,
                    struct core_share *out)
{
    assert(all->count > 0 && workers > 0 && worker < workers);
    unsigned from = worker % all->count;
    unsigned to = from + 1;
    if (workers <= all->count) {
        from = worker * all->count / workers;
        to = (worker + 1) * all->count / workers;
    }
    out->count = to - from;
    memcpy(out->ids, all->ids + from, out->count * sizeof all->ids[0]);
}

void core_share_near(const struct core_share *all, const uint64_t near[CORE_SHARE_MAX / 64],
                     struct core_share *out)
{
    out->count = 0;
    for (unsigned i = 0; i < all->count; i++)
        if (all->ids[i] < CORE_SHARE_MAX && near[all->ids[i] / 64] >> all->ids[i] % 64 & 1)
            out->ids[out->count++] = all->ids[i];
    if (out->count == 0)
        *out = *all;
}

const char *core_share_format(const struct core_share *cores, char *text, size_t size)
{
    size_t at = 0;
    for (unsigned i = 0; i < cores->count;) {
        unsigned last = i;
        while (last + 1 < cores->count && cores->ids[last + 1] == cores->ids[last] + 1)
            last++;
        const char *comma = i ? "," : "";
        int length = last > i ? snprintf(text + at, size - at, "%s%u-%u", comma, cores->ids[i],
                                         cores->ids[last])
                              : snprintf(text + at, size - at, "%s%u", comma, cores->ids[i]);
        if (length < 0 || (size_t)length >= size - at)
            return NULL;
        at += (size_t)length;
        i = last + 1;
    }
    return text;
}
