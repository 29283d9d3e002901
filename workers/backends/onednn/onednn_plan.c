#include "onednn_plan.h"

#include "../clock.h"
#include "onednn_parallel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCRATCH_ALIGN_BYTES 4096u

static dnnl_data_type_t element_of(enum onednn_type type)
{
    switch (type) {
    case ONEDNN_BF16: return dnnl_bf16;
    case ONEDNN_U8: return dnnl_u8;
    case ONEDNN_S8: return dnnl_s8;
    case ONEDNN_F32: break;
    }
    return dnnl_f32;
}

/* ---- making ---- */

struct maker {
    const struct network *network;
    const struct onednn_machine *machine;
    struct onednn_plan *plan;
    uint32_t threads;
};

static const struct onednn_value *input_value(const struct maker *maker, size_t layer)
{
    const struct onednn_layout *layout = &maker->plan->layout;
    return &layout->values[layout->values[maker->network->layers[layer].inputs[0]].same_as];
}

static dnnl_status_t image_desc(const struct maker *maker, const struct onednn_value *value,
                                uint32_t channels, enum onednn_type type, dnnl_memory_desc_t *out)
{
    int64_t border = value->border;
    dnnl_dims_t dims = {maker->plan->layout.count, channels, value->height + 2 * border,
                        value->width + 2 * border};
    return dnnl_memory_desc_init_by_tag(out, 4, dims, element_of(type), dnnl_nhwc);
}

/* The output of the convolution itself: for CONV_UP, 4 x the channels at the input's size. */
static dnnl_status_t result_desc(const struct maker *maker, size_t layer, dnnl_memory_desc_t *out)
{
    const struct onednn_value *value = &maker->plan->layout.values[layer + 1];
    enum onednn_type type = maker->plan->layout.layers[layer].scratch_type;
    if (maker->network->layers[layer].op == NETWORK_CONV_UP) {
        struct onednn_value plain = *input_value(maker, layer);
        plain.border = 0;
        return image_desc(maker, &plain, 4 * value->channels, type, out);
    }
    return image_desc(maker, value, value->channels, type, out);
}

/* Codes end at 0 of their own accord. */
static bool wants_relu(const struct maker *maker, size_t index)
{
    return maker->network->layers[index].relu &&
           maker->plan->layout.layers[index].scratch_type != ONEDNN_U8;
}

/* The attributes of a convolution of integers, of which the caller owns a copy. */
static dnnl_status_t integer_attr(const struct maker *maker, size_t index,
                                  const struct onednn_weights *weights, dnnl_primitive_attr_t *out)
{
    const_dnnl_primitive_attr_t like = wants_relu(maker, index) ? maker->machine->relu
                                                                : maker->machine->plain;
    dnnl_status_t status = dnnl_primitive_attr_clone(out, like);
    if (status == dnnl_success) {
        status = dnnl_primitive_attr_set_output_scales(*out, weights->dims[0], 1 << 1,
                                                       weights->scales);
    }
    return status;
}

static dnnl_status_t describe_with_attr(const struct maker *maker, size_t index,
                                        const struct onednn_weights *weights,
                                        const dnnl_convolution_desc_t *convolution,
                                        dnnl_primitive_desc_t *desc)
{
    dnnl_engine_t engine = maker->machine->engine;
    if (weights->type != ONEDNN_S8) {
        const_dnnl_primitive_attr_t attr = wants_relu(maker, index) ? maker->machine->relu
                                                                    : maker->machine->plain;
        return dnnl_primitive_desc_create(desc, convolution, attr, engine, NULL);
    }
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t status = integer_attr(maker, index, weights, &attr);
    if (status == dnnl_success) {
        status = dnnl_primitive_desc_create(desc, convolution, attr, engine, NULL);
    }
    if (attr != NULL) {
        dnnl_primitive_attr_destroy(attr);
    }
    return status;
}

