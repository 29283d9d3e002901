#include "arrivals.h"

#include <math.h>

/* splitmix64: a step of a counter, mixed. */
static double next_part(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    return ((double)(z >> 11) + 0.5) * 0x1p-53; /* never 0, never 1 */
}

static double next_gap(struct arrivals *arrivals)
{
    return arrivals->poisson ? -log(next_part(&arrivals->random)) * arrivals->gap_ns
                             : arrivals->gap_ns;
}

void arrivals_begin(struct arrivals *arrivals, double per_second, bool poisson, uint64_t seed)
{
    *arrivals = (struct arrivals){.gap_ns = 1e9 / per_second, .poisson = poisson, .random = seed};
    if (poisson) {
        arrivals->next_ns = next_gap(arrivals);
    }
}

int64_t arrivals_due_ns(const struct arrivals *arrivals)
{
    return (int64_t)arrivals->next_ns;
}

void arrivals_advance(struct arrivals *arrivals)
{
    arrivals->next_ns += next_gap(arrivals);
}
