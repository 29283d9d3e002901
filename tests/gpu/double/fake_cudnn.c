/*
 * libcudnn.so.9 as described in double.h: passes everything on to the real one, but for handles,
 * which need a device, and for the execution of plans, whose graph is read back from the plan and
 * computed here in float.
 */
#include "double.h"

#include <cudnn.h>
#include <dlfcn.h>
#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_TENSORS  8
#define MOST_NODES    4
#define MOST_GRAPHS   4096
#define BUCKETS       4096
#define OUT_OF_MEMORY 2 /* CUDA_ERROR_OUT_OF_MEMORY */

/* ---- the real one, and the driver's double ---- */

static void *real_symbol(const char *name)
{
    static void *library;
    const char *path = getenv("GPUDOUBLE_CUDNN");
    if (library == NULL) {
        library = dlopen(path != NULL ? path : REAL_CUDNN, RTLD_NOW | RTLD_LOCAL);
    }
    void *symbol = library != NULL ? dlsym(library, name) : NULL;
    if (symbol == NULL) {
        fprintf(stderr, "gpu double: %s: %s\n", name, dlerror());
        abort();
    }
    return symbol;
}

static void *driver_symbol(const char *name)
{
    static void *library;
    if (library == NULL) {
        library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    }
    void *symbol = library != NULL ? dlsym(library, name) : NULL;
    if (symbol == NULL) {
        fprintf(stderr, "gpu double: %s: %s\n", name, dlerror());
        abort();
    }
    return symbol;
}

#define REAL(call)                                                                                 \
    static __typeof__(call) *real;                                                                 \
    if (real == NULL) {                                                                            \
        *(void **)&real = real_symbol(#call);                                                      \
    }

static int enter(const char *call)
{
    static double_enter_fn *function;
    if (function == NULL) {
        *(void **)&function = driver_symbol("gpudouble_enter");
    }
    return function(call);
}

/* ---- what is remembered of a descriptor ---- */

struct tensor {
    int64_t number;
    cudnnDataType_t type;
    bool is_virtual;
    int64_t dims[4];
    int64_t strides[4];
};

struct node {
    enum { CONVOLUTION, ADD, RELU } kind;
    int in;
    int second; /* weights, bias */
    int out;
    int64_t padding[2];
    int64_t stride[2];
    int64_t dilation[2];
};

struct graph {
    bool alive;  /* its plan is there; the graph stays, so that who runs it later is seen */
    bool loaded; /* it has run */
    int tensor_count;
    int node_count;
    struct tensor tensors[MOST_TENSORS];
    struct node nodes[MOST_NODES];
};

struct record {
    struct record *next;
    cudnnBackendDescriptor_t descriptor;
    cudnnBackendDescriptorType_t type;
    int64_t numbers[MOST_TENSORS]; /* a variant pack's */
    void *data[MOST_TENSORS];
    int64_t count;
    void *workspace;
    cudnnBackendDescriptor_t config; /* a plan's, until it is made */
    struct graph *graph;             /* a plan's, once it was executed */
    uint64_t mark; /* with it: a number of the plan's own, and one of what it computes */
    uint64_t graph_mark;
};

static struct record *records[BUCKETS];
static long records_left;

static struct record **bucket_of(cudnnBackendDescriptor_t descriptor)
{
    return &records[((uintptr_t)descriptor >> 4) % BUCKETS];
}

static struct record *record_of(cudnnBackendDescriptor_t descriptor)
{
    for (struct record *at = *bucket_of(descriptor); at != NULL; at = at->next) {
        if (at->descriptor == descriptor) {
            return at;
        }
    }
    return NULL;
}

/* ---- handles ---- */

struct cudnnContext {
    cudaStream_t stream;
};

static struct cudnnContext the_handle;
static long handles;

EXPORT cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
    if (enter(__func__) != 0) {
        return CUDNN_STATUS_NOT_INITIALIZED;
    }
    handles++;
    *handle = &the_handle;
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    int failed = enter(__func__);
    (void)handle;
    if (--handles == 0 && (failed == 0 || failed == OUT_OF_MEMORY) && records_left > 0) {
        fprintf(stderr, "gpu double: %ld descriptors of cuDNN are never destroyed\n", records_left);
        abort();
    }
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    if (enter(__func__) != 0) {
        return CUDNN_STATUS_EXECUTION_FAILED;
    }
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

EXPORT size_t cudnnGetVersion(void)
{
    REAL(cudnnGetVersion)
    const char *wish = getenv("GPUDOUBLE_CUDNN_VERSION");
    return wish != NULL ? strtoul(wish, NULL, 10) : real();
}

EXPORT const char *cudnnGetErrorString(cudnnStatus_t status)
{
    REAL(cudnnGetErrorString)
    return real(status);
}

EXPORT void cudnnGetLastErrorString(char *text, size_t size)
{
    REAL(cudnnGetLastErrorString)
    real(text, size);
}

/* ---- descriptors ---- */

static cudnnStatus_t real_set(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                              cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    REAL(cudnnBackendSetAttribute)
    return real(descriptor, name, type, count, values);
}

static cudnnStatus_t real_create(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out)
{
    REAL(cudnnBackendCreateDescriptor)
    return real(type, out);
}

static cudnnStatus_t real_destroy(cudnnBackendDescriptor_t descriptor)
{
    REAL(cudnnBackendDestroyDescriptor)
    return real(descriptor);
}

static cudnnStatus_t real_finalize(cudnnBackendDescriptor_t descriptor)
{
    REAL(cudnnBackendFinalize)
    return real(descriptor);
}

/* What stands for the handle's device in the real one. */
static cudnnBackendDescriptor_t device(void)
{
    static cudnnBackendDescriptor_t made;
    static char text[65536];
    const char *path = getenv("GPUDOUBLE_DEVICE");
    if (made != NULL) {
        return made;
    }
    FILE *file = path != NULL ? fopen(path, "rb") : NULL;
    size_t size = file != NULL ? fread(text, 1, sizeof text, file) : 0;
    if (file != NULL) {
        fclose(file);
    }
    if (size == 0 || real_create(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &made) != 0 ||
        real_set(made, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)size,
                 text) != 0 ||
        real_finalize(made) != 0) {
        fprintf(stderr, "gpu double: GPUDOUBLE_DEVICE describes no device\n");
        abort();
    }
    return made;
}

