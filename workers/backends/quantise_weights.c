/* The integers that a convolution's weights become. */
#include "quantise.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* Where a convolution's weights come from and go to. */
struct weighing {
    const struct network_layer *layer;
    const struct quantise_value *in;
    const struct quantise_value *out;
    struct quantise_conv *conv;
};

/* The weight of `tap` (kernel x kernel) from an input channel to an output, times the input's
 * scale. */
static float weight_at(const struct weighing *w, size_t output, size_t input, size_t tap)
{
    const struct network_layer *layer = w->layer;
    if (layer->op == NETWORK_CONV_UP) {
        size_t channel = output % layer->channels;
        size_t corner = output / layer->channels;
        size_t at = (input * layer->channels + channel) * 4 + corner;
        return layer->weights[at] * w->in->scale[input];
    }
    size_t taps = w->conv->kernel * w->conv->kernel;
    return layer->weights[(output * w->conv->inputs + input) * taps + tap] * w->in->scale[input];
}

static float largest_weight(const struct weighing *w, size_t output)
{
    size_t taps = w->conv->kernel * w->conv->kernel;
    float largest = 0.0F;
    for (size_t i = 0; i < w->conv->inputs; i++) {
        for (size_t k = 0; k < taps; k++) {
            float size = fabsf(weight_at(w, output, i, k));
            largest = size > largest ? size : largest;
        }
    }
    return largest;
}

/* ---- rounding ---- */

/* Round another tap the other way: the one whose remainder is largest in the direction of their
 * sum. False: none can be. */
static bool turn_one(int8_t *whole, float *rest, size_t taps, float sign)
{
    size_t best = taps;
    for (size_t k = 0; k < taps; k++) {
        bool fits = fabsf((float)whole[k] + sign) <= (float)QUANTISE_TOP_WEIGHT;
        if (fits && (best == taps || rest[k] * sign > rest[best] * sign)) {
            best = k;
        }
    }
    if (best == taps) {
        return false;
    }
    whole[best] = (int8_t)(whole[best] + (int)sign);
    rest[best] -= sign;
    return true;
}

/* Integers of one kernel, whose remainders sum to half of one at most; returns that sum. rest: room
 * for a kernel. */
static float round_kernel(const struct weighing *w, size_t output, size_t input, float step,
                          int8_t *whole, float *rest)
{
    size_t taps = w->conv->kernel * w->conv->kernel;
    float sum = 0.0F;
    for (size_t k = 0; k < taps; k++) {
        float exact = weight_at(w, output, input, k) / step;
        float nearest = rintf(exact);
        whole[k] = (int8_t)nearest;
        rest[k] = exact - nearest;
        sum += rest[k];
    }
    float sign = sum > 0.0F ? 1.0F : -1.0F;
    while (fabsf(sum) > 0.5F && turn_one(whole, rest, taps, sign)) {
        sum -= sign;
    }
    return sum;
}

static void weigh_output(const struct weighing *w, size_t output, float *rest)
{
    struct quantise_conv *conv = w->conv;
    size_t taps = conv->kernel * conv->kernel;
    float largest = largest_weight(w, output);
    float step = largest > 1e-30F ? largest / (float)QUANTISE_TOP_WEIGHT : 1.0F;
    int8_t *to = conv->weights + output * conv->inputs * taps;
    size_t channel = output % w->layer->channels;
    double bias = (double)w->layer->bias[channel] / step;
    for (size_t i = 0; i < conv->inputs; i++) {
        bias += (double)w->in->mean[i] * round_kernel(w, output, i, step, to + i * taps, rest);
        for (size_t k = 0; k < taps; k++) {
            bias -= (double)to[i * taps + k] * w->in->zero[i];
        }
    }
    conv->scale[output] = step;
    if (w->out->coded) {
        bias += (double)w->out->zero[channel] * w->out->scale[channel] / step;
        conv->scale[output] = step / w->out->scale[channel];
    }
    conv->bias[output] = (float)bias;
}

int quantise_conv_create(const struct network *network, const struct quantise_plan *plan,
                         size_t layer, struct quantise_conv *out)
{
    const struct network_layer *from = &network->layers[layer];
    bool up = from->op == NETWORK_CONV_UP;
    const struct quantise_value *in = &plan->values[from->inputs[0]];
    struct quantise_conv conv = {.outputs = (up ? 4 : 1) * (size_t)from->channels,
                                 .inputs = in->channels,
                                 .kernel = up ? 1 : from->kernel};
    conv.weights = (int8_t *)malloc(conv.outputs * conv.inputs * conv.kernel * conv.kernel);
    conv.bias = (float *)malloc(conv.outputs * sizeof *conv.bias);
    conv.scale = (float *)malloc(conv.outputs * sizeof *conv.scale);
    float *rest = (float *)malloc(conv.kernel * conv.kernel * sizeof *rest);
    if (conv.weights == NULL || conv.bias == NULL || conv.scale == NULL || rest == NULL) {
        free(rest);
        quantise_conv_free(&conv);
        return -ENOMEM;
    }
    const struct weighing w = {from, in, &plan->values[layer + 1], &conv};
    for (size_t output = 0; output < conv.outputs; output++) {
        weigh_output(&w, output, rest);
    }
    free(rest);
    *out = conv;
    return 0;
}

void quantise_conv_free(struct quantise_conv *conv)
{
    free(conv->weights);
    free(conv->bias);
    free(conv->scale);
    *conv = (struct quantise_conv){0};
}
