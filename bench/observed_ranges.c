#include "observed_ranges.h"

#include "workers/backends/backends.h"

#include <errno.h>
#include <stdlib.h>

static void observe(void *opaque, size_t layer, const struct backend_sight *sight)
{
    struct quantise_range *range = &((struct quantise_ranges *)opaque)->layers[layer];
    range->known = true;
    for (size_t p = 0; p < sight->pixels; p++) {
        const float *pixel = sight->data + p * sight->pitch;
        for (size_t c = 0; c < sight->channels; c++) {
            float value = pixel[c * sight->step];
            range->low = value < range->low ? value : range->low;
            range->high = value > range->high ? value : range->high;
        }
    }
}

int observed_ranges_make(const struct network *network, const struct backend_batch *batch,
                         uint32_t threads, struct quantise_ranges *out)
{
    struct quantise_ranges ranges = {.layer_count = network->layer_count};
    struct backend_options options = {
        .precision = "f32",
        .threads = threads,
        .preprocess = {.scale = 10000, .clip = true, .clip_low = 0, .clip_high = 1},
        .observe = observe,
        .opaque = &ranges,
    };
    void *instance = NULL;
    char reason[256];
    ranges.layers = (struct quantise_range *)calloc(network->layer_count, sizeof *ranges.layers);
    int error = ranges.layers == NULL ? -ENOMEM : 0;
    if (error == 0) {
        error = backend_onednn.create(network, &options, &instance, reason, sizeof reason);
    }
    if (error == 0) {
        error = backend_onednn.forward(instance, batch);
        backend_onednn.destroy(instance);
    }
    if (error != 0) {
        quantise_ranges_free(&ranges);
        return error;
    }
    ranges.layers[network->layer_count - 1].keep = true; /* as unetctl calibrate does */
    quantise_ranges_seal(&ranges);
    *out = ranges;
    return 0;
}