EXPORT cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                                  cudnnBackendDescriptor_t *out)
{
    if (enter(__func__) != 0) {
        return CUDNN_STATUS_ALLOC_FAILED;
    }
    cudnnStatus_t status = real_create(type, out);
    if (status == CUDNN_STATUS_SUCCESS) {
        struct record *record = (struct record *)calloc(1, sizeof *record);
        *record = (struct record){.next = *bucket_of(*out), .descriptor = *out, .type = type};
        *bucket_of(*out) = record;
        records_left++;
    }
    return status;
}

EXPORT cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor)
{
    for (struct record **at = bucket_of(descriptor); *at != NULL; at = &(*at)->next) {
        if ((*at)->descriptor == descriptor) {
            struct record *gone = *at;
            *at = gone->next;
            if (gone->graph != NULL) {
                gone->graph->alive = false;
            }
            free(gone);
            records_left--;
            break;
        }
    }
    return real_destroy(descriptor);
}

static void remember_pack(struct record *record, cudnnBackendAttributeName_t name, int64_t count,
                          const void *values)
{
    size_t fit = (size_t)(count < MOST_TENSORS ? count : MOST_TENSORS);
    if (name == CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS) {
        memcpy(record->numbers, values, fit * sizeof record->numbers[0]);
        record->count = (int64_t)fit;
    } else if (name == CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS) {
        memcpy(record->data, values, fit * sizeof record->data[0]);
    } else if (name == CUDNN_ATTR_VARIANT_PACK_WORKSPACE) {
        memcpy(&record->workspace, values, sizeof record->workspace);
    }
}

