#include "gpu_maker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MOST_CONFIGS 64

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
    struct gpu_maker m = {.place = place};
    struct gpu_conv conv = {0};
    int64_t count = 0;
    cudnnBackendDescriptor_t plan = gpu_maker_part(&m, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    gpu_maker_set_part(&m, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    gpu_maker_set_place(&m, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE,
                        CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP);
    gpu_maker_finish(&m, plan);
    if (m.status == CUDNN_STATUS_SUCCESS) {
        gpu_maker_keep(&m, place->cudnn->cudnnBackendGetAttribute(
                               plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                               &count, &conv.workspace_bytes));
    }
    if (m.status != CUDNN_STATUS_SUCCESS || conv.workspace_bytes > GPU_MAX_WORKSPACE_BYTES) {
        gpu_maker_drop(&m);
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
    struct gpu_maker m = {.place = place};
    const struct gpu_cudnn *cudnn = place->cudnn;
    int64_t count = 0;
    int64_t made = 0;
    cudnnBackendDescriptor_t heuristic = gpu_maker_part(&m, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    gpu_maker_set_part(&m, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    gpu_maker_set(&m, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (place->properties != NULL) {
        gpu_maker_set_part(&m, heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, place->properties);
    }
    gpu_maker_finish(&m, heuristic);
    while (m.status == CUDNN_STATUS_SUCCESS && made < MOST_CONFIGS) {
        gpu_maker_keep(&m, cudnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR,
                                                               &configs[made]));
        made += m.status == CUDNN_STATUS_SUCCESS;
    }
    if (m.status == CUDNN_STATUS_SUCCESS) {
        gpu_maker_keep(&m, cudnn->cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                           CUDNN_TYPE_BACKEND_DESCRIPTOR, made,
                                                           &count, configs));
    }
    int64_t good = m.status == CUDNN_STATUS_SUCCESS && count <= made ? count : 0;
    while (made > good) {
        cudnn->cudnnBackendDestroyDescriptor(configs[--made]);
    }
    gpu_maker_drop(&m);
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
    struct gpu_maker m = {.place = place, .shape = shape};
    struct gpu_conv best = {0};
    cudnnBackendDescriptor_t made = gpu_conv_graph(&m);
    if (m.status == CUDNN_STATUS_SUCCESS) {
        choose(place, shape->type, made, CUDNN_HEUR_MODE_A, &best);
    }
    if (m.status == CUDNN_STATUS_SUCCESS && !is_wanted(&best, shape->type)) {
        choose(place, shape->type, made, CUDNN_HEUR_MODE_FALLBACK, &best);
    }
    gpu_maker_drop(&m);
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

static bool is_same(const struct gpu_engine *a, const struct gpu_engine *b)
{
    bool same = a->id == b->id && a->knob_count == b->knob_count;
    for (uint32_t i = 0; same && i < a->knob_count; i++) {
        same = a->knobs[i].type == b->knobs[i].type && a->knobs[i].value == b->knobs[i].value;
    }
    return same;
}

static bool is_among(const struct gpu_conv *conv, const struct gpu_conv *others, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (is_same(&conv->engine, &others[i].engine)) {
            return true;
        }
    }
    return false;
}

/* More candidates, from one heuristic. */
static size_t collect(const struct gpu_place *place, int32_t type, cudnnBackendDescriptor_t graph,
                      cudnnBackendHeurMode_t mode, struct gpu_conv *out, size_t have, size_t room)
{
    cudnnBackendDescriptor_t configs[MOST_CONFIGS];
    int64_t count = propose(place, graph, mode, configs);
    for (int64_t i = 0; i < count; i++) {
        struct gpu_conv conv;
        if (have < room && finish_plan(place, configs[i], &conv) == 0) {
            if (is_wanted(&conv, type) && !is_among(&conv, out, have)) {
                out[have++] = conv;
            } else {
                gpu_conv_free(place->cudnn, &conv);
            }
        }
        place->cudnn->cudnnBackendDestroyDescriptor(configs[i]);
    }
    return have;
}

size_t gpu_conv_candidates(const struct gpu_place *place, const struct gpu_conv_shape *shape,
                           struct gpu_conv *out, size_t room)
{
    struct gpu_maker m = {.place = place, .shape = shape};
    size_t count = 0;
    cudnnBackendDescriptor_t made = gpu_conv_graph(&m);
    if (m.status == CUDNN_STATUS_SUCCESS) {
        count = collect(place, shape->type, made, CUDNN_HEUR_MODE_A, out, 0, room);
        count = collect(place, shape->type, made, CUDNN_HEUR_MODE_FALLBACK, out, count, room);
    }
    gpu_maker_drop(&m);
    return count;
}

/* Settings back into a configuration. */
static cudnnBackendDescriptor_t configure(struct gpu_maker *m, cudnnBackendDescriptor_t graph,
                                          const struct gpu_engine *engine,
                                          cudnnBackendDescriptor_t *knobs)
{
    const struct gpu_cudnn *cudnn = m->place->cudnn;
    cudnnBackendDescriptor_t which = gpu_maker_part(m, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    gpu_maker_set_part(m, which, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph);
    gpu_maker_set(m, which, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &engine->id);
    if (m->place->properties != NULL) {
        gpu_maker_set_part(m, which, CUDNN_ATTR_ENGINE_DEVICEPROP, m->place->properties);
    }
    gpu_maker_finish(m, which);
    for (uint32_t i = 0; i < engine->knob_count && m->status == CUDNN_STATUS_SUCCESS; i++) {
        cudnnBackendKnobType_t type = (cudnnBackendKnobType_t)engine->knobs[i].type;
        gpu_maker_keep(m, cudnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR,
                                                              &knobs[i]));
        gpu_maker_set(m, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1,
                      &type);
        gpu_maker_set(m, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1,
                      &engine->knobs[i].value);
        gpu_maker_finish(m, knobs[i]);
    }
    cudnnBackendDescriptor_t config = gpu_maker_part(m, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    gpu_maker_set_part(m, config, CUDNN_ATTR_ENGINECFG_ENGINE, which);
    if (engine->knob_count > 0) {
        gpu_maker_set(m, config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                      engine->knob_count, knobs);
    }
    gpu_maker_finish(m, config);
    return config;
}

int gpu_conv_plan_for(const struct gpu_place *place, const struct gpu_conv_shape *shape,
                      const struct gpu_engine *engine, struct gpu_conv *out)
{
    struct gpu_maker m = {.place = place, .shape = shape};
    cudnnBackendDescriptor_t knobs[GPU_MAX_KNOBS] = {NULL};
    if (engine->knob_count > GPU_MAX_KNOBS) {
        return -ENOTSUP;
    }
    cudnnBackendDescriptor_t config = configure(&m, gpu_conv_graph(&m), engine, knobs);
    int error = m.status == CUDNN_STATUS_SUCCESS ? finish_plan(place, config, out) : -ENOTSUP;
    for (uint32_t i = 0; i < engine->knob_count && knobs[i] != NULL; i++) {
        place->cudnn->cudnnBackendDestroyDescriptor(knobs[i]);
    }
    gpu_maker_drop(&m);
    return error;
}
