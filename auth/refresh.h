/*
 * When a provider's keys are fetched, and how long they are good for. Pure: times come in.
 *
 * They are fetched at the start, every refresh_s from then on, long before anybody has to wait for
 * them; after a failure sooner and then less and less often; and when a token names a key that is
 * not there, but not more often than every refetch_s: whoever invents names makes no requests.
 */
#ifndef AUTH_REFRESH_H
#define AUTH_REFRESH_H

#include "unetserve/config.h"

#include <stdbool.h>
#include <stdint.h>

#define REFRESH_LONGEST_S 30 /* between two tries that fail */

struct refresh {
    bool under_way;
    uint64_t begun_ns; /* the last try; 0: none */
    uint64_t good_ns;  /* the last one that brought keys; 0: none */
    uint64_t ended_ns; /* the last end of one */
    unsigned failures; /* in a row */
    bool wanted;       /* somebody asks for a key that is not there */
};

/* When the next try is due: never (UINT64_MAX) while one is under way. */
uint64_t refresh_due_ns(const struct refresh *refresh, const struct config_oauth *config);

void refresh_begin(struct refresh *refresh, uint64_t now_ns);
void refresh_end(struct refresh *refresh, bool good, uint64_t now_ns);

/* A key is missing. True: a try is under way, or due now: wait for it. */
bool refresh_want(struct refresh *refresh, const struct config_oauth *config, uint64_t now_ns);

/* May the keys be used? Not if there are none, or if they should have been replaced for more than
 * keep_s. */
bool refresh_usable(const struct refresh *refresh, const struct config_oauth *config,
                    uint64_t now_ns);

#endif