static dnnl_status_t describe(const struct maker *maker, size_t index,
                              const struct onednn_weights *weights, dnnl_memory_desc_t *in,
                              dnnl_memory_desc_t *out, dnnl_primitive_desc_t *desc)
{
    const struct network_layer *layer = &maker->network->layers[index];
    const struct onednn_value *value = input_value(maker, index);
    dnnl_memory_desc_t any;
    dnnl_memory_desc_t bias;
    dnnl_convolution_desc_t convolution;
    bool up = layer->op == NETWORK_CONV_UP;
    int64_t padding = up ? 0 : (int64_t)layer->padding - value->border;
    int64_t stride = up ? 1 : layer->stride;
    dnnl_dims_t strides = {stride, stride};
    dnnl_dims_t paddings = {padding, padding};
    dnnl_status_t status = image_desc(maker, value, value->pitch, value->type, in);
    if (status == dnnl_success) {
        status = result_desc(maker, index, out);
    }
    if (status == dnnl_success) {
        status = dnnl_memory_desc_init_by_tag(&any, 4, weights->dims, element_of(weights->type),
                                              dnnl_format_tag_any);
    }
    if (status == dnnl_success) {
        status = dnnl_memory_desc_init_by_tag(&bias, 1, weights->dims, dnnl_f32, dnnl_x);
    }
    if (status == dnnl_success) {
        status = dnnl_convolution_forward_desc_init(&convolution, dnnl_forward_inference,
                                                    dnnl_convolution_direct, in, &any, &bias, out,
                                                    strides, paddings, paddings);
    }
    if (status == dnnl_success) {
        status = describe_with_attr(maker, index, weights, &convolution, desc);
    }
    return status;
}

static dnnl_status_t make_memories(const struct maker *maker, const_dnnl_primitive_desc_t desc,
                                   const dnnl_memory_desc_t *in, const dnnl_memory_desc_t *out,
                                   struct onednn_step *step)
{
    dnnl_engine_t engine = maker->machine->engine;
    const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md,
                                                                     0);
    size_t bytes = scratch != NULL ? dnnl_memory_desc_get_size(scratch) : 0;
    dnnl_status_t status = dnnl_memory_create(&step->in, in, engine, DNNL_MEMORY_NONE);
    if (status == dnnl_success) {
        status = dnnl_memory_create(&step->out, out, engine, DNNL_MEMORY_NONE);
    }
    if (status == dnnl_success && bytes > 0) {
        status = dnnl_memory_create(&step->scratch, scratch, engine, DNNL_MEMORY_NONE);
    }
    if (bytes > maker->plan->scratch_bytes) {
        maker->plan->scratch_bytes = bytes;
    }
    return status;
}

static int fill_step(const struct maker *maker, const_dnnl_primitive_desc_t desc,
                     struct onednn_weights *weights, struct onednn_step *step)
{
    const char *name = NULL;
    if (dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, (void *)&name) ==
            dnnl_success &&
        name != NULL) {
        strncpy(step->implementation, name, sizeof step->implementation - 1);
    }
    const dnnl_memory_desc_t *form = dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0);
    int error = onednn_weights_get(maker->machine, weights, form, &step->weights);
    if (error == 0) {
        step->bias = weights->bias_memory;
        error = onednn_error(dnnl_primitive_create(&step->primitive, desc));
    }
    return error;
}

static void set_offsets(const struct maker *maker, size_t layer, struct onednn_step *step)
{
    const struct onednn_layout *layout = &maker->plan->layout;
    const struct onednn_placing *placing = &layout->layers[layer];
    step->in_offset = input_value(maker, layer)->offset;
    step->out_offset = placing->has_scratch ? placing->scratch : layout->values[layer + 1].offset;
}

static void make_winograd(const struct maker *maker, size_t layer,
                          const struct onednn_weights *weights)
{
    struct onednn_plan *plan = maker->plan;
    struct onednn_step *step = &plan->steps[layer];
    const struct onednn_value *in = input_value(maker, layer);
    struct onednn_winograd_layer sizes = {.in_channels = in->channels,
                                          .out_channels = maker->network->layers[layer].channels,
                                          .count = plan->layout.count,
                                          .height = in->height,
                                          .width = in->width};
    size_t bytes = onednn_winograd_scratch_bytes(weights->winograd, &sizes, maker->threads);
    plan->scratch_bytes = bytes > plan->scratch_bytes ? bytes : plan->scratch_bytes;
    step->winograd = weights;
    snprintf(step->implementation, sizeof step->implementation, "winograd:%s",
             weights->winograd->name);
}

