#include "unetserve/admission.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>

#define TIME_BITS 44
#define TIME_MASK ((UINT64_C(1) << TIME_BITS) - 1)
/* A time further ahead than any debt is one from half a year ago: it has come round. */
#define AHEAD_MAX (2 * ADMISSION_DEBT_MAX)

_Static_assert(sizeof(((struct admission *)0)->buckets[0]) == 64, "a set is a cache line");
_Static_assert((ADMISSION_SETS & (ADMISSION_SETS - 1)) == 0, "a hash's low bits choose the set");
_Static_assert(AHEAD_MAX < UINT64_C(1) << (TIME_BITS - 1), "ahead and behind can be told apart");

struct admission_rate admission_rate_of(uint32_t rate_milli, uint32_t burst)
{
    struct admission_rate rate = {0, 0};
    if (rate_milli == 0)
        return rate;
    uint64_t second = (rate_milli + UINT64_C(999)) / 1000;
    rate.interval_us = UINT64_C(1000000000) / rate_milli;
    rate.window_us = (burst ? burst : second) * rate.interval_us;
    return rate;
}

int admission_init(struct admission *table)
{
    ssize_t got = getrandom(table->secret, sizeof table->secret, 0);
    if (got < 0)
        return -errno;
    return got == (ssize_t)sizeof table->secret ? 0 : -EIO;
}

/* ---- SipHash-2-4 (Aumasson and Bernstein, 2012) ---- */

static uint64_t rotate(uint64_t value, unsigned by)
{
    return value << by | value >> (64 - by);
}

static void mix(uint64_t v[4], unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

/* At most 8 bytes, little-endian. */
static uint64_t word_read(const unsigned char *bytes, size_t size)
{
    uint64_t word = 0;
    for (size_t i = 0; i < size; i++)
        word |= (uint64_t)bytes[i] << (8 * i);
    return word;
}

uint64_t admission_hash(const struct admission *table, const void *client, size_t size)
{
    const unsigned char *bytes = client;
    uint64_t k0 = word_read(table->secret, 8);
    uint64_t k1 = word_read(table->secret + 8, 8);
    uint64_t v[4] = {k0 ^ UINT64_C(0x736f6d6570736575), k1 ^ UINT64_C(0x646f72616e646f6d),
                     k0 ^ UINT64_C(0x6c7967656e657261), k1 ^ UINT64_C(0x7465646279746573)};
    uint64_t length = (uint64_t)size << 56;
    for (bool last = false; !last;) {
        size_t take = size < 8 ? size : 8;
        last = take < 8;
        uint64_t word = word_read(bytes, take) | (last ? length : 0);
        v[3] ^= word;
        mix(v, 2);
        v[0] ^= word;
        bytes += take;
        size -= take;
    }
    v[2] ^= 0xff;
    mix(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* ---- buckets ---- */

/* How far ahead of now the bucket will be full; 0: it is, as one that was never used. */
static uint64_t word_debt(uint64_t word, uint64_t now_us)
{
    uint64_t ahead = (word - now_us) & TIME_MASK;
    return word != 0 && ahead <= AHEAD_MAX ? ahead : 0;
}

/* How long ago it became full, for choosing among full ones: never used is longest. */
static uint64_t word_age(uint64_t word, uint64_t now_us)
{
    return word == 0 ? UINT64_MAX : (now_us - word) & TIME_MASK;
}

/* Is a, rather than b, the one to give up? */
static bool word_fuller(uint64_t a, uint64_t b, uint64_t now_us)
{
    uint64_t debt_a = word_debt(a, now_us);
    uint64_t debt_b = word_debt(b, now_us);
    if (debt_a || debt_b)
        return debt_a < debt_b;
    return word_age(a, now_us) > word_age(b, now_us);
}

/* The client's bucket, or the one that it gets. Two processes cannot give one client two buckets: a
 * word only grows, so whoever chose another one than we did has seen, or will find when it swaps,
 * that its choice has changed. */
static _Atomic uint64_t *bucket_find(_Atomic uint64_t *set, uint64_t tag, uint64_t now_us,
                                     uint64_t *word)
{
    _Atomic uint64_t *found = NULL;
    for (unsigned i = 0; i < ADMISSION_WAYS; i++) {
        uint64_t seen = atomic_load_explicit(&set[i], memory_order_relaxed);
        if (seen >> TIME_BITS == tag) {
            *word = seen;
            return &set[i];
        }
        if (!found || word_fuller(seen, *word, now_us)) {
            *word = seen;
            found = &set[i];
        }
    }
    return found;
}

uint64_t admission_take(struct admission *table, const struct admission_rate *rate, uint64_t hash,
                        uint64_t now_us)
{
    if (rate->interval_us == 0)
        return 0;
    _Atomic uint64_t *set = table->buckets[hash % ADMISSION_SETS];
    uint64_t tag = hash >> TIME_BITS;
    if (tag == 0)
        tag = 1; /* so that no used word is 0 */
    for (;;) {
        uint64_t word = 0;
        _Atomic uint64_t *bucket = bucket_find(set, tag, now_us, &word);
        uint64_t debt = word_debt(word, now_us) + rate->interval_us;
        if (debt > rate->window_us)
            return debt - rate->window_us;
        uint64_t next = tag << TIME_BITS | ((now_us + debt) & TIME_MASK);
        /* Relaxed: nobody concludes anything about other memory from a bucket. A swap that fails
         * means that another request was let in, so the loop goes on only while somebody gets on.
         */
        if (atomic_compare_exchange_weak_explicit(bucket, &word, next, memory_order_relaxed,
                                                  memory_order_relaxed))
            return 0;
    }
}
