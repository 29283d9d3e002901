/*
 * Which processor cores a worker gets. The cores are those that this process may use, as few as the
 * cgroup's cpu.max pays for.
 */
#ifndef CORE_SHARE_H
#define CORE_SHARE_H

#include <stddef.h>
#include <stdint.h>

#define CORE_SHARE_MAX 1024

struct core_share {
    uint16_t ids[CORE_SHARE_MAX]; /* ascending */
    unsigned count;               /* at least 1 */
};

/* The allowed cores, cut to `paid` (0: no limit). 0 or a negative errno. */
int core_share_allowed(unsigned paid, struct core_share *out);

/* The share of worker number `worker` of `workers`: neighbours, and every core belongs to somebody.
 * With more workers than cores they share. */
void core_share_cut(const struct core_share *all, unsigned workers, unsigned worker,
                    struct core_share *out);

/* Those of them that are in `near`, a bit each, of CORE_SHARE_MAX; all if none is. */
void core_share_near(const struct core_share *all, const uint64_t near[CORE_SHARE_MAX / 64],
                     struct core_share *out);

/* "0-3,8" into text. Returns text, or NULL if it does not fit. */
const char *core_share_format(const struct core_share *cores, char *text, size_t size);

#endif