static int make_step(const struct maker *maker, size_t layer, struct onednn_weights *weights)
{
    if (weights->winograd != NULL) {
        make_winograd(maker, layer, weights);
        return 0;
    }
    struct onednn_step *step = &maker->plan->steps[layer];
    dnnl_memory_desc_t in;
    dnnl_memory_desc_t out;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t status = describe(maker, layer, weights, &in, &out, &desc);
    if (status != dnnl_success) {
        return onednn_error(status);
    }
    set_offsets(maker, layer, step);
    int error = onednn_error(make_memories(maker, desc, &in, &out, step));
    if (error == 0) {
        error = fill_step(maker, desc, weights, step);
    }
    dnnl_primitive_desc_destroy(desc);
    return error;
}

int onednn_plan_create(const struct network *network, const struct onednn_machine *machine,
                       enum onednn_type type, const struct quantise_plan *codes,
                       struct onednn_weights *weights, uint32_t threads, uint32_t count,
                       uint32_t height, uint32_t width, size_t *busy, struct onednn_plan *out)
{
    struct onednn_plan plan = {.layer_count = network->layer_count};
    struct maker maker = {
        .network = network, .machine = machine, .plan = &plan, .threads = threads};
    int error = onednn_layout_create(network, type, codes, count, height, width, &plan.layout);
    if (error != 0) {
        return error;
    }
    plan.steps = (struct onednn_step *)calloc(network->layer_count, sizeof *plan.steps);
    error = plan.steps == NULL ? -ENOMEM : 0;
    for (size_t i = 0; i < network->layer_count && error == 0; i++) {
        enum network_op op = network->layers[i].op;
        if (op == NETWORK_CONV || op == NETWORK_CONV_UP) {
            error = make_step(&maker, i, &weights[i]);
            *busy = i;
        }
    }
    if (error != 0) {
        onednn_plan_free(&plan);
        return error;
    }
    *out = plan;
    return 0;
}

static void memory_free(dnnl_memory_t memory)
{
    if (memory != NULL) {
        dnnl_memory_destroy(memory);
    }
}

void onednn_plan_free(struct onednn_plan *plan)
{
    for (size_t i = 0; plan->steps != NULL && i < plan->layer_count; i++) {
        struct onednn_step *step = &plan->steps[i];
        if (step->primitive != NULL) {
            dnnl_primitive_destroy(step->primitive);
        }
        memory_free(step->in);
        memory_free(step->out);
        memory_free(step->scratch);
    }
    free(plan->steps);
    onednn_layout_free(&plan->layout);
    *plan = (struct onednn_plan){0};
}

/* ---- binding ---- */

static size_t scratch_offset(const struct onednn_plan *plan)
{
    size_t bytes = plan->layout.arena_bytes + SCRATCH_ALIGN_BYTES - 1;
    return bytes / SCRATCH_ALIGN_BYTES * SCRATCH_ALIGN_BYTES;
}

size_t onednn_plan_arena_bytes(const struct onednn_plan *plan)
{
    return scratch_offset(plan) + plan->scratch_bytes;
}

int onednn_plan_bind(struct onednn_plan *plan, unsigned char *arena)
{
    dnnl_status_t status = dnnl_success;
    for (size_t i = 0; i < plan->layer_count && status == dnnl_success; i++) {
        const struct onednn_step *step = &plan->steps[i];
        if (step->primitive == NULL) {
            continue;
        }
        status = dnnl_memory_set_data_handle(step->in, arena + step->in_offset);
        if (status == dnnl_success) {
            status = dnnl_memory_set_data_handle(step->out, arena + step->out_offset);
        }
        if (status == dnnl_success && step->scratch != NULL) {
            status = dnnl_memory_set_data_handle(step->scratch, arena + scratch_offset(plan));
        }
    }
    plan->arena = status == dnnl_success ? arena : NULL;
    return onednn_error(status) == 0 ? 0 : -EIO;
}

/* ---- running ---- */

struct runner {
    const struct onednn_plan *plan;
    const struct onednn_run *run;
    struct onednn_crew crew;
};

static uint64_t now_ns(const struct onednn_run *run)
{
    return run->times != NULL ? clock_now_ns() : 0;
}

static struct onednn_view view_of(const struct runner *r, uint32_t value)
{
    return onednn_layout_view(&r->plan->layout, value, r->plan->arena);
}