EXPORT cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                              cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t count,
                                              const void *values)
{
    struct record *record = record_of(descriptor);
    cudnnBackendDescriptor_t stand_in = NULL;
    if (record == NULL) {
        fprintf(stderr, "gpu double: an attribute of a descriptor that there is not\n");
        abort();
    }
    if (type == CUDNN_TYPE_HANDLE && *(cudnnHandle_t const *)values != &the_handle) {
        return CUDNN_STATUS_BAD_PARAM;
    }
    if (name == CUDNN_ATTR_OPERATIONGRAPH_HANDLE) {
        return CUDNN_STATUS_SUCCESS;
    }
    if (name == CUDNN_ATTR_EXECUTION_PLAN_HANDLE) {
        stand_in = device();
        return real_set(descriptor, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
                        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &stand_in);
    }
    if (name == CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG) {
        memcpy((void *)&record->config, values, sizeof record->config);
    }
    remember_pack(record, name, count, values);
    return real_set(descriptor, name, type, count, values);
}

/* Is a plan's engine one whose code is made for it, by a compiler that wants a device and without
 * one may never come back? */
static bool is_compiled_late(cudnnBackendDescriptor_t config)
{
    REAL(cudnnBackendGetAttribute)
    cudnnBackendBehaviorNote_t notes[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    cudnnBackendDescriptor_t engine = NULL;
    int64_t count = 0;
    bool late = false;
    if (config == NULL || real_create(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) != 0) {
        return false;
    }
    if (real(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
             &engine) != 0 ||
        real(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
             CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &count, notes) != 0) {
        count = 0;
    }
    for (int64_t i = 0; i < count; i++) {
        late |= notes[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    }
    (void)real_destroy(engine);
    return late;
}

EXPORT cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor)
{
    const struct record *record = record_of(descriptor);
    cudnnBackendDescriptor_t stand_in = device();
    if (enter(__func__) != 0) {
        return CUDNN_STATUS_INTERNAL_ERROR;
    }
    if (record != NULL && record->type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR) {
        (void)real_set(descriptor, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                       1, &stand_in);
    }
    if (record != NULL && record->type == CUDNN_BACKEND_ENGINE_DESCRIPTOR) {
        (void)real_set(descriptor, CUDNN_ATTR_ENGINE_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                       &stand_in);
    }
    if (record != NULL && is_compiled_late(record->config)) {
        return CUDNN_STATUS_NOT_SUPPORTED;
    }
    return real_finalize(descriptor);
}

EXPORT cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor,
                                              cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t room,
                                              int64_t *count, void *values)
{
    REAL(cudnnBackendGetAttribute)
    return real(descriptor, name, type, room, count, values);
}

/* ---- a plan's graph, from the plan ---- */

__attribute__((noreturn)) static void not_understood(const char *what)
{
    fprintf(stderr, "gpu double: a plan with %s is not understood\n", what);
    abort();
}

static cudnnDataType_t type_named(const char *name)
{
    if (name != NULL && strcmp(name, "CUDNN_DATA_FLOAT") == 0) {
        return CUDNN_DATA_FLOAT;
    }
    if (name != NULL && strcmp(name, "CUDNN_DATA_HALF") == 0) {
        return CUDNN_DATA_HALF;
    }
    if (name != NULL && strcmp(name, "CUDNN_DATA_BFLOAT16") == 0) {
        return CUDNN_DATA_BFLOAT16;
    }
    not_understood("such a type");
}

static void read_numbers(const json_t *array, size_t count, int64_t *out)
{
    if (json_array_size(array) != count) {
        not_understood("such dimensions");
    }
    for (size_t i = 0; i < count; i++) {
        out[i] = json_integer_value(json_array_get(array, i));
    }
}

static int tensor_named(const struct graph *graph, const json_t *name)
{
    int64_t number = name != NULL ? atoll(json_string_value(name)) : -1;
    for (int i = 0; i < graph->tensor_count; i++) {
        if (graph->tensors[i].number == number) {
            return i;
        }
    }
    not_understood("a tensor that it does not have");
}

static bool is_text(const json_t *json, const char *key, const char *text)
{
    const char *found = json_string_value(json_object_get(json, key));
    return found != NULL && strcmp(found, text) == 0;
}

static bool is_number(const json_t *json, const char *key, double number)
{
    const json_t *found = json_object_get(json, key);
    return found == NULL || json_number_value(found) == number;
}

