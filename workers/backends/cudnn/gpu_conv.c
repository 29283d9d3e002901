#include "gpu_conv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MOST_CONFIGS  64
#define ALIGN_BYTES   16
#define VIRTUAL_FIRST 100 /* numbers of tensors that no memory is given for */

/* Descriptors that live as long as a plan is made; the plan keeps what it needs. */
#define MOST_PARTS 24

struct maker {
    const struct gpu_place *place;
    const struct gpu_conv_shape *shape;
    cudnnBackendDescriptor_t parts[MOST_PARTS];
    size_t part_count;
    cudnnStatus_t status; /* the first failure; later calls do nothing */
};

static void keep(struct maker *m, cudnnStatus_t status)
{
    if (m->status == CUDNN_STATUS_SUCCESS) {
        m->status = status;
    }
}

static cudnnBackendDescriptor_t part(struct maker *m, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t made = NULL;
    if (m->part_count == MOST_PARTS) {
        keep(m, CUDNN_STATUS_INTERNAL_ERROR);
    }
    if (m->status == CUDNN_STATUS_SUCCESS) {
        keep(m, m->place->cudnn->cudnnBackendCreateDescriptor(type, &made));
    }
    if (m->status != CUDNN_STATUS_SUCCESS) {
        return NULL;
    }
    m->parts[m->part_count++] = made;
    return made;
}

static void set(struct maker *m, cudnnBackendDescriptor_t part, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    if (m->status == CUDNN_STATUS_SUCCESS) {
        keep(m, m->place->cudnn->cudnnBackendSetAttribute(part, name, type, count, values));
    }
}