static int run_convolution(const struct runner *r, const struct onednn_step *step)
{
    dnnl_exec_arg_t args[5] = {{DNNL_ARG_SRC, step->in},
                               {DNNL_ARG_WEIGHTS, step->weights},
                               {DNNL_ARG_BIAS, step->bias},
                               {DNNL_ARG_DST, step->out},
                               {DNNL_ARG_SCRATCHPAD, step->scratch}};
    int count = step->scratch != NULL ? 5 : 4;
    dnnl_status_t status = dnnl_primitive_execute(step->primitive, r->run->machine->stream, count,
                                                  args);
    return status == dnnl_success ? 0 : -EIO;
}

static void run_winograd(const struct runner *r, size_t layer)
{
    const struct network_layer *conv = &r->run->network->layers[layer];
    const struct onednn_weights *weights = r->plan->steps[layer].winograd;
    struct onednn_view in = view_of(r, conv->inputs[0]);
    struct onednn_view out = view_of(r, (uint32_t)layer + 1);
    struct onednn_winograd_layer call = {.in = (const float *)in.data,
                                         .in_pitch = in.pitch,
                                         .in_channels = in.channels,
                                         .out = (float *)out.data,
                                         .out_pitch = out.pitch,
                                         .out_channels = out.channels,
                                         .weights = (const float *)weights->forms[0].data,
                                         .bias = weights->bias,
                                         .count = r->crew.count,
                                         .height = in.height,
                                         .width = in.width,
                                         .relu = conv->relu};
    onednn_winograd_run(weights->winograd, &call, r->crew.threads,
                        r->plan->arena + scratch_offset(r->plan));
}

/* From what the convolution put out to the layer's value. */
static void run_from_scratch(const struct runner *r, size_t layer)
{
    const struct network_layer *conv = &r->run->network->layers[layer];
    const struct onednn_placing *placing = &r->plan->layout.layers[layer];
    struct onednn_view out = view_of(r, (uint32_t)layer + 1);
    bool up = conv->op == NETWORK_CONV_UP;
    struct onednn_view in = up ? view_of(r, conv->inputs[0]) : out;
    if (!placing->has_scratch) {
        return;
    }
    in.data = r->plan->arena + placing->scratch;
    in.type = placing->scratch_type;
    in.channels = in.pitch = (up ? 4 : 1) * out.channels;
    in.border = 0;
    if (up) {
        onednn_kernel_shuffle(&r->crew, &in, &out);
    } else {
        onednn_kernel_copy(&r->crew, &in, &out);
    }
}

/* The half of a concatenation that its input number `which` fills. */
static struct onednn_view half_of(const struct runner *r, uint32_t joined, uint32_t which)
{
    const struct network_layer *layer = &r->run->network->layers[joined - 1];
    struct onednn_view first = view_of(r, layer->inputs[0]);
    struct onednn_view half = view_of(r, joined);
    size_t skipped = which == 0 ? 0 : first.channels * onednn_type_bytes(half.type);
    half.data = (unsigned char *)half.data + skipped;
    half.channels = which == 0 ? first.channels : half.channels - first.channels;
    half.first_code = which == 0 ? 0 : first.channels;
    return half;
}

static void run_pool(const struct runner *r, size_t layer)
{
    const struct network_layer *pool = &r->run->network->layers[layer];
    const struct onednn_placing *placing = &r->plan->layout.layers[layer];
    struct onednn_view in = view_of(r, pool->inputs[0]);
    struct onednn_view out = view_of(r, (uint32_t)layer + 1);
    struct onednn_window window = {pool->kernel, pool->stride, pool->padding};
    struct onednn_view copy = {0};
    if (placing->also != 0) {
        copy = half_of(r, placing->also, placing->also_second);
    }
    onednn_kernel_pool(&r->crew, &in, &window, &out, placing->also != 0 ? &copy : NULL);
}

static void run_concat(const struct runner *r, size_t layer)
{
    const struct network_layer *concat = &r->run->network->layers[layer];
    for (uint32_t k = 0; k < 2; k++) {
        if (r->plan->layout.layers[layer].copies[k]) {
            struct onednn_view in = view_of(r, concat->inputs[k]);
            struct onednn_view out = half_of(r, (uint32_t)layer + 1, k);
            onednn_kernel_copy(&r->crew, &in, &out);
        }
    }
}