static void read_convolution(const json_t *json, const struct graph *graph, struct node *node)
{
    node->kind = CONVOLUTION;
    node->second = tensor_named(graph, json_object_get(json, "W"));
    read_numbers(json_object_get(json, "pad"), 2, node->padding);
    read_numbers(json_object_get(json, "stride"), 2, node->stride);
    read_numbers(json_object_get(json, "dilation"), 2, node->dilation);
    if (!is_text(json, "mode", "CUDNN_CROSS_CORRELATION") || !is_number(json, "alpha", 1) ||
        !is_number(json, "beta", 0)) {
        not_understood("weights turned around, or a factor");
    }
}

static void read_node(const json_t *json, struct graph *graph)
{
    const char *operation = json_string_value(json_object_get(json, "operation"));
    struct node *node = &graph->nodes[graph->node_count++];
    node->in = tensor_named(graph, json_object_get(json, "X"));
    node->out = tensor_named(graph, json_object_get(json, "Y"));
    if (operation != NULL && strstr(operation, "CONVOLUTION_FORWARD") != NULL) {
        read_convolution(json, graph, node);
    } else if (is_text(json, "pointwiseMode", "CUDNN_POINTWISE_ADD")) {
        node->kind = ADD;
        node->second = tensor_named(graph, json_object_get(json, "B"));
    } else if (is_text(json, "pointwiseMode", "CUDNN_POINTWISE_RELU_FWD")) {
        node->kind = RELU;
    } else {
        not_understood("such an operation");
    }
    if (!is_text(json, "mathPrec", "CUDNN_DATA_FLOAT")) {
        not_understood("sums in less than float");
    }
    if (!is_number(json, "alpha1", 1) || !is_number(json, "alpha2", 1) ||
        !is_number(json, "lowerClip", 0) || !is_number(json, "lowerClipSlope", 0) ||
        !is_number(json, "upperClip", DBL_MAX)) {
        not_understood("factors, or another ReLU");
    }
}

static struct graph *read_graph(const char *text, size_t size)
{
    json_t *document = json_loadb(text, size, 0, NULL);
    const json_t *body = json_object_get(document, "operationGraph");
    const json_t *tensors = json_object_get(body, "tensors");
    const json_t *nodes = json_object_get(body, "nodes");
    struct graph *graph = (struct graph *)calloc(1, sizeof *graph);
    if (json_array_size(tensors) > MOST_TENSORS || json_array_size(nodes) > MOST_NODES) {
        not_understood("so many tensors or nodes");
    }
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        const json_t *json = json_array_get(tensors, i);
        struct tensor *tensor = &graph->tensors[graph->tensor_count++];
        tensor->number = atoll(json_string_value(json_object_get(json, "name")));
        tensor->type = type_named(json_string_value(json_object_get(json, "dataType")));
        tensor->is_virtual = json_is_true(json_object_get(json, "isVirtual"));
        read_numbers(json_object_get(json, "dim"), 4, tensor->dims);
        read_numbers(json_object_get(json, "stride"), 4, tensor->strides);
    }
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        read_node(json_array_get(nodes, i), graph);
    }
    json_decref(document);
    return graph;
}

static uint64_t mark_of(const char *text, size_t size)
{
    uint64_t mark = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++) {
        mark = (mark ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    }
    return mark >> 20;
}

static const struct graph *graph_of(struct record *record)
{
    int64_t size = 0;
    if (record->graph == NULL) {
        cudnnBackendGetAttribute(record->descriptor, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                 CUDNN_TYPE_CHAR, 0, &size, NULL);
        char *text = (char *)malloc((size_t)size);
        cudnnBackendGetAttribute(record->descriptor, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                 CUDNN_TYPE_CHAR, size, &size, text);
        record->graph = read_graph(text, (size_t)size);
        record->graph->alive = true;
        record->mark = mark_of(text, (size_t)size);
        record->graph_mark = mark_of((const char *)record->graph->tensors,
                                     sizeof record->graph->tensors + sizeof record->graph->nodes);
        free(text);
    }
    return record->graph;
}

/* ---- computing it ---- */

enum { READ, WRITE, SPOIL }; /* as in device.h */

static void use(const void *data, size_t bytes, int how)
{
    static double_use_fn *function;
    if (function == NULL) {
        *(void **)&function = driver_symbol("gpudouble_use");
    }
    function(data, bytes, how);
}

static float round_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) < 0x7f800000u) {
        bits += 0x7fffu + ((bits >> 16) & 1u);
        bits &= 0xffff0000u;
    }
    memcpy(&value, &bits, sizeof bits);
    return value;
}

