/*
 * How fast each client may ask: token buckets in the queue's shared memory, so that a client's rate
 * is one number over all gateways and outlives each of them.
 *
 * A bucket is one 64-bit word, `tag:20 | time:44`, and every change is one compare-and-swap of it:
 * no locks, nothing to clean up after a process that died in the middle, and no two words that
 * could disagree. `time` (microseconds) is when the bucket will be full again. It says how many
 * tokens there are at any moment, so tokens and their time are one number (the generic cell rate
 * algorithm). It only ever grows.
 *
 * The table is set-associative: a client's 64-bit hash, under a secret that the supervisor draws
 * when it makes the queue, chooses a set of eight buckets (a cache line) and the tag. A client
 * without a bucket takes the fullest one of its set, and takes it *as it is*:
 *
 * - A bucket that is full again says nothing that a new one would not say: replacing it loses
 *   nothing. So every limit is exact as long as no set has more than eight clients that are in debt
 *   at once.
 * - Beyond that two clients share what is left in the fullest bucket. Forgetting the debt instead
 *   would give everybody a fresh burst whose address has been pushed out, so that whoever owns many
 *   addresses had no limit at all. As it is, all clients of a set together get at most eight times
 *   the rate, and all of the table at most ADMISSION_BUCKETS times.
 * - What many addresses can do to an honest client is to be refused with it, when all eight buckets
 *   of its set are empty. Since nobody outside can tell which addresses share a set, that takes
 *   ADMISSION_BUCKETS times the rate, kept up. A refused newcomer changes nothing.
 * - Two clients of one set have the same tag once in a million pairs; they share a bucket then.
 */
#ifndef ADMISSION_H
#define ADMISSION_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define ADMISSION_SETS     8192
#define ADMISSION_WAYS     8
#define ADMISSION_BUCKETS  (ADMISSION_SETS * ADMISSION_WAYS)
#define ADMISSION_DEBT_MAX (UINT64_C(24) * 3600 * 1000000) /* window_us is at most that */

struct admission {
    /* by the supervisor, before any other process exists */
    _Alignas(64) unsigned char secret[16];
    /* by every gateway */
    _Alignas(64) _Atomic uint64_t buckets[ADMISSION_SETS][ADMISSION_WAYS]; /* 0: never used */
};

struct admission_rate {
    uint64_t interval_us; /* between two requests, at the limit; 0: there is no limit */
    uint64_t window_us;   /* a whole burst's worth of intervals */
};

/* From what the configuration says: requests a second in thousandths (0: no limit), requests at
 * once (0: a second's worth, at least one). */
struct admission_rate admission_rate_of(uint32_t rate_milli, uint32_t burst);

/* Draw the secret. 0, or -errno. */
int admission_init(struct admission *table);

/* A client's hash (SipHash-2-4 under the secret): nobody outside can find clients that share a set.
 */
uint64_t admission_hash(const struct admission *table, const void *client, size_t size);

/* Take a token, now (CLOCK_MONOTONIC). 0: taken. Else none was there, and that many microseconds
 * from now there will be one. */
uint64_t admission_take(struct admission *table, const struct admission_rate *rate, uint64_t hash,
                        uint64_t now_us);

#endif