static void run_add(const struct runner *r, size_t layer, const struct onednn_view *out)
{
    const struct network_layer *add = &r->run->network->layers[layer];
    struct onednn_view a = view_of(r, add->inputs[0]);
    struct onednn_view b = view_of(r, add->inputs[1]);
    onednn_kernel_add(&r->crew, &a, &b, add->relu, out);
}

static void run_own(const struct runner *r, size_t layer)
{
    const struct network_layer *l = &r->run->network->layers[layer];
    if (r->plan->layout.values[layer + 1].same_as != layer + 1) {
        return;
    }
    struct onednn_view in = view_of(r, l->inputs[0]);
    struct onednn_view out = view_of(r, (uint32_t)layer + 1);
    switch (l->op) {
    case NETWORK_CONV:
    case NETWORK_CONV_UP: run_from_scratch(r, layer); break;
    case NETWORK_MAX_POOL: run_pool(r, layer); break;
    case NETWORK_UPSAMPLE: onednn_kernel_upsample(&r->crew, &in, l->upsample, &out); break;
    case NETWORK_CONCAT: run_concat(r, layer); break;
    case NETWORK_FIT: onednn_kernel_fit(&r->crew, &in, &out); break;
    case NETWORK_ADD: run_add(r, layer, &out); break;
    }
    if (r->plan->layout.values[layer + 1].border > 0) {
        onednn_kernel_border(&r->crew, &out);
    }
}

static void show(const struct runner *r, size_t layer)
{
    struct onednn_view out = view_of(r, (uint32_t)layer + 1);
    struct backend_sight sight = {.data = (const float *)out.data,
                                  .channels = out.channels,
                                  .step = 1,
                                  .pitch = out.pitch,
                                  .pixels = r->crew.count * out.height * out.width};
    r->run->options->observe(r->run->options->opaque, layer, &sight);
}

static int run_layer(const struct runner *r, size_t layer)
{
    const struct onednn_step *step = &r->plan->steps[layer];
    uint64_t start = now_ns(r->run);
    int error = step->primitive != NULL ? run_convolution(r, step) : 0;
    if (step->winograd != NULL) {
        run_winograd(r, layer);
    }
    uint64_t between = now_ns(r->run);
    if (error == 0) {
        run_own(r, layer);
    }
    if (r->run->times != NULL) {
        r->run->times[layer + 1] = (struct onednn_time){.convolution_ns = between - start,
                                                        .own_ns = now_ns(r->run) - between};
    }
    return error;
}

static void run_store(const struct runner *r, const struct backend_batch *batch)
{
    const struct onednn_layout *layout = &r->plan->layout;
    struct onednn_view result = view_of(r, layout->result);
    if (result.type == ONEDNN_F32) {
        onednn_kernel_store(&r->crew, &result, batch);
        return;
    }
    struct onednn_view wide = result;
    wide.data = r->plan->arena + layout->result_offset;
    wide.pitch = result.channels;
    wide.type = ONEDNN_F32;
    onednn_kernel_widen(&r->crew, &result, &wide);
    onednn_kernel_store(&r->crew, &wide, batch);
}

static void tick(const struct onednn_run *run)
{
    if (run->options->tick != NULL) {
        run->options->tick(run->options->opaque);
    }
}

static void note_own(const struct onednn_run *run, size_t index, uint64_t start)
{
    if (run->times != NULL) {
        run->times[index] = (struct onednn_time){.own_ns = now_ns(run) - start};
    }
}

int onednn_plan_run(const struct onednn_plan *plan, const struct onednn_run *run,
                    const struct backend_batch *batch)
{
    struct runner r = {
        .plan = plan,
        .run = run,
        .crew = {.rows = run->rows, .threads = run->options->threads, .count = plan->layout.count}};
    struct onednn_view input = view_of(&r, 0);
    uint64_t start = now_ns(run);
    onednn_kernel_load(&r.crew, &run->options->preprocess, batch, &input);
    note_own(run, 0, start);
    for (size_t i = 0; i < plan->layer_count; i++) {
        tick(run);
        int error = run_layer(&r, i);
        if (error != 0) {
            return error;
        }
        if (run->options->observe != NULL) {
            show(&r, i);
        }
    }
    tick(run);
    if (dnnl_stream_wait(run->machine->stream) != dnnl_success) {
        return -EIO;
    }
    start = now_ns(run);
    run_store(&r, batch);
    note_own(run, plan->layer_count + 1, start);
    return 0;
}