static float round_to(cudnnDataType_t type, float value)
{
    return type == CUDNN_DATA_HALF       ? (float)(_Float16)value
           : type == CUDNN_DATA_BFLOAT16 ? round_bf16(value)
                                         : value;
}

static size_t element_bytes(cudnnDataType_t type)
{
    return type == CUDNN_DATA_FLOAT ? 4 : 2;
}

static float element(cudnnDataType_t type, const void *data, int64_t at)
{
    uint32_t bits;
    float value;
    switch (type) {
    case CUDNN_DATA_HALF: return (float)((const _Float16 *)data)[at];
    case CUDNN_DATA_BFLOAT16:
        bits = (uint32_t)((const uint16_t *)data)[at] << 16;
        memcpy(&value, &bits, sizeof value);
        return value;
    default: return ((const float *)data)[at];
    }
}

static void put_element(cudnnDataType_t type, void *data, int64_t at, float value)
{
    uint32_t bits;
    if (type == CUDNN_DATA_HALF) {
        ((_Float16 *)data)[at] = (_Float16)value;
    } else if (type == CUDNN_DATA_BFLOAT16) {
        value = round_bf16(value);
        memcpy(&bits, &value, sizeof bits);
        ((uint16_t *)data)[at] = (uint16_t)(bits >> 16);
    } else {
        ((float *)data)[at] = value;
    }
}

/* Every tensor is packed with its channels innermost, so an element's place in memory is its place
 * in the floats, too. */
static int64_t elements_of(const struct tensor *t)
{
    if (t->strides[1] != 1 || t->strides[3] != t->dims[1] ||
        t->strides[2] != t->dims[1] * t->dims[3]) {
        not_understood("a tensor that is not packed");
    }
    return t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
}

struct execution {
    const struct graph *graph;
    void *data[MOST_TENSORS]; /* by tensor */
    float *floats[MOST_TENSORS];
    void *workspace;
    size_t workspace_bytes;
};

static float *floats_of(struct execution *e, int index)
{
    const struct tensor *t = &e->graph->tensors[index];
    int64_t count = elements_of(t);
    if (e->floats[index] != NULL) {
        return e->floats[index];
    }
    e->floats[index] = (float *)calloc((size_t)count, sizeof(float));
    if (e->data[index] != NULL) {
        use(e->data[index], (size_t)count * element_bytes(t->type), READ);
    }
    for (int64_t i = 0; i < count && e->data[index] != NULL; i++) {
        e->floats[index][i] = element(t->type, e->data[index], i);
        if (isnan(e->floats[index][i])) {
            fprintf(stderr, "gpu double: a convolution reads what nobody wrote (tensor %lld)\n",
                    (long long)t->number);
            abort();
        }
    }
    return e->floats[index];
}

static void dot_pixel(const struct node *node, const struct tensor *in, const struct tensor *w,
                      const float *image, const float *weights, int64_t y, int64_t x, float *out)
{
    int64_t depth = in->dims[1];
    for (int64_t ky = 0; ky < w->dims[2]; ky++) {
        int64_t from_y = y * node->stride[0] + ky * node->dilation[0] - node->padding[0];
        for (int64_t kx = 0; kx < w->dims[3]; kx++) {
            int64_t from_x = x * node->stride[1] + kx * node->dilation[1] - node->padding[1];
            if (from_y < 0 || from_y >= in->dims[2] || from_x < 0 || from_x >= in->dims[3]) {
                continue;
            }
            const float *pixel = image + (from_y * in->dims[3] + from_x) * depth;
            for (int64_t k = 0; k < w->dims[0]; k++) {
                const float *tap = weights + ((k * w->dims[2] + ky) * w->dims[3] + kx) * depth;
                float sum = 0.0f;
                for (int64_t c = 0; c < depth; c++) {
                    sum += pixel[c] * tap[c];
                }
                out[k] += sum;
            }
        }
    }
}

/* Plans are timed on nothing but zeros. */
static bool is_zero(const float *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (values[i] != 0.0f) {
            return false;
        }
    }
    return true;
}

