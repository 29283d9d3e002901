#include "amx_plan.h"

#include <errno.h>
#include <stdlib.h>

static int fill_conv(const struct network *network, const struct amx_layout *layout, size_t index,
                     struct amx_conv *conv)
{
    const struct network_layer *layer = &network->layers[index];
    const struct amx_shape *shape = &conv->weights->shape;
    struct onednn_view in = amx_layout_view(layout, layer->inputs[0], NULL);
    const struct amx_value *result =
        &layout->values[layer->op == NETWORK_CONV_UP ? layer->inputs[0] : index + 1];
    conv->up = layer->op == NETWORK_CONV_UP;
    conv->stride = conv->up ? 1 : layer->stride;
    conv->padding = conv->up ? 0 : layer->padding;
    conv->relu = layer->relu;
    conv->height = result->height;
    conv->width = result->width;
    conv->tile_pixels = amx_tile_pixels(conv->width);
    conv->labels = layout->result_at_once && index + 1 == layout->result;
    conv->pools = layout->layers[index].pooled != 0;
    conv->offsets = (size_t *)calloc(shape->steps, sizeof *conv->offsets);
    if (conv->offsets == NULL) {
        return -ENOMEM;
    }
    for (size_t s = 0; s < shape->steps; s++) {
        conv->offsets[s] = amx_step_offset(shape, s, in.width + 2 * in.border, in.pitch) *
                           shape->element;
    }
    return 0;
}

/* Batches that all threads share evenly need no cuts. */
static size_t bands_for(uint32_t threads, uint32_t count)
{
    return count % threads == 0 ? 1 : threads;
}

static int fill(const struct network *network, const struct amx_kernels *kernels,
                const struct amx_weights *weights, struct amx_plan *plan)
{
    for (size_t i = 0; i < network->layer_count; i++) {
        struct amx_conv *conv = &plan->convs[i];
        *conv = (struct amx_conv){.kernels = kernels, .weights = &weights[i]};
        int error = weights[i].packed != NULL ? fill_conv(network, &plan->layout, i, conv) : 0;
        if (error != 0) {
            return error;
        }
    }
    for (size_t i = 0; i < plan->layout.group_count; i++) {
        const struct amx_group *group = &plan->layout.groups[i];
        int error = group->mode == AMX_MODE_ROWS
                        ? amx_bands_create(network, &plan->layout, group, plan->bands_a_tile,
                                           &plan->bands[i])
                        : 0;
        if (error != 0) {
            return error;
        }
    }
    return 0;
}

int amx_plan_create(const struct network *network, const struct quantise_plan *codes,
                    const struct amx_kernels *kernels, const struct amx_weights *weights,
                    uint32_t threads, uint32_t count, uint32_t height, uint32_t width,
                    struct amx_plan *out)
{
    struct amx_plan plan = {.layer_count = network->layer_count,
                            .bands_a_tile = bands_for(threads, count)};
    int error = amx_layout_create(network, codes, threads, count, height, width, &plan.layout);
    if (error != 0) {
        return error;
    }
    plan.convs = (struct amx_conv *)calloc(network->layer_count, sizeof *plan.convs);
    plan.bands = (struct amx_bands *)calloc(network->layer_count, sizeof *plan.bands);
    error = plan.convs == NULL || plan.bands == NULL ? -ENOMEM : 0;
    if (error == 0) {
        error = fill(network, kernels, weights, &plan);
    }
    if (error != 0) {
        amx_plan_free(&plan);
        return error;
    }
    *out = plan;
    return 0;
}

void amx_plan_free(struct amx_plan *plan)
{
    for (size_t i = 0; i < plan->layer_count; i++) {
        if (plan->convs != NULL) {
            free(plan->convs[i].offsets);
        }
        if (plan->bands != NULL) {
            amx_bands_free(&plan->bands[i]);
        }
    }
    free(plan->convs);
    free(plan->bands);
    amx_layout_free(&plan->layout);
    *plan = (struct amx_plan){0};
}

void amx_plan_bind(const struct network *network, struct amx_plan *plan, unsigned char *arena)
{
    for (size_t i = 0; i < plan->layer_count; i++) {
        struct amx_conv *conv = &plan->convs[i];
        if (conv->offsets == NULL) {
            continue;
        }
        conv->in = amx_layout_view(&plan->layout, network->layers[i].inputs[0], arena);
        conv->out = amx_layout_view(&plan->layout, (uint32_t)i + 1, arena);
        if (conv->pools) {
            conv->pooled = amx_layout_view(&plan->layout, plan->layout.layers[i].pooled, arena);
        }
    }
}
