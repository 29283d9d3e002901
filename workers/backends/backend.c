#include "backend.h"

#include "../models/unet/half.h"
#include "backends.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct backend *const *backend_list(void)
{
    static const struct backend *const list[] = {&backend_amx, &backend_onednn, &backend_reference,
#ifdef UNETSERVE_CUDNN
                                                 &backend_cudnn,
#endif
                                                 NULL};
    return list;
}

const struct backend *backend_choose(const char *name, const struct network *network,
                                     const char *precision)
{
    char reason[256];
    for (const struct backend *const *at = backend_list(); *at; at++) {
        if (strcmp(name, "auto") == 0) {
            bool suits = !network || !(*at)->suits || (*at)->suits(network, precision);
            if (suits && (*at)->probe(reason, sizeof reason) == 0)
                return *at;
        } else if (strcmp((*at)->name, name) == 0) {
            return *at;
        }
    }
    return NULL;
}

const struct backend *backend_find(const char *name)
{
    return backend_choose(name, NULL, NULL);
}

int backend_load(const struct network *network, const struct backend_options *options,
                 const struct network **out, char *error, size_t error_size)
{
    if (options->load)
        return options->load(options->opaque, out, error, error_size);
    *out = network;
    return 0;
}

int backend_check_ranges(const struct network *network, const struct backend_options *options,
                         char *error, size_t error_size)
{
    if (!options->ranges) {
        snprintf(error, error_size,
                 "precision int8 needs the ranges of the network's activations, which 'unetctl "
                 "calibrate' finds");
        return -EINVAL;
    }
    if (options->ranges->layer_count != network->layer_count) {
        snprintf(error, error_size, "the ranges for int8 are of another network");
        return -EINVAL;
    }
    return 0;
}

int backend_copy_network(const struct network *network, struct network *out)
{
    *out = *network;
    out->layers = calloc(network->layer_count, sizeof *out->layers);
    if (!out->layers)
        return -ENOMEM;
    for (size_t i = 0; i < network->layer_count; i++) {
        out->layers[i] = network->layers[i];
        out->layers[i].weights = NULL;
        out->layers[i].bias = NULL;
    }
    return 0;
}

bool backend_size_fits(const struct network *network, uint32_t size)
{
    uint32_t multiple = network->size_multiple > 0 ? network->size_multiple : 1;
    return size > 0 && size >= network->size_min && size % multiple == 0;
}

bool backend_batch_fits(const struct network *network, const struct backend_batch *batch)
{
    switch (batch->dtype) {
    case UNETSERVE_U8:
    case UNETSERVE_I8:
    case UNETSERVE_U16:
    case UNETSERVE_I16:
    case UNETSERVE_F16:
    case UNETSERVE_F32: break;
    default: return false;
    }
    return batch->count > 0 && backend_size_fits(network, batch->height) &&
           backend_size_fits(network, batch->width);
}

struct backend_batch backend_part(const struct backend_batch *batch, uint32_t first, uint32_t count)
{
    struct backend_batch part = *batch;
    part.count = count;
    part.inputs += first;
    part.labels = batch->labels ? batch->labels + first : NULL;
    part.logits = batch->logits ? batch->logits + first : NULL;
    return part;
}

static void widen_u8(const uint8_t *in, size_t elements, float *out)
{
    for (size_t i = 0; i < elements; i++)
        out[i] = (float)in[i];
}

static void widen_i8(const int8_t *in, size_t elements, float *out)
{
    for (size_t i = 0; i < elements; i++)
        out[i] = (float)in[i];
}

static void widen_u16(const uint16_t *in, size_t elements, float *out)
{
    for (size_t i = 0; i < elements; i++)
        out[i] = (float)in[i];
}

static void widen_i16(const int16_t *in, size_t elements, float *out)
{
    for (size_t i = 0; i < elements; i++)
        out[i] = (float)in[i];
}

static void widen_f16(const uint16_t *in, size_t elements, float *out)
{
    for (size_t i = 0; i < elements; i++)
        out[i] = half_to_f32(in[i]);
}

void backend_preprocess_f32(const struct backend_preprocess *preprocess, uint32_t dtype,
                            const void *in, size_t elements, float *out)
{
    switch (dtype) {
    case UNETSERVE_U8: widen_u8(in, elements, out); break;
    case UNETSERVE_I8: widen_i8(in, elements, out); break;
    case UNETSERVE_U16: widen_u16(in, elements, out); break;
    case UNETSERVE_I16: widen_i16(in, elements, out); break;
    case UNETSERVE_F16: widen_f16(in, elements, out); break;
    default: memcpy(out, in, elements * sizeof *out); break;
    }
    float offset = preprocess->offset;
    float scale = preprocess->scale;
    for (size_t i = 0; i < elements; i++)
        out[i] = (out[i] + offset) / scale;
    if (!preprocess->clip)
        return;
    /* Comparisons that a NaN fails, so that it stays one, as in numpy and torch. */
    for (size_t i = 0; i < elements; i++) {
        float value = out[i] < preprocess->clip_low ? preprocess->clip_low : out[i];
        out[i] = value > preprocess->clip_high ? preprocess->clip_high : value;
    }
}
