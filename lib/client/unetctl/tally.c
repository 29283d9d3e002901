#include "tally.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BINS       65536
#define ZERO_BIN   32768 /* of +0 and what is below the smallest bfloat16 */
#define CANDIDATES 200
#define NARROWER   0.98 /* each candidate is that much of the one before */
/* Of what the widest channel was seen to reach: no channel is taken to reach less. */
#define LEAST_SHARE (1.0f / 16)
/* Beyond what was seen: other tiles reach further, and what is cut off is missed in all that lies
 * around, while what is coarser only makes noise, most of which cancels. */
#define MARGIN 1.25f

struct seen {
    float low;  /* at most 0 */
    float high; /* at least 0 */
    double sum;
    uint64_t count;
};

struct tally {
    uint64_t counts[BINS]; /* ascending */
    uint64_t total;
    size_t channels;
    struct seen seen[];
};

struct tally *tally_new(size_t channels)
{
    struct tally *tally = (struct tally *)calloc(1,
                                                 sizeof *tally + channels * sizeof tally->seen[0]);
    if (tally)
        tally->channels = channels;
    return tally;
}

static uint32_t bin_of(float value)
{
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    uint32_t half = bits >> 16;
    return half & 0x8000u ? 0xffffu - half : half | 0x8000u;
}

/* The bin's value that is farthest from zero. */
static float edge_of(uint32_t bin)
{
    uint32_t half = bin >= ZERO_BIN ? bin & 0x7fffu : 0xffffu - bin;
    uint32_t bits = half << 16 | 0xffffu;
    float value = 0;
    if ((half & 0x7fffu) == 0)
        return 0.0f;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void see(struct seen *seen, float value)
{
    seen->low = value < seen->low ? value : seen->low;
    seen->high = value > seen->high ? value : seen->high;
    seen->sum += value;
    seen->count++;
}

void tally_add(struct tally *tally, const struct backend_sight *sight)
{
    assert(sight->channels == tally->channels);
    for (size_t p = 0; p < sight->pixels; p++) {
        const float *pixel = sight->data + p * sight->pitch;
        for (size_t c = 0; c < sight->channels; c++) {
            float value = pixel[c * sight->step];
            if (!isfinite(value))
                continue;
            tally->counts[bin_of(value)]++;
            tally->total++;
            see(&tally->seen[c], value);
        }
    }
}

struct quantise_range tally_percentile(const struct tally *tally, double percent)
{
    double spare = (double)tally->total * (1.0 - percent / 100.0);
    struct quantise_range range = {.known = true};
    uint64_t seen = 0;
    for (uint32_t bin = BINS - 1; bin > ZERO_BIN && range.high == 0.0f; bin--) {
        seen += tally->counts[bin];
        if (tally->counts[bin] && (double)seen > spare)
            range.high = edge_of(bin);
    }
    seen = 0;
    for (uint32_t bin = 0; bin < ZERO_BIN - 1 && range.low == 0.0f; bin++) {
        seen += tally->counts[bin];
        if (tally->counts[bin] && (double)seen > spare)
            range.low = edge_of(bin);
    }
    return range;
}

/* Squares of what codes for low..high are off by, summed. Within the range all remainders are
 * equally likely, but zero is met exactly. */
static double squares(const struct tally *tally, float low, float high)
{
    double step = ((double)high - low) / QUANTISE_TOP_CODE;
    double sum = 0;
    for (uint32_t bin = 0; bin < BINS; bin++) {
        double value = tally->counts[bin] ? edge_of(bin) : 0.0;
        double beyond = value > high ? value - high : value < low ? low - value : 0.0;
        if (value != 0.0)
            sum += (double)tally->counts[bin] * (beyond * beyond + step * step / 12);
    }
    return sum;
}

struct quantise_range tally_least_squares(const struct tally *tally)
{
    struct quantise_range whole = tally_percentile(tally, 100.0);
    struct quantise_range best = whole;
    double least = squares(tally, whole.low, whole.high);
    double share = 1.0;
    for (int i = 0; i < CANDIDATES; i++) {
        share *= NARROWER;
        float low = (float)(whole.low * share);
        float high = (float)(whole.high * share);
        double sum = squares(tally, low, high);
        if (sum < least) {
            least = sum;
            best.low = low;
            best.high = high;
        }
    }
    return best;
}

static float clamp(float value, float low, float high)
{
    return value < low ? low : value > high ? high : value;
}

struct quantise_channel tally_mean(const struct tally *tally, size_t channel,
                                   const struct quantise_range *range)
{
    const struct seen *seen = &tally->seen[channel];
    float mean = seen->count ? (float)(seen->sum / (double)seen->count) : 0.0f;
    return (struct quantise_channel){range->low, range->high, clamp(mean, range->low, range->high)};
}

/* An end of a channel's range, from what was seen there and at most in any channel. */
static float half_way(float own, float most)
{
    return sqrtf(fmaxf(own, most * LEAST_SHARE) * most) * MARGIN;
}

struct quantise_channel tally_channel(const struct tally *tally, size_t channel)
{
    const struct seen *seen = &tally->seen[channel];
    struct seen most = {0};
    for (size_t c = 0; c < tally->channels; c++) {
        most.low = fminf(most.low, tally->seen[c].low);
        most.high = fmaxf(most.high, tally->seen[c].high);
    }
    struct quantise_range range = {.low = -half_way(-seen->low, -most.low),
                                   .high = half_way(seen->high, most.high)};
    return tally_mean(tally, channel, &range);
}
