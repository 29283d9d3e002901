/* Precision int8 in the reference backend: sums of integers, as quantise.h defines them. */
#include "reference_image.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* The codes of an image with its padding, which stands for zero. */
struct padded {
    size_t height;
    size_t width;
    uint8_t *codes; /* channels x height x width */
};

static int pad(const struct image *in, const struct quantise_value *from, size_t padding,
               struct padded *out)
{
    struct padded padded = {.height = in->height + 2 * padding, .width = in->width + 2 * padding};
    size_t plane = padded.height * padded.width;
    padded.codes = (uint8_t *)malloc(plane * in->channels);
    if (!padded.codes)
        return -ENOMEM;
    for (size_t c = 0; c < in->channels; c++) {
        uint8_t *to = padded.codes + c * plane;
        for (size_t i = 0; i < plane; i++)
            to[i] = (uint8_t)from->zero[c];
        for (size_t y = 0; y < in->height; y++)
            for (size_t x = 0; x < in->width; x++)
                to[(y + padding) * padded.width + x + padding] =
                    (uint8_t)in->data[(c * in->height + y) * in->width + x];
    }
    *out = padded;
    return 0;
}

static float code_of(float value)
{
    float whole = rintf(value);
    return !(whole > 0.0f) ? 0.0f : whole > QUANTISE_TOP_CODE ? QUANTISE_TOP_CODE : whole;
}

/* What a sum becomes. */
static float finish(int32_t sum, float bias, float scale, const struct quantise_value *value,
                    bool relu)
{
    float number = ((float)sum + bias) * scale;
    if (value->coded)
        return code_of(number);
    return relu && number < 0.0f ? 0.0f : number;
}

/* The sums of one row of one output. */
static void sum_row(const struct quantise_conv *conv, const struct padded *in, size_t output,
                    size_t y, size_t stride, int32_t *sums, size_t width)
{
    size_t kernel = conv->kernel;
    const int8_t *weights = conv->weights + output * conv->inputs * kernel * kernel;
    for (size_t x = 0; x < width; x++)
        sums[x] = 0;
    for (size_t c = 0; c < conv->inputs; c++) {
        for (size_t k = 0; k < kernel * kernel; k++) {
            int8_t weight = weights[c * kernel * kernel + k];
            const uint8_t *row = in->codes +
                                 (c * in->height + y * stride + k / kernel) * in->width +
                                 k % kernel;
            for (size_t x = 0; x < width; x++)
                sums[x] += weight * row[x * stride];
        }
    }
}

static void run_conv(const struct network_layer *layer, const struct quantise_conv *conv,
                     const struct padded *in, const struct quantise_value *value, int32_t *sums,
                     struct image *out)
{
    for (size_t o = 0; o < conv->outputs; o++) {
        for (size_t y = 0; y < out->height; y++) {
            float *to = out->data + (o * out->height + y) * out->width;
            sum_row(conv, in, o, y, layer->stride, sums, out->width);
            for (size_t x = 0; x < out->width; x++)
                to[x] = finish(sums[x], conv->bias[o], conv->scale[o], value, layer->relu);
        }
    }
}

/* Output number [dy][dx][channel] of a pixel goes to the corner (dy, dx) of a square. */
static void run_conv_up(const struct quantise_conv *conv, const struct padded *in,
                        const struct quantise_value *value, int32_t *sums, struct image *out)
{
    for (size_t o = 0; o < conv->outputs; o++) {
        size_t corner = o / out->channels;
        size_t channel = o % out->channels;
        for (size_t y = 0; y < in->height; y++) {
            size_t row = channel * out->height + 2 * y + corner / 2;
            float *to = out->data + row * out->width + corner % 2;
            sum_row(conv, in, o, y, 1, sums, in->width);
            for (size_t x = 0; x < in->width; x++)
                to[2 * x] = finish(sums[x], conv->bias[o], conv->scale[o], value, false);
        }
    }
}

int reference_run_integer(const struct network_layer *layer, const struct quantise_conv *conv,
                          const struct quantise_value *from, const struct image *in,
                          const struct quantise_value *value, struct image *out)
{
    bool up = layer->op == NETWORK_CONV_UP;
    struct padded padded;
    int rc = pad(in, from, up ? 0 : layer->padding, &padded);
    if (rc < 0)
        return rc;
    int32_t *sums = (int32_t *)malloc(out->width * sizeof *sums);
    if (sums && up)
        run_conv_up(conv, &padded, value, sums, out);
    else if (sums)
        run_conv(layer, conv, &padded, value, sums, out);
    free(padded.codes);
    free(sums);
    return sums ? 0 : -ENOMEM;
}

void reference_encode(const struct quantise_value *value, struct image *image)
{
    size_t plane = (size_t)image->height * image->width;
    for (size_t c = 0; c < image->channels; c++) {
        float *data = image->data + c * plane;
        for (size_t i = 0; i < plane; i++)
            data[i] = code_of(data[i] * value->steps[c] + value->zero[c]);
    }
}

void reference_decode(const struct quantise_value *value, struct image *image)
{
    size_t plane = (size_t)image->height * image->width;
    for (size_t c = 0; c < image->channels; c++) {
        float *data = image->data + c * plane;
        for (size_t i = 0; i < plane; i++)
            data[i] = (data[i] - value->zero[c]) * value->scale[c];
    }
}

void reference_round(struct image *image)
{
    size_t elements = (size_t)image->channels * image->height * image->width;
    for (size_t i = 0; i < elements; i++)
        image->data[i] = code_of(image->data[i]);
}
