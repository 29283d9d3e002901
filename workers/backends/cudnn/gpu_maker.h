/*
 * cuDNN's descriptors, put together with one look at the status at the end: after the first failure
 * nothing more is done.
 */
#ifndef GPU_MAKER_H
#define GPU_MAKER_H

#include "gpu_conv.h"

/* Descriptors that live as long as a plan is made; the plan keeps what it needs. */
#define GPU_MAKER_PARTS 24

struct gpu_maker {
    const struct gpu_place *place;
    const struct gpu_conv_shape *shape;
    cudnnBackendDescriptor_t parts[GPU_MAKER_PARTS];
    size_t part_count;
    cudnnStatus_t status; /* the first failure; later calls do nothing */
};

/* Note a status. */
void gpu_maker_keep(struct gpu_maker *m, cudnnStatus_t status);

/* A descriptor of that type, destroyed by gpu_maker_drop; NULL after a failure. */
cudnnBackendDescriptor_t gpu_maker_part(struct gpu_maker *m, cudnnBackendDescriptorType_t type);

void gpu_maker_set(struct gpu_maker *m, cudnnBackendDescriptor_t part,
                   cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                   int64_t count, const void *values);
void gpu_maker_set_part(struct gpu_maker *m, cudnnBackendDescriptor_t part,
                        cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value);

/* For the device: by its handle, or by its description. */
void gpu_maker_set_place(struct gpu_maker *m, cudnnBackendDescriptor_t part,
                         cudnnBackendAttributeName_t handle,
                         cudnnBackendAttributeName_t properties);

void gpu_maker_finish(struct gpu_maker *m, cudnnBackendDescriptor_t part);

/* Destroy all parts. */
void gpu_maker_drop(struct gpu_maker *m);

/* The operation graph of m->shape, as gpu_conv.h says. */
cudnnBackendDescriptor_t gpu_conv_graph(struct gpu_maker *m);

#endif
