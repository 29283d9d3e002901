#include "quantise.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_conv(const struct network_layer *layer)
{
    return layer->op == NETWORK_CONV || layer->op == NETWORK_CONV_UP;
}

bool quantise_makes_numbers(const struct network_layer *layer)
{
    return is_conv(layer) || layer->op == NETWORK_ADD;
}

void quantise_ranges_seal(struct quantise_ranges *ranges)
{
    struct packed_hash sum = {ranges->layer_count, 0};
    for (size_t i = 0; i < ranges->layer_count; i++) {
        const struct quantise_range *range = &ranges->layers[i];
        struct {
            struct packed_hash before;
            float low;
            float high;
            uint32_t known;
            uint32_t keep;
        } link = {sum, range->low, range->high, range->known, range->keep};
        sum = packed_hash_of(&link, sizeof link);
        if (range->channel_count > 0) {
            struct packed_hash both[2] = {
                sum,
                packed_hash_of(range->channels, range->channel_count * sizeof *range->channels)};
            sum = packed_hash_of(both, sizeof both);
        }
    }
    ranges->id = sum;
}

void quantise_ranges_free(struct quantise_ranges *ranges)
{
    free(ranges->layers);
    free(ranges->channels);
    *ranges = (struct quantise_ranges){0};
}

/* ---- which values are coded ---- */

/* Values that have to agree: one group holds what moving layers connect. */
struct groups {
    const struct network *network;
    const struct quantise_ranges *ranges;
    uint32_t *of;   /* by value: another value of its group, or itself if it stands for the group */
    bool *wanted;   /* by group: a convolution reads it */
    bool *excluded; /* by group: it must stay float */
    bool *negative; /* by value: some of its codes stand for negative numbers */
};

static uint32_t group_of(const struct groups *groups, uint32_t value)
{
    while (groups->of[value] != value) {
        groups->of[value] = groups->of[groups->of[value]];
        value = groups->of[value];
    }
    return value;
}

static void unite(const struct groups *groups, uint32_t a, uint32_t b)
{
    groups->of[group_of(groups, a)] = group_of(groups, b);
}

static void exclude(const struct groups *groups, uint32_t value)
{
    groups->excluded[group_of(groups, value)] = true;
}

static void connect(const struct groups *groups)
{
    for (uint32_t i = 0; i < groups->network->layer_count; i++) {
        const struct network_layer *layer = &groups->network->layers[i];
        const struct quantise_range *range = &groups->ranges->layers[i];
        bool *negative = &groups->negative[i + 1];
        if (quantise_makes_numbers(layer)) {
            *negative = !layer->relu && range->low < 0.0F;
            continue;
        }
        unite(groups, i + 1, layer->inputs[0]);
        *negative = groups->negative[layer->inputs[0]];
        if (layer->op == NETWORK_CONCAT) {
            unite(groups, i + 1, layer->inputs[1]);
            *negative |= groups->negative[layer->inputs[1]];
        }
    }
}

static bool takes_codes(const struct groups *groups, size_t layer)
{
    const struct network_layer *conv = &groups->network->layers[layer];
    uint32_t value = conv->inputs[0];
    uint64_t inputs = value == 0 ? groups->network->in_channels
                                 : groups->network->layers[value - 1].channels;
    uint64_t taps = conv->op == NETWORK_CONV ? inputs * conv->kernel * conv->kernel : inputs;
    return !groups->ranges->layers[layer].keep && taps <= QUANTISE_MAX_TAPS;
}

/* A border has one width, and an image that a convolution writes has none. */
static bool border_fits(const struct groups *groups, const uint32_t *padding, size_t layer)
{
    const struct network_layer *conv = &groups->network->layers[layer];
    uint32_t value = conv->inputs[0];
    uint32_t wanted = conv->op == NETWORK_CONV ? conv->padding : 0;
    if (!groups->negative[value]) {
        return true;
    }
    bool by_convolution = value > 0 && groups->network->layers[value - 1].op == NETWORK_CONV;
    return padding[value] == wanted && (wanted == 0 || !by_convolution);
}