static void set_part(struct maker *m, cudnnBackendDescriptor_t part,
                     cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value)
{
    set(m, part, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void finish(struct maker *m, cudnnBackendDescriptor_t part)
{
    if (m->status == CUDNN_STATUS_SUCCESS) {
        keep(m, m->place->cudnn->cudnnBackendFinalize(part));
    }
}

/* For the device: by its handle, or by its description. */
static void set_place(struct maker *m, cudnnBackendDescriptor_t part,
                      cudnnBackendAttributeName_t handle, cudnnBackendAttributeName_t properties)
{
    if (m->place->properties != NULL) {
        set_part(m, part, properties, m->place->properties);
    } else {
        set(m, part, handle, CUDNN_TYPE_HANDLE, 1, &m->place->handle);
    }
}

static void drop_parts(struct maker *m)
{
    while (m->part_count > 0) {
        m->place->cudnn->cudnnBackendDestroyDescriptor(m->parts[--m->part_count]);
    }
}

/* ---- the operation graph ---- */

static cudnnDataType_t data_type(int32_t type)
{
    return type == GPU_BF16  ? CUDNN_DATA_BFLOAT16
           : type == GPU_F16 ? CUDNN_DATA_HALF
                             : CUDNN_DATA_FLOAT;
}

/* Packed, channels innermost. Numbers from VIRTUAL_FIRST are virtual. */
static cudnnBackendDescriptor_t tensor(struct maker *m, int64_t number, cudnnDataType_t type,
                                       const int64_t dims[4])
{
    cudnnBackendDescriptor_t made = part(m, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    int64_t strides[4] = {dims[1] * dims[2] * dims[3], 1, dims[1] * dims[3], dims[1]};
    int64_t align = ALIGN_BYTES;
    bool is_virtual = number >= VIRTUAL_FIRST;
    set(m, made, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(m, made, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    set(m, made, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    set(m, made, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &number);
    set(m, made, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align);
    set(m, made, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    finish(m, made);
    return made;
}

static cudnnBackendDescriptor_t window(struct maker *m)
{
    cudnnBackendDescriptor_t made = part(m, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    cudnnDataType_t sums = CUDNN_DATA_FLOAT;
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    int64_t dims = 2;
    int64_t ones[2] = {1, 1};
    int64_t strides[2] = {m->shape->stride, m->shape->stride};
    int64_t padding[2] = {m->shape->padding, m->shape->padding};
    set(m, made, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums);
    set(m, made, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set(m, made, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims);
    set(m, made, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, ones);
    set(m, made, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides);
    set(m, made, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, padding);
    set(m, made, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, padding);
    finish(m, made);
    return made;
}

static cudnnBackendDescriptor_t convolve(struct maker *m, cudnnBackendDescriptor_t out)
{
    const struct gpu_conv_shape *s = m->shape;
    const int64_t in_dims[4] = {s->count, s->in_depth, s->in_height, s->in_width};
    const int64_t weight_dims[4] = {s->out_depth, s->in_depth, s->kernel, s->kernel};
    cudnnBackendDescriptor_t in = tensor(m, GPU_IN, data_type(s->type), in_dims);
    cudnnBackendDescriptor_t weights = tensor(m, GPU_WEIGHTS, data_type(s->type), weight_dims);
    cudnnBackendDescriptor_t how = window(m);
    cudnnBackendDescriptor_t made = part(m, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    float one = 1.0f;
    float zero = 0.0f;
    set_part(m, made, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, how);
    set_part(m, made, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, in);
    set_part(m, made, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, weights);
    set_part(m, made, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, out);
    set(m, made, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one);
    set(m, made, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero);
    finish(m, made);
    return made;
}

/* out = mode(in), or mode(in, second). */
static cudnnBackendDescriptor_t pointwise(struct maker *m, cudnnPointwiseMode_t mode,
                                          cudnnBackendDescriptor_t in,
                                          cudnnBackendDescriptor_t second,
                                          cudnnBackendDescriptor_t out)
{
    cudnnDataType_t precision = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t how = part(m, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    set(m, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set(m, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &precision);
    finish(m, how);
    cudnnBackendDescriptor_t made = part(m, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_part(m, made, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set_part(m, made, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, in);
    if (second != NULL) {
        set_part(m, made, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, second);
    }
    set_part(m, made, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, out);
    finish(m, made);
    return made;
}

static cudnnBackendDescriptor_t graph(struct maker *m)
{
    const struct gpu_conv_shape *s = m->shape;
    const int64_t dims[4] = {s->count, s->out_depth, s->out_height, s->out_width};
    const int64_t bias_dims[4] = {1, s->out_depth, 1, 1};
    cudnnDataType_t type = data_type(s->type);
    cudnnBackendDescriptor_t sums = tensor(m, VIRTUAL_FIRST, CUDNN_DATA_FLOAT, dims);
    cudnnBackendDescriptor_t bias = tensor(m, GPU_BIAS, type, bias_dims);
    cudnnBackendDescriptor_t out = tensor(m, GPU_OUT, type, dims);
    cudnnBackendDescriptor_t biased = out;
    if (s->relu) {
        biased = tensor(m, VIRTUAL_FIRST + 1, CUDNN_DATA_FLOAT, dims);
    }
    cudnnBackendDescriptor_t operations[3];
    operations[0] = convolve(m, sums);
    operations[1] = pointwise(m, CUDNN_POINTWISE_ADD, sums, bias, biased);
    if (s->relu) {
        operations[2] = pointwise(m, CUDNN_POINTWISE_RELU_FWD, biased, NULL, out);
    }
    cudnnBackendDescriptor_t made = part(m, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(m, made, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, s->relu ? 3 : 2,
        operations);
    if (m->place->handle != NULL) {
        set(m, made, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &m->place->handle);
    }
    finish(m, made);
    return made;
}

/* ---- engines ---- */

/* What a note means in words; the enumerators' order is cuDNN's. */
static void add_note(const char *note, char *text, size_t size)
{
    size_t used = strlen(text);
    snprintf(text + used, size - used, "%s%s", used > 0 ? " " : "", note);
}

static void read_notes(const struct gpu_cudnn *cudnn, cudnnBackendDescriptor_t engine,
                       struct gpu_conv *out)
{
    cudnnBackendNumericalNote_t numerical[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    cudnnBackendBehaviorNote_t behaviour[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    int64_t count = 0;
    if (cudnn->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                        CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT,
                                        &count, numerical) != CUDNN_STATUS_SUCCESS) {
        count = 0;
    }
    for (int64_t i = 0; i < count; i++) {
        out->tensor_core |= numerical[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
    }
    if (out->tensor_core) {
        add_note("tensor_core", out->notes, sizeof out->notes);
    }
    if (cudnn->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE,
                                        CUDNN_TYPE_BEHAVIOR_NOTE, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT,
                                        &count, behaviour) != CUDNN_STATUS_SUCCESS) {
        count = 0;
    }
    for (int64_t i = 0; i < count; i++) {
        switch (behaviour[i]) {
        case CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION:
            add_note("runtime_compilation", out->notes, sizeof out->notes);
            break;
        case CUDNN_BEHAVIOR_NOTE_REQUIRES_FILTER_INT8x32_REORDER:
        case CUDNN_BEHAVIOR_NOTE_REQUIRES_BIAS_INT8x32_REORDER:
            add_note("reorder", out->notes, sizeof out->notes);
            break;
        default: break;
        }
    }
}

static void read_knobs(const struct gpu_cudnn *cudnn, cudnnBackendDescriptor_t config,
                       struct gpu_engine *out)
{
    cudnnBackendDescriptor_t choices[GPU_MAX_KNOBS] = {NULL};
    int64_t made = 0;
    int64_t count = 0;
    int64_t one = 0;
    while (made < GPU_MAX_KNOBS &&
           cudnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR,
                                               &choices[made]) == CUDNN_STATUS_SUCCESS) {
        made++;
    }
    if (cudnn->cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, made, &count,
                                        choices) != CUDNN_STATUS_SUCCESS) {
        count = 0;
    }
    for (int64_t i = 0; i < count && i < made; i++) {
        cudnnBackendKnobType_t type;
        int64_t value = 0;
        if (cudnn->cudnnBackendGetAttribute(choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE,
                                            CUDNN_TYPE_KNOB_TYPE, 1, &one,
                                            &type) == CUDNN_STATUS_SUCCESS &&
            cudnn->cudnnBackendGetAttribute(choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE,
                                            CUDNN_TYPE_INT64, 1, &one,
                                            &value) == CUDNN_STATUS_SUCCESS) {
            out->knobs[out->knob_count].type = (int32_t)type;
            out->knobs[out->knob_count++].value = value;
        }
    }
    while (made > 0) {
        cudnn->cudnnBackendDestroyDescriptor(choices[--made]);
    }
}

/* What stands in an engine configuration. */
static void read_config(const struct gpu_cudnn *cudnn, cudnnBackendDescriptor_t config,
                        struct gpu_conv *out)
{
    cudnnBackendDescriptor_t engine = NULL;
    int64_t count = 0;
    out->engine = (struct gpu_engine){.id = -1};
    if (cudnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) !=
        CUDNN_STATUS_SUCCESS) {
        return;
    }
    if (cudnn->cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                                        &engine) == CUDNN_STATUS_SUCCESS) {
        cudnn->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1,
                                        &count, &out->engine.id);
        read_notes(cudnn, engine, out);
        read_knobs(cudnn, config, &out->engine);
    }
    cudnn->cudnnBackendDestroyDescriptor(engine);
}

/* The plan of a configuration. */
static int finish_plan(const struct gpu_place *place, cudnnBackendDescriptor_t config,
                       struct gpu_conv *out)
{
    struct maker m = {.place = place};
    struct gpu_conv conv = {0};
    int64_t count = 0;
    cudnnBackendDescriptor_t plan = part(&m, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    set_part(&m, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    set_place(&m, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP);
    finish(&m, plan);
    if (m.status == CUDNN_STATUS_SUCCESS) {
        keep(&m, place->cudnn->cudnnBackendGetAttribute(
                     plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count,
                     &conv.workspace_bytes));
    }
    if (m.status != CUDNN_STATUS_SUCCESS || conv.workspace_bytes > GPU_MAX_WORKSPACE_BYTES) {
        drop_parts(&m);
        return -ENOTSUP;
    }
    read_config(place->cudnn, config, &conv);
    conv.plan = plan;
    *out = conv;
    return 0;
}

/* What a heuristic proposes; results are the caller's to destroy. */
static int64_t propose(const struct gpu_place *place, cudnnBackendDescriptor_t graph,
                       cudnnBackendHeurMode_t mode, cudnnBackendDescriptor_t *configs)
{
    struct maker m = {.place = place};
    const struct gpu_cudnn *cudnn = place->cudnn;
    int64_t count = 0;
    int64_t made = 0;
    cudnnBackendDescriptor_t heuristic = part(&m, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_part(&m, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set(&m, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (place->properties != NULL) {
        set_part(&m, heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, place->properties);
    }
    finish(&m, heuristic);
    while (m.status == CUDNN_STATUS_SUCCESS && made < MOST_CONFIGS) {
        keep(&m, cudnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR,
                                                     &configs[made]));
        made += m.status == CUDNN_STATUS_SUCCESS;
    }
    if (m.status == CUDNN_STATUS_SUCCESS) {
        keep(&m,
             cudnn->cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                             CUDNN_TYPE_BACKEND_DESCRIPTOR, made, &count, configs));
    }
    int64_t good = m.status == CUDNN_STATUS_SUCCESS && count <= made ? count : 0;
    while (made > good) {
        cudnn->cudnnBackendDestroyDescriptor(configs[--made]);
    }
    drop_parts(&m);
    return good;
}

/* Tensor cores; but they round float factors, so who asks for float gets none. */
static bool is_wanted(const struct gpu_conv *conv, int32_t type)
{
    return conv->plan != NULL && conv->tensor_core == (type != GPU_F32);
}

/* The better of *best (none while its plan is NULL) and what one heuristic has. */
static void choose(const struct gpu_place *place, int32_t type, cudnnBackendDescriptor_t graph,
                   cudnnBackendHeurMode_t mode, struct gpu_conv *best)
{
    cudnnBackendDescriptor_t configs[MOST_CONFIGS];
    int64_t count = propose(place, graph, mode, configs);
    for (int64_t i = 0; i < count; i++) {
        struct gpu_conv conv;
        if (!is_wanted(best, type) && finish_plan(place, configs[i], &conv) == 0) {
            if (best->plan == NULL || is_wanted(&conv, type)) {
                gpu_conv_free(place->cudnn, best);
                *best = conv;
            } else {
                gpu_conv_free(place->cudnn, &conv);
            }
        }
        place->cudnn->cudnnBackendDestroyDescriptor(configs[i]);
    }
}

int gpu_conv_plan(const struct gpu_place *place, const struct gpu_conv_shape *shape,
                  struct gpu_conv *out, char *error, size_t error_size)
{
    struct maker m = {.place = place, .shape = shape};
    struct gpu_conv best = {0};
    cudnnBackendDescriptor_t made = graph(&m);
    if (m.status == CUDNN_STATUS_SUCCESS) {
        choose(place, shape->type, made, CUDNN_HEUR_MODE_A, &best);
    }
    if (m.status == CUDNN_STATUS_SUCCESS && !is_wanted(&best, shape->type)) {
        choose(place, shape->type, made, CUDNN_HEUR_MODE_FALLBACK, &best);
    }
    drop_parts(&m);
    if (best.plan == NULL) {
        char reason[256] = "";
        place->cudnn->cudnnGetLastErrorString(reason, sizeof reason);
        snprintf(error, error_size, "cuDNN has no engine for it: %s",
                 reason[0] != '\0' ? reason : place->cudnn->cudnnGetErrorString(m.status));
        return m.status == CUDNN_STATUS_ALLOC_FAILED ? -ENOMEM : -ENOTSUP;
    }
    *out = best;
    return 0;
}

/* Settings back into a configuration. */
static cudnnBackendDescriptor_t configure(struct maker *m, cudnnBackendDescriptor_t graph,
                                          const struct gpu_engine *engine,
                                          cudnnBackendDescriptor_t *knobs)
{
    const struct gpu_cudnn *cudnn = m->place->cudnn;
    cudnnBackendDescriptor_t which = part(m, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    set_part(m, which, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph);
    set(m, which, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &engine->id);
    if (m->place->properties != NULL) {
        set_part(m, which, CUDNN_ATTR_ENGINE_DEVICEPROP, m->place->properties);
    }
    finish(m, which);
    for (uint32_t i = 0; i < engine->knob_count && m->status == CUDNN_STATUS_SUCCESS; i++) {
        cudnnBackendKnobType_t type = (cudnnBackendKnobType_t)engine->knobs[i].type;
        keep(m,
             cudnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knobs[i]));
        set(m, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type);
        set(m, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1,
            &engine->knobs[i].value);
        finish(m, knobs[i]);
    }
    cudnnBackendDescriptor_t config = part(m, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    set_part(m, config, CUDNN_ATTR_ENGINECFG_ENGINE, which);
    if (engine->knob_count > 0) {
        set(m, config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
            engine->knob_count, knobs);
    }
    finish(m, config);
    return config;
}

int gpu_conv_plan_for(const struct gpu_place *place, const struct gpu_conv_shape *shape,
                      const struct gpu_engine *engine, struct gpu_conv *out)
{
    struct maker m = {.place = place, .shape = shape};
    cudnnBackendDescriptor_t knobs[GPU_MAX_KNOBS] = {NULL};
    if (engine->knob_count > GPU_MAX_KNOBS) {
        return -ENOTSUP;
    }
    cudnnBackendDescriptor_t config = configure(&m, graph(&m), engine, knobs);
    int error = m.status == CUDNN_STATUS_SUCCESS ? finish_plan(place, config, out) : -ENOTSUP;
    for (uint32_t i = 0; i < engine->knob_count && knobs[i] != NULL; i++) {
        place->cudnn->cudnnBackendDestroyDescriptor(knobs[i]);
    }
    drop_parts(&m);
    return error;
}

void gpu_conv_free(const struct gpu_cudnn *cudnn, struct gpu_conv *conv)
{
    if (conv->plan != NULL) {
        cudnn->cudnnBackendDestroyDescriptor(conv->plan);
    }
    *conv = (struct gpu_conv){0};
}

int gpu_conv_bind(const struct gpu_cudnn *cudnn, const struct gpu_conv_pointers *pointers,
                  cudnnBackendDescriptor_t *out)
{
    const struct gpu_place place = {.cudnn = cudnn};
    struct maker m = {.place = &place};
    const int64_t numbers[4] = {GPU_IN, GPU_WEIGHTS, GPU_BIAS, GPU_OUT};
    void *const data[4] = {pointers->in, pointers->weights, pointers->bias, pointers->out};
    cudnnBackendDescriptor_t pack = part(&m, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set(&m, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 4, numbers);
    set(&m, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 4, data);
    set(&m, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &pointers->workspace);
    finish(&m, pack);
    if (m.status != CUDNN_STATUS_SUCCESS) {
        drop_parts(&m);
        return -ENOMEM;
    }
    *out = pack;
    return 0;
}

int gpu_place_read(const struct gpu_cudnn *cudnn, const char *text, size_t size,
                   struct gpu_place *out, char *error, size_t error_size)
{
    struct gpu_place place = {.cudnn = cudnn};
    struct maker m = {.place = &place};
    cudnnBackendDescriptor_t made = part(&m, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    set(&m, made, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)size, text);
    finish(&m, made);
    if (m.status != CUDNN_STATUS_SUCCESS) {
        char reason[256] = "";
        cudnn->cudnnGetLastErrorString(reason, sizeof reason);
        snprintf(error, error_size, "cuDNN does not take it as a device: %s", reason);
        drop_parts(&m);
        return -EINVAL;
    }
    place.properties = made;
    *out = place;
    return 0;
}