static void convolve(struct execution *e, const struct node *node)
{
    const struct tensor *in = &e->graph->tensors[node->in];
    const struct tensor *w = &e->graph->tensors[node->second];
    const struct tensor *out = &e->graph->tensors[node->out];
    const float *images = floats_of(e, node->in);
    const float *weights = floats_of(e, node->second);
    float *to = e->floats[node->out] = (float *)calloc((size_t)elements_of(out), sizeof(float));
    if (is_zero(images, elements_of(in)) && is_zero(weights, elements_of(w))) {
        return;
    }
    for (int64_t n = 0; n < out->dims[0]; n++) {
        const float *image = images + n * in->strides[0];
        for (int64_t y = 0; y < out->dims[2]; y++) {
            for (int64_t x = 0; x < out->dims[3]; x++) {
                dot_pixel(node, in, w, image, weights, y, x,
                          to + n * out->strides[0] + y * out->strides[2] + x * out->strides[3]);
            }
        }
    }
}

static void pointwise(struct execution *e, const struct node *node)
{
    const struct tensor *out = &e->graph->tensors[node->out];
    const float *in = floats_of(e, node->in);
    const float *bias = node->kind == ADD ? floats_of(e, node->second) : NULL;
    int64_t count = elements_of(out);
    float *to = e->floats[node->out] = (float *)calloc((size_t)count, sizeof(float));
    for (int64_t i = 0; i < count; i++) {
        to[i] = bias != NULL ? in[i] + bias[i % out->dims[1]] : in[i] > 0.0f ? in[i] : 0.0f;
    }
}

/* A workspace is the plan's to write, and worth nothing afterwards. */
static void spoil_workspace(const struct execution *e)
{
    if (e->workspace_bytes > 0) {
        use(e->workspace, e->workspace_bytes, SPOIL);
        memset(e->workspace, 0xff, e->workspace_bytes);
    }
}

static void run_node(struct execution *e, const struct node *node)
{
    const struct tensor *out = &e->graph->tensors[node->out];
    int64_t count = elements_of(out);
    if (node->kind == CONVOLUTION) {
        convolve(e, node);
    } else {
        pointwise(e, node);
    }
    if (e->data[node->out] != NULL) {
        use(e->data[node->out], (size_t)count * element_bytes(out->type), WRITE);
    }
    for (int64_t k = 0; k < count; k++) {
        e->floats[node->out][k] = round_to(out->type, e->floats[node->out][k]);
        if (e->data[node->out] != NULL) {
            put_element(out->type, e->data[node->out], k, e->floats[node->out][k]);
        }
    }
}

static void run_execution(const void *argument)
{
    struct execution e;
    memcpy(&e, argument, sizeof e);
    if (!e.graph->alive) {
        fprintf(stderr, "gpu double: a plan runs that was destroyed\n");
        abort();
    }
    /* Before values are read, and after they are written: a workspace is nobody else's place. */
    spoil_workspace(&e);
    for (int i = 0; i < e.graph->node_count; i++) {
        run_node(&e, &e.graph->nodes[i]);
    }
    spoil_workspace(&e);
    for (int i = 0; i < e.graph->tensor_count; i++) {
        free(e.floats[i]);
    }
}

/* A tensor's memory out of the pack: there, the device's, large enough, aligned. */
static void *data_of(const struct record *pack, const struct tensor *tensor)
{
    static double_owns_fn *owns;
    if (owns == NULL) {
        *(void **)&owns = driver_symbol("gpudouble_owns");
    }
    for (int64_t i = 0; i < pack->count; i++) {
        if (pack->numbers[i] != tensor->number) {
            continue;
        }
        size_t bytes = (size_t)elements_of(tensor) * element_bytes(tensor->type);
        if ((uintptr_t)pack->data[i] % 16 != 0 || !owns(pack->data[i], bytes)) {
            fprintf(stderr, "gpu double: tensor %lld is not aligned, or not on the device\n",
                    (long long)tensor->number);
            abort();
        }
        return pack->data[i];
    }
    fprintf(stderr, "gpu double: tensor %lld is not in the pack\n", (long long)tensor->number);
    abort();
}

