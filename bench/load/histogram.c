#include "histogram.h"

#include <assert.h>
#include <math.h>

/* Below two times 512 each value has its bucket; above, buckets are twice as wide with each
 * doubling. */
static uint32_t bucket_of(int64_t value)
{
    uint64_t wide = (uint64_t)value;
    if (wide < UINT64_C(2) << HISTOGRAM_STEP_BITS) {
        return (uint32_t)wide;
    }
    uint32_t shift = 63 - (uint32_t)__builtin_clzll(wide) - HISTOGRAM_STEP_BITS;
    return (shift << HISTOGRAM_STEP_BITS) + (uint32_t)(wide >> shift);
}

static int64_t bucket_end(uint32_t bucket)
{
    if (bucket < 2u << HISTOGRAM_STEP_BITS) {
        return bucket;
    }
    uint32_t shift = (bucket >> HISTOGRAM_STEP_BITS) - 1;
    int64_t step = (int64_t)bucket - ((int64_t)shift << HISTOGRAM_STEP_BITS);
    return ((step + 1) << shift) - 1;
}

void histogram_record(struct histogram *histogram, int64_t value)
{
    value = value < 0 ? 0 : value > HISTOGRAM_MOST ? HISTOGRAM_MOST : value;
    uint32_t bucket = bucket_of(value);
    assert(bucket < HISTOGRAM_BUCKETS);
    histogram->counts[bucket]++;
    if (histogram->count == 0 || value < histogram->least) {
        histogram->least = value;
    }
    if (value > histogram->most) {
        histogram->most = value;
    }
    histogram->count++;
    histogram->sum += (double)value;
}

int64_t histogram_percentile(const struct histogram *histogram, double part)
{
    uint64_t rank = (uint64_t)ceil(part * (double)histogram->count);
    uint64_t seen = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->counts[i];
        if (seen > 0 && seen >= rank) {
            int64_t end = bucket_end(i);
            return end < histogram->most ? end : histogram->most;
        }
    }
    return histogram->most;
}

double histogram_mean(const struct histogram *histogram)
{
    return histogram->count == 0 ? 0 : histogram->sum / (double)histogram->count;
}
