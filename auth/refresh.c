#include "auth/refresh.h"

#define SECOND_NS UINT64_C(1000000000)

static uint64_t pause_s(unsigned failures)
{
    return failures < 6 && 1u << (failures - 1) < REFRESH_LONGEST_S ? 1u << (failures - 1)
                                                                    : REFRESH_LONGEST_S;
}

uint64_t refresh_due_ns(const struct refresh *refresh, const struct config_oauth *config)
{
    if (refresh->under_way)
        return UINT64_MAX;
    if (!refresh->begun_ns)
        return 0;
    uint64_t due_ns = refresh->failures ? refresh->ended_ns + pause_s(refresh->failures) * SECOND_NS
                                        : refresh->good_ns + config->refresh_s * SECOND_NS;
    uint64_t wanted_ns = refresh->begun_ns + config->refetch_s * SECOND_NS;
    return refresh->wanted && wanted_ns < due_ns ? wanted_ns : due_ns;
}

void refresh_begin(struct refresh *refresh, uint64_t now_ns)
{
    refresh->under_way = true;
    refresh->wanted = false;
    refresh->begun_ns = now_ns;
}

void refresh_end(struct refresh *refresh, bool good, uint64_t now_ns)
{
    refresh->under_way = false;
    refresh->ended_ns = now_ns;
    refresh->failures = good ? 0 : refresh->failures + 1;
    if (good)
        refresh->good_ns = now_ns;
}

bool refresh_want(struct refresh *refresh, const struct config_oauth *config, uint64_t now_ns)
{
    if (refresh->under_way)
        return true;
    refresh->wanted = true;
    if (refresh_due_ns(refresh, config) <= now_ns)
        return true;
    /* Whoever comes then may ask again. */
    refresh->wanted = false;
    return false;
}

bool refresh_usable(const struct refresh *refresh, const struct config_oauth *config,
                    uint64_t now_ns)
{
    /* The requests that bring the next ones take their time. */
    uint64_t good_for_ns = (config->refresh_s + (uint64_t)config->keep_s) * SECOND_NS +
                           2 * config->timeout_ms * UINT64_C(1000000);
    return refresh->good_ns && now_ns - refresh->good_ns <= good_for_ns;
}
