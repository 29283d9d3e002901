#include "gpu_maker.h"

void gpu_maker_keep(struct gpu_maker *m, cudnnStatus_t status)
{
    if (m->status == CUDNN_STATUS_SUCCESS) {
        m->status = status;
    }
}

cudnnBackendDescriptor_t gpu_maker_part(struct gpu_maker *m, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t made = NULL;
    if (m->part_count == GPU_MAKER_PARTS) {
        gpu_maker_keep(m, CUDNN_STATUS_INTERNAL_ERROR);
    }
    if (m->status == CUDNN_STATUS_SUCCESS) {
        gpu_maker_keep(m, m->place->cudnn->cudnnBackendCreateDescriptor(type, &made));
    }
    if (m->status != CUDNN_STATUS_SUCCESS) {
        return NULL;
    }
    m->parts[m->part_count++] = made;
    return made;
}

void gpu_maker_set(struct gpu_maker *m, cudnnBackendDescriptor_t part,
                   cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                   int64_t count, const void *values)
{
    if (m->status == CUDNN_STATUS_SUCCESS) {
        gpu_maker_keep(m,
                       m->place->cudnn->cudnnBackendSetAttribute(part, name, type, count, values));
    }
}

void gpu_maker_set_part(struct gpu_maker *m, cudnnBackendDescriptor_t part,
                        cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value)
{
    gpu_maker_set(m, part, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

void gpu_maker_finish(struct gpu_maker *m, cudnnBackendDescriptor_t part)
{
    if (m->status == CUDNN_STATUS_SUCCESS) {
        gpu_maker_keep(m, m->place->cudnn->cudnnBackendFinalize(part));
    }
}

void gpu_maker_set_place(struct gpu_maker *m, cudnnBackendDescriptor_t part,
                         cudnnBackendAttributeName_t handle, cudnnBackendAttributeName_t properties)
{
    if (m->place->properties != NULL) {
        gpu_maker_set_part(m, part, properties, m->place->properties);
    } else {
        gpu_maker_set(m, part, handle, CUDNN_TYPE_HANDLE, 1, &m->place->handle);
    }
}

void gpu_maker_drop(struct gpu_maker *m)
{
    while (m->part_count > 0) {
        m->place->cudnn->cudnnBackendDestroyDescriptor(m->parts[--m->part_count]);
    }
}