/* padding: by value, that of the first convolution that reads it. */
static void decide(const struct groups *groups, uint32_t *padding)
{
    const struct network *network = groups->network;
    for (size_t i = network->layer_count; i-- > 0;) {
        const struct network_layer *layer = &network->layers[i];
        if (is_conv(layer)) {
            padding[layer->inputs[0]] = layer->op == NETWORK_CONV ? layer->padding : 0;
        }
    }
    exclude(groups, 0);
    exclude(groups, (uint32_t)network->layer_count);
    for (uint32_t i = 0; i < network->layer_count; i++) {
        const struct network_layer *layer = &network->layers[i];
        if (quantise_makes_numbers(layer) && !groups->ranges->layers[i].known) {
            exclude(groups, i + 1);
        }
        if (is_conv(layer)) {
            groups->wanted[group_of(groups, layer->inputs[0])] = true;
            if (!takes_codes(groups, i) || !border_fits(groups, padding, i)) {
                exclude(groups, layer->inputs[0]);
            }
        }
    }
}

/* ---- scales and zeros ---- */

/* Parts of a value's numbers: so many times its channels from their beginning. */
enum { PART_SCALE, PART_STEPS, PART_ZERO, PART_MEAN, PARTS };

static void set_channel(float low, float high, bool relu, uint32_t channels, float *numbers)
{
    low = relu || low > 0.0F ? 0.0F : low;
    high = high > 0.0F ? high : 0.0F;
    float step = (high - low) / (float)QUANTISE_TOP_CODE;
    if (!(step > 1e-30F)) { /* all zeros: any step will do */
        step = 1.0F;
    }
    numbers[PART_SCALE * (size_t)channels] = step;
    numbers[PART_STEPS * (size_t)channels] = 1.0F / step;
    numbers[PART_ZERO * (size_t)channels] = rintf(-low / step);
}

static void set_range(const struct quantise_range *range, bool relu, uint32_t channels,
                      float *numbers)
{
    for (uint32_t c = 0; c < channels; c++) {
        float low = range->low;
        float high = range->high;
        const struct quantise_channel *own = range->channel_count > 0 ? &range->channels[c] : NULL;
        if (own != NULL && own->high - own->low > 0.0F) { /* else nothing was seen there */
            low = own->low;
            high = own->high;
        }
        set_channel(low, high, relu, channels, numbers + c);
    }
}

/* Means from the layer's own channels. */
static void set_means(const struct quantise_range *range, uint32_t channels, float *numbers)
{
    for (uint32_t c = 0; c < range->channel_count; c++) {
        numbers[PART_MEAN * (size_t)channels + c] = range->channels[c].mean *
                                                    numbers[PART_STEPS * (size_t)channels + c];
    }
}

/* Scales, steps and zeros of an input, to those of channels `first` onwards of `channels`. */
static void take_over(const struct quantise_value *from, uint32_t first, uint32_t channels,
                      float *numbers)
{
    if (from->scale == NULL) { /* not coded; all of a group are */
        return;
    }
    uint32_t rest = channels - first;
    size_t count = from->channels < rest ? from->channels : rest;
    const float *const parts[PARTS] = {from->scale, from->steps, from->zero, from->mean};
    for (size_t part = 0; part < PARTS; part++) {
        memcpy(numbers + part * channels + first, parts[part], count * sizeof *numbers);
    }
}