/* How much of its workspace a plan uses: there, and the device's. */
static size_t workspace_bytes_of(cudnnBackendDescriptor_t plan, const struct record *pack)
{
    int64_t bytes = 0;
    int64_t one = 0;
    double_owns_fn *owns;
    *(void **)&owns = driver_symbol("gpudouble_owns");
    cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                             &one, &bytes);
    if (bytes > 0 && !owns(pack->workspace, (size_t)bytes)) {
        fprintf(stderr, "gpu double: a workspace of %lld bytes is not on the device\n",
                (long long)bytes);
        abort();
    }
    return (size_t)bytes;
}

static size_t tensor_bytes(const struct execution *e, int index)
{
    const struct tensor *tensor = &e->graph->tensors[index];
    return e->data[index] == NULL ? 0 : (size_t)elements_of(tensor) * element_bytes(tensor->type);
}

static bool overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    return (const char *)a < (const char *)b + b_bytes &&
           (const char *)b < (const char *)a + a_bytes;
}

/* No two of a plan's tensors share memory, and its workspace is beside them. */
static void check_apart(const struct execution *e)
{
    for (int i = 0; i < e->graph->tensor_count; i++) {
        size_t bytes = tensor_bytes(e, i);
        bool shared = overlap(e->data[i], bytes, e->workspace, e->workspace_bytes);
        for (int k = 0; k < i; k++) {
            shared |= overlap(e->data[i], bytes, e->data[k], tensor_bytes(e, k));
        }
        if (shared && bytes > 0) {
            fprintf(stderr, "gpu double: two tensors of a plan, or its workspace, share memory\n");
            abort();
        }
    }
}

/* Of each graph that plans are for: the time of the fastest that was ever run. */
static void note_speed(const struct record *plan, uint64_t takes_ns)
{
    static struct {
        uint64_t graph;
        uint64_t least_ns;
    } known[MOST_GRAPHS];
    size_t i = 0;
    while (i < MOST_GRAPHS && known[i].graph != 0 && known[i].graph != plan->graph_mark) {
        i++;
    }
    if (i == MOST_GRAPHS) {
        return;
    }
    if (known[i].graph == 0 || takes_ns < known[i].least_ns) {
        known[i].graph = plan->graph_mark;
        known[i].least_ns = takes_ns;
    }
    if (takes_ns > known[i].least_ns) {
        static double_tally_fn *tally;
        if (tally == NULL) {
            *(void **)&tally = driver_symbol("double_tally");
        }
        tally(DOUBLE_SLOWER);
    }
}

/* What a plan is to work on, as it stands in the pack. */
static struct execution prepare(cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack)
{
    const struct record *pack_record = record_of(pack);
    struct execution e = {.graph = graph_of(record_of(plan))};
    for (int i = 0; i < e.graph->tensor_count; i++) {
        const struct tensor *tensor = &e.graph->tensors[i];
        e.data[i] = tensor->is_virtual ? NULL : data_of(pack_record, tensor);
    }
    e.workspace = pack_record->workspace;
    e.workspace_bytes = workspace_bytes_of(plan, pack_record);
    check_apart(&e);
    return e;
}

EXPORT cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                         cudnnBackendDescriptor_t pack)
{
    static double_submit_fn *submit;
    if (enter(__func__) != 0) {
        return CUDNN_STATUS_EXECUTION_FAILED;
    }
    if (submit == NULL) {
        *(void **)&submit = driver_symbol("gpudouble_submit");
    }
    struct record *record = record_of(plan);
    if (record == NULL || record_of(pack) == NULL || handles == 0) {
        fprintf(stderr, "gpu double: a plan, a pack or a handle is used that there is not\n");
        abort();
    }
    struct execution e = prepare(plan, pack);
    const char *bad = getenv("GPUDOUBLE_BAD_PLANS");
    if (bad != NULL && strcmp(bad, "yes") == 0 && record->mark % 3 == 0) {
        return CUDNN_STATUS_EXECUTION_FAILED;
    }
    struct double_work work = {.run = run_execution,
                               .argument = &e,
                               .bytes = sizeof e,
                               .takes_ns = 100000 + record->mark % 1000 * 1000,
                               .loaded = record->graph->loaded};
    record->graph->loaded = true;
    note_speed(record, work.takes_ns);
    return submit(handle->stream, &work) == 0 ? CUDNN_STATUS_SUCCESS
                                              : CUDNN_STATUS_EXECUTION_FAILED;
}
