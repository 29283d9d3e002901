/*
 * What precision int8 means, the same for every backend: which values of a network are held in 8
 * bits, and which integers a convolution's weights become.
 *
 * A value that is coded holds one byte an element: number = (code - zero) * scale, with a scale and
 * a zero for each channel. Max pooling, nearest upsampling, concatenation and fitting move codes
 * and leave them alone, so what they connect is coded together or not at all, and the halves of a
 * concatenation keep scales and zeros of their own: the convolution that reads them has them in its
 * weights. A convolution that reads codes sums products of integers, exactly, and makes of a sum
 *
 *     (sum + bias) * scale
 *
 * in float: a code if its output is coded (rounded to nearest even, what is outside 0..255 cut
 * off), else the number itself. Where zero is not 0 the padding of such a convolution is not zeros
 * but `zero`, which is why the value says how wide a border of them it wants.
 *
 * Everything else runs in float as ever; a float result that is wanted as codes is rounded to them.
 */
#ifndef QUANTISE_H
#define QUANTISE_H

#include "packed_file.h"
#include "workers/models/unet/network.h"

#define QUANTISE_TOP_CODE   255
#define QUANTISE_TOP_WEIGHT 127
/* Products in a sum that cannot leave 32 bits. */
#define QUANTISE_MAX_TAPS (INT32_MAX / (QUANTISE_TOP_CODE * QUANTISE_TOP_WEIGHT))

/* What is known of one channel of it. */
struct quantise_channel {
    float low; /* at most 0 */
    float high;
    float mean;
};

/* What is known of a layer's output. */
struct quantise_range {
    float low; /* at most 0 */
    float high;
    bool known;             /* else its output stays float */
    bool keep;              /* a convolution that is to run in float */
    uint32_t channel_count; /* 0, or that of the layer's channels: each has a range of its own */
    const struct quantise_channel *channels;
};

struct quantise_ranges {
    size_t layer_count;
    struct quantise_range *layers;
    struct quantise_channel *channels; /* what the layers' point into; or NULL */
    struct packed_hash id;             /* of all that is here and decides about codes */
};

struct quantise_value {
    bool coded;
    uint32_t channels;
    uint32_t border;    /* pixels around it that must hold its zeros */
    const float *scale; /* channels of them, as of the next */
    const float *steps; /* 1 / scale: code = number * steps + zero, rounded to nearest even */
    const float *zero;  /* whole numbers, 0 to 255 */
    const float *mean;  /* code - zero, on average; 0 where that is not known */
};

struct quantise_plan {
    size_t value_count;
    struct quantise_value *values; /* 0 is the network's input */
    float *numbers;                /* what scale, steps, zero, mean point into */
};

/* Give ranges the id that its layers ask for. */
void quantise_ranges_seal(struct quantise_ranges *ranges);
void quantise_ranges_free(struct quantise_ranges *ranges);

/* Does a range mean something for this layer: does it make numbers, rather than move them? */
bool quantise_makes_numbers(const struct network_layer *layer);

/* Decide about every value; the network may lack weights. 0, -ENOMEM, -EINVAL: ranges are for a
 * network with another number of layers or channels. Free with quantise_plan_free. */
int quantise_plan_create(const struct network *network, const struct quantise_ranges *ranges,
                         struct quantise_plan *out);
void quantise_plan_free(struct quantise_plan *plan);

/* Does that layer sum integers? */
bool quantise_layer_is_integer(const struct network *network, const struct quantise_plan *plan,
                               size_t layer);

/* The integers of such a layer. CONV_UP is here a 1 x 1 convolution to 4 x channels,
 * [dy][dx][channel].
 *
 * What rounding takes from one weight is given to another of its kernel, which sees much the same
 * number nine times: the remainders of a kernel sum to half of one at most. What is left of them,
 * times the mean of what they are multiplied with, goes to the bias. */
struct quantise_conv {
    size_t outputs;
    size_t inputs;
    size_t kernel;
    int8_t *weights; /* outputs x inputs x kernel x kernel */
    float *bias;     /* outputs */
    float *scale;    /* outputs */
};

/* 0 or -ENOMEM. Free with quantise_conv_free. */
int quantise_conv_create(const struct network *network, const struct quantise_plan *plan,
                         size_t layer, struct quantise_conv *out);
void quantise_conv_free(struct quantise_conv *conv);

#endif