static void fill_value(const struct groups *groups, const struct quantise_plan *plan,
                       uint32_t value, float *numbers)
{
    const struct network_layer *layer = &groups->network->layers[value - 1];
    struct quantise_value *out = &plan->values[value];
    out->scale = numbers;
    out->steps = numbers + out->channels;
    out->zero = out->steps + out->channels;
    out->mean = out->zero + out->channels;
    const struct quantise_range *range = &groups->ranges->layers[value - 1];
    if (quantise_makes_numbers(layer)) {
        set_range(range, layer->relu, out->channels, numbers);
        set_means(range, out->channels, numbers);
        return;
    }
    const struct quantise_value *from = &plan->values[layer->inputs[0]];
    take_over(from, 0, out->channels, numbers);
    if (layer->op == NETWORK_CONCAT && from->channels < out->channels) {
        take_over(&plan->values[layer->inputs[1]], from->channels, out->channels, numbers);
    }
    set_means(range, out->channels, numbers); /* pooling moves codes, but not their means */
}

static int fill(const struct groups *groups, const uint32_t *padding, struct quantise_plan *plan)
{
    const struct network *network = groups->network;
    size_t numbers = 0;
    for (uint32_t i = 0; i < plan->value_count; i++) {
        struct quantise_value *value = &plan->values[i];
        uint32_t group = group_of(groups, i);
        value->channels = i == 0 ? network->in_channels : network->layers[i - 1].channels;
        value->coded = groups->wanted[group] && !groups->excluded[group];
        value->border = value->coded && groups->negative[i] ? padding[i] : 0;
        numbers += value->coded ? PARTS * (size_t)value->channels : 0;
    }
    plan->numbers = (float *)calloc(numbers + 1, sizeof *plan->numbers);
    if (plan->numbers == NULL) {
        return -ENOMEM;
    }
    float *next = plan->numbers;
    for (uint32_t i = 1; i < plan->value_count; i++) {
        size_t channels = plan->values[i].channels;
        if (plan->values[i].coded) {
            fill_value(groups, plan, i, next);
            next += PARTS * channels;
        }
    }
    return 0;
}

static bool ranges_fit(const struct network *network, const struct quantise_ranges *ranges)
{
    for (size_t i = 0; i < ranges->layer_count && i < network->layer_count; i++) {
        uint32_t count = ranges->layers[i].channel_count;
        if (count != 0 && count != network->layers[i].channels) {
            return false;
        }
    }
    return ranges->layer_count == network->layer_count;
}

int quantise_plan_create(const struct network *network, const struct quantise_ranges *ranges,
                         struct quantise_plan *out)
{
    size_t count = network->layer_count + 1;
    if (!ranges_fit(network, ranges)) {
        return -EINVAL;
    }
    struct groups groups = {.network = network,
                            .ranges = ranges,
                            .of = (uint32_t *)calloc(count, sizeof(uint32_t)),
                            .wanted = (bool *)calloc(count, sizeof(bool)),
                            .excluded = (bool *)calloc(count, sizeof(bool)),
                            .negative = (bool *)calloc(count, sizeof(bool))};
    struct quantise_plan plan = {
        .value_count = count,
        .values = (struct quantise_value *)calloc(count, sizeof *plan.values)};
    uint32_t *padding = (uint32_t *)calloc(count, sizeof *padding);
    bool allocated = groups.of != NULL && groups.wanted != NULL && groups.excluded != NULL &&
                     groups.negative != NULL && plan.values != NULL && padding != NULL;
    int error = allocated ? 0 : -ENOMEM;
    if (allocated) {
        for (uint32_t i = 0; i < count; i++) {
            groups.of[i] = i;
        }
        connect(&groups);
        decide(&groups, padding);
        error = fill(&groups, padding, &plan);
    }
    free(groups.of);
    free(groups.wanted);
    free(groups.excluded);
    free(groups.negative);
    free(padding);
    if (error != 0) {
        quantise_plan_free(&plan);
        return error;
    }
    *out = plan;
    return 0;
}

void quantise_plan_free(struct quantise_plan *plan)
{
    free(plan->values);
    free(plan->numbers);
    *plan = (struct quantise_plan){0};
}

bool quantise_layer_is_integer(const struct network *network, const struct quantise_plan *plan,
                               size_t layer)
{
    const struct network_layer *conv = &network->layers[layer];
    return is_conv(conv) && plan->values[conv->inputs[0]].coded;
}
