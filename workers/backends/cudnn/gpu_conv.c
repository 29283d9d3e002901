#include "gpu_maker.h"

#include <errno.h>
#include <stdio.h>

#define ALIGN_BYTES   16
#define VIRTUAL_FIRST 100 /* numbers of tensors that no memory is given for */

/* ---- the operation graph ---- */

static cudnnDataType_t data_type(int32_t type)
{
    return type == GPU_BF16  ? CUDNN_DATA_BFLOAT16
           : type == GPU_F16 ? CUDNN_DATA_HALF
                             : CUDNN_DATA_FLOAT;
}

/* Packed, channels innermost. Numbers from VIRTUAL_FIRST are virtual. */
static cudnnBackendDescriptor_t tensor(struct gpu_maker *m, int64_t number, cudnnDataType_t type,
                                       const int64_t dims[4])
{
    cudnnBackendDescriptor_t made = gpu_maker_part(m, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    int64_t strides[4] = {dims[1] * dims[2] * dims[3], 1, dims[1] * dims[3], dims[1]};
    int64_t align = ALIGN_BYTES;
    bool is_virtual = number >= VIRTUAL_FIRST;
    gpu_maker_set(m, made, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    gpu_maker_set(m, made, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    gpu_maker_set(m, made, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    gpu_maker_set(m, made, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &number);
    gpu_maker_set(m, made, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align);
    gpu_maker_set(m, made, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    gpu_maker_finish(m, made);
    return made;
}

static cudnnBackendDescriptor_t window(struct gpu_maker *m)
{
    cudnnBackendDescriptor_t made = gpu_maker_part(m, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    cudnnDataType_t sums = CUDNN_DATA_FLOAT;
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    int64_t dims = 2;
    int64_t ones[2] = {1, 1};
    int64_t strides[2] = {m->shape->stride, m->shape->stride};
    int64_t padding[2] = {m->shape->padding, m->shape->padding};
    gpu_maker_set(m, made, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums);
    gpu_maker_set(m, made, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    gpu_maker_set(m, made, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims);
    gpu_maker_set(m, made, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, ones);
    gpu_maker_set(m, made, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides);
    gpu_maker_set(m, made, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, padding);
    gpu_maker_set(m, made, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, padding);
    gpu_maker_finish(m, made);
    return made;
}

static cudnnBackendDescriptor_t convolve(struct gpu_maker *m, cudnnBackendDescriptor_t out)
{
    const struct gpu_conv_shape *s = m->shape;
    const int64_t in_dims[4] = {s->count, s->in_depth, s->in_height, s->in_width};
    const int64_t weight_dims[4] = {s->out_depth, s->in_depth, s->kernel, s->kernel};
    cudnnBackendDescriptor_t in = tensor(m, GPU_IN, data_type(s->type), in_dims);
    cudnnBackendDescriptor_t weights = tensor(m, GPU_WEIGHTS, data_type(s->type), weight_dims);
    cudnnBackendDescriptor_t how = window(m);
    cudnnBackendDescriptor_t made = gpu_maker_part(
        m, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    float one = 1.0f;
    float zero = 0.0f;
    gpu_maker_set_part(m, made, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, how);
    gpu_maker_set_part(m, made, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, in);
    gpu_maker_set_part(m, made, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, weights);
    gpu_maker_set_part(m, made, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, out);
    gpu_maker_set(m, made, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1,
                  &one);
    gpu_maker_set(m, made, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1,
                  &zero);
    gpu_maker_finish(m, made);
    return made;
}

/* out = mode(in), or mode(in, second). */
static cudnnBackendDescriptor_t pointwise(struct gpu_maker *m, cudnnPointwiseMode_t mode,
                                          cudnnBackendDescriptor_t in,
                                          cudnnBackendDescriptor_t second,
                                          cudnnBackendDescriptor_t out)
{
    cudnnDataType_t precision = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t how = gpu_maker_part(m, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    gpu_maker_set(m, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    gpu_maker_set(m, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &precision);
    gpu_maker_finish(m, how);
    cudnnBackendDescriptor_t made = gpu_maker_part(m, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    gpu_maker_set_part(m, made, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    gpu_maker_set_part(m, made, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, in);
    if (second != NULL) {
        gpu_maker_set_part(m, made, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, second);
    }
    gpu_maker_set_part(m, made, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, out);
    gpu_maker_finish(m, made);
    return made;
}

cudnnBackendDescriptor_t gpu_conv_graph(struct gpu_maker *m)
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
    cudnnBackendDescriptor_t made = gpu_maker_part(m, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    gpu_maker_set(m, made, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                  s->relu ? 3 : 2, operations);
    if (m->place->handle != NULL) {
        gpu_maker_set(m, made, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
                      &m->place->handle);
    }
    gpu_maker_finish(m, made);
    return made;
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
    struct gpu_maker m = {.place = &place};
    const int64_t numbers[4] = {GPU_IN, GPU_WEIGHTS, GPU_BIAS, GPU_OUT};
    void *const data[4] = {pointers->in, pointers->weights, pointers->bias, pointers->out};
    cudnnBackendDescriptor_t pack = gpu_maker_part(&m, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    gpu_maker_set(&m, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 4, numbers);
    gpu_maker_set(&m, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 4, data);
    gpu_maker_set(&m, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
                  &pointers->workspace);
    gpu_maker_finish(&m, pack);
    if (m.status != CUDNN_STATUS_SUCCESS) {
        gpu_maker_drop(&m);
        return -ENOMEM;
    }
    *out = pack;
    return 0;
}

int gpu_place_read(const struct gpu_cudnn *cudnn, const char *text, size_t size,
                   struct gpu_place *out, char *error, size_t error_size)
{
    struct gpu_place place = {.cudnn = cudnn};
    struct gpu_maker m = {.place = &place};
    cudnnBackendDescriptor_t made = gpu_maker_part(&m, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    gpu_maker_set(&m, made, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                  (int64_t)size, text);
    gpu_maker_finish(&m, made);
    if (m.status != CUDNN_STATUS_SUCCESS) {
        char reason[256] = "";
        cudnn->cudnnGetLastErrorString(reason, sizeof reason);
        snprintf(error, error_size, "cuDNN does not take it as a device: %s", reason);
        gpu_maker_drop(&m);
        return -EINVAL;
    }
    place.properties = made;
    *out = place;
    return 0;
}
