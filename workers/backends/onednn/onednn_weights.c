#include "onednn_weights.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CACHE_LINE_BYTES 64u
#define HUGE_PAGE_BYTES  (2u << 20)
/* Names what onednn_winograd_pack makes; another number when it makes something else. */
#define WINOGRAD_FORM UINT64_C(0x77696e6f67726101)

void *onednn_buffer_create(size_t bytes)
{
    size_t align = bytes >= HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : CACHE_LINE_BYTES;
    if (bytes > SIZE_MAX - align) {
        return NULL;
    }
    size_t rounded = (bytes + align - 1) / align * align;
    void *data = aligned_alloc(align, rounded > 0 ? rounded : align);
    if (data != NULL && align == HUGE_PAGE_BYTES) {
        (void)madvise(data, rounded, MADV_HUGEPAGE); /* a kernel without them is merely slower */
    }
    return data;
}

int onednn_error(dnnl_status_t status)
{
    switch (status) {
    case dnnl_success: return 0;
    case dnnl_out_of_memory: return -ENOMEM;
    case dnnl_invalid_arguments:
    case dnnl_unimplemented: return -EINVAL;
    default: return -EIO;
    }
}

/* [in][out][2][2] as [dy][dx][out][in]. */
static void turn_up_weights(const struct network_layer *layer, size_t in, float *turned)
{
    size_t out = layer->channels;
    for (size_t i = 0; i < in; i++) {
        for (size_t o = 0; o < out; o++) {
            for (size_t k = 0; k < 4; k++) {
                turned[(k * out + o) * in + i] = layer->weights[(i * out + o) * 4 + k];
            }
        }
    }
}

/* Everything but the values. */
static struct onednn_weights shape_of(const struct network_layer *layer, enum onednn_type type,
                                      uint32_t in_channels)
{
    bool up = layer->op == NETWORK_CONV_UP;
    int64_t outputs = (int64_t)(up ? 4 : 1) * layer->channels;
    int64_t kernel = up ? 1 : layer->kernel;
    return (struct onednn_weights){.type = type, .dims = {outputs, in_channels, kernel, kernel}};
}

/* Room for the bias, and oneDNN's name for it. */
static int make_bias(const struct onednn_machine *machine, struct onednn_weights *weights)
{
    dnnl_memory_desc_t desc;
    weights->bias = (float *)onednn_buffer_create((size_t)weights->dims[0] * sizeof(float));
    if (weights->bias == NULL) {
        return -ENOMEM;
    }
    dnnl_status_t status = dnnl_memory_desc_init_by_tag(&desc, 1, weights->dims, dnnl_f32, dnnl_x);
    if (status == dnnl_success) {
        status = dnnl_memory_create(&weights->bias_memory, &desc, machine->engine, weights->bias);
    }
    return onednn_error(status);
}

int onednn_weights_create(const struct onednn_machine *machine, const struct network_layer *layer,
                          enum onednn_type type, uint32_t in_channels, struct onednn_weights *out)
{
    struct onednn_weights weights = shape_of(layer, type, in_channels);
    size_t outputs = (size_t)weights.dims[0];
    int error = make_bias(machine, &weights);
    if (error == 0 && layer->op == NETWORK_CONV_UP) {
        weights.turned = malloc(outputs * in_channels * sizeof(float));
        error = weights.turned == NULL ? -ENOMEM : 0;
    }
    if (error != 0) {
        onednn_weights_free(&weights);
        return error;
    }
    weights.plain = layer->weights;
    if (weights.turned != NULL) {
        turn_up_weights(layer, in_channels, (float *)weights.turned);
        weights.plain = weights.turned;
    }
    for (size_t i = 0; i < outputs; i += layer->channels) {
        memcpy(weights.bias + i, layer->bias, layer->channels * sizeof(float));
    }
    *out = weights;
    return 0;
}

int onednn_weights_create_winograd(const struct onednn_machine *machine,
                                   const struct network_layer *layer,
                                   const struct onednn_winograd_kernel *kernel,
                                   uint32_t in_channels, uint32_t threads,
                                   struct onednn_weights *out)
{
    struct onednn_weights weights = shape_of(layer, ONEDNN_F32, in_channels);
    weights.winograd = kernel;
    int error = make_bias(machine, &weights);
    if (error == 0) {
        weights.forms[0].data = onednn_buffer_create(onednn_weights_bytes(&weights));
        error = weights.forms[0].data == NULL ? -ENOMEM : 0;
    }
    if (error != 0) {
        onednn_weights_free(&weights);
        return error;
    }
    memcpy(weights.bias, layer->bias, layer->channels * sizeof *weights.bias);
    onednn_winograd_pack(kernel, layer->weights, in_channels, layer->channels, threads,
                         (float *)weights.forms[0].data);
    *out = weights;
    return 0;
}

int onednn_weights_create_integer(const struct onednn_machine *machine,
                                  const struct network_layer *layer, uint32_t in_channels,
                                  struct quantise_conv *integers, struct onednn_weights *out)
{
    struct onednn_weights weights = shape_of(layer, ONEDNN_S8, in_channels);
    weights.turned = integers->weights;
    weights.scales = integers->scale;
    weights.plain = weights.turned;
    int error = make_bias(machine, &weights);
    if (error == 0) {
        memcpy(weights.bias, integers->bias, integers->outputs * sizeof *weights.bias);
    }
    free(integers->bias);
    *integers = (struct quantise_conv){0};
    if (error != 0) {
        onednn_weights_free(&weights);
        return error;
    }
    *out = weights;
    return 0;
}

/* The scales of integers from a file. */
static int adopt_scales(const struct packed_view *packed, uint32_t number,
                        struct onednn_weights *weights)
{
    static const struct packed_hash plain = {0, 0};
    const struct packed_section *found = packed_file_find(packed, number, PACKED_SCALES, &plain);
    size_t bytes = (size_t)weights->dims[0] * sizeof(float);
    if (found == NULL || found->bytes != bytes) {
        return -ESTALE;
    }
    weights->scales = (float *)malloc(bytes);
    if (weights->scales == NULL) {
        return -ENOMEM;
    }
    memcpy(weights->scales, packed->data + found->offset, bytes);
    return 0;
}

/* Transformed weights where they lie in a file. */
static int adopt_winograd(const struct packed_view *packed, uint32_t number,
                          struct onednn_weights *weights)
{
    struct packed_hash wanted = onednn_weights_hash(weights);
    const struct packed_section *found = packed_file_find(packed, number, PACKED_WEIGHTS, &wanted);
    if (found == NULL || found->bytes != onednn_weights_bytes(weights)) {
        return -ESTALE;
    }
    weights->forms[0] = (struct onednn_form){
        .data = (void *)(uintptr_t)(packed->data + found->offset), .mapped = true};
    return 0;
}

int onednn_weights_adopt(const struct onednn_machine *machine, const struct network_layer *layer,
                         enum onednn_type type, const struct onednn_winograd_kernel *kernel,
                         uint32_t in_channels, const struct packed_view *packed, uint32_t number,
                         struct onednn_weights *out)
{
    static const struct packed_hash plain = {0, 0};
    struct onednn_weights weights = shape_of(layer, type, in_channels);
    weights.winograd = kernel;
    const struct packed_section *bias = packed_file_find(packed, number, PACKED_BIAS, &plain);
    size_t bytes = (size_t)weights.dims[0] * sizeof(float);
    if (bias == NULL || bias->bytes != bytes) {
        return -ESTALE;
    }
    int error = make_bias(machine, &weights);
    if (error == 0 && type == ONEDNN_S8) {
        error = adopt_scales(packed, number, &weights);
    }
    if (error == 0 && kernel != NULL) {
        error = adopt_winograd(packed, number, &weights);
    }
    if (error != 0) {
        onednn_weights_free(&weights);
        return error;
    }
    memcpy(weights.bias, packed->data + bias->offset, bytes);
    weights.packed = packed;
    weights.layer = number;
    *out = weights;
    return 0;
}

static void form_free(struct onednn_form *form)
{
    if (form->memory != NULL) {
        dnnl_memory_destroy(form->memory);
    }
    if (!form->mapped) {
        free(form->data);
    }
    *form = (struct onednn_form){0};
}

void onednn_weights_drop_second(struct onednn_weights *weights)
{
    for (size_t i = 1; i < ONEDNN_WEIGHT_FORMS; i++) {
        form_free(&weights->forms[i]);
    }
}

void onednn_weights_free(struct onednn_weights *weights)
{
    onednn_weights_drop_second(weights);
    form_free(&weights->forms[0]);
    if (weights->bias_memory != NULL) {
        dnnl_memory_destroy(weights->bias_memory);
    }
    free(weights->bias);
    free(weights->scales);
    free(weights->turned);
    *weights = (struct onednn_weights){0};
}

static dnnl_status_t reorder(const struct onednn_machine *machine, const dnnl_memory_desc_t *from,
                             dnnl_memory_t in, const dnnl_memory_desc_t *to, dnnl_memory_t out)
{
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_status_t status = dnnl_reorder_primitive_desc_create(&desc, from, machine->engine, to,
                                                              machine->engine, NULL);
    if (status == dnnl_success) {
        status = dnnl_primitive_create(&primitive, desc);
        dnnl_primitive_desc_destroy(desc);
    }
    if (status == dnnl_success) {
        dnnl_exec_arg_t args[2] = {{DNNL_ARG_FROM, in}, {DNNL_ARG_TO, out}};
        status = dnnl_primitive_execute(primitive, machine->stream, 2, args);
        dnnl_primitive_destroy(primitive);
    }
    return status == dnnl_success ? dnnl_stream_wait(machine->stream) : status;
}

static dnnl_status_t fill_from_plain(const struct onednn_machine *machine,
                                     struct onednn_weights *weights, const struct onednn_form *form)
{
    dnnl_memory_desc_t desc;
    dnnl_memory_t plain = NULL;
    dnnl_data_type_t element = weights->type == ONEDNN_S8 ? dnnl_s8 : dnnl_f32;
    dnnl_status_t status = dnnl_memory_desc_init_by_tag(&desc, 4, weights->dims, element,
                                                        dnnl_oihw);
    if (status == dnnl_success) {
        void *values = (void *)(uintptr_t)weights->plain; /* that a reorder only reads */
        status = dnnl_memory_create(&plain, &desc, machine->engine, values);
    }
    if (status == dnnl_success) {
        status = reorder(machine, &desc, plain, &form->desc, form->memory);
        dnnl_memory_destroy(plain);
    }
    if (status == dnnl_success) {
        free(weights->turned);
        weights->turned = NULL;
        weights->plain = NULL;
    }
    return status;
}

static int form_create(const struct onednn_machine *machine, struct onednn_weights *weights,
                       const dnnl_memory_desc_t *desc, struct onednn_form *out)
{
    struct onednn_form form = {.desc = *desc};
    form.data = onednn_buffer_create(dnnl_memory_desc_get_size(desc));
    if (form.data == NULL) {
        return -ENOMEM;
    }
    dnnl_status_t status = dnnl_memory_create(&form.memory, &form.desc, machine->engine, form.data);
    if (status == dnnl_success) {
        const struct onednn_form *first = &weights->forms[0];
        status = weights->plain != NULL
                     ? fill_from_plain(machine, weights, &form)
                     : reorder(machine, &first->desc, first->memory, &form.desc, form.memory);
    }
    if (status != dnnl_success) {
        form_free(&form);
        return onednn_error(status);
    }
    *out = form;
    return 0;
}

struct packed_hash onednn_form_hash(const dnnl_memory_desc_t *desc)
{
    /* oneDNN leaves what a descriptor does not use as it happens to be. */
    dnnl_memory_desc_t used;
    memset(&used, 0, sizeof used);
    const dnnl_blocking_desc_t *blocking = &desc->format_desc.blocking;
    size_t dims = (size_t)desc->ndims;
    used.ndims = desc->ndims;
    used.data_type = desc->data_type;
    used.offset0 = desc->offset0;
    used.format_kind = desc->format_kind;
    memcpy(used.dims, desc->dims, dims * sizeof *desc->dims);
    memcpy(used.padded_dims, desc->padded_dims, dims * sizeof *desc->dims);
    memcpy(used.padded_offsets, desc->padded_offsets, dims * sizeof *desc->dims);
    if (desc->format_kind == dnnl_blocked) {
        size_t blocks = (size_t)blocking->inner_nblks;
        dnnl_blocking_desc_t *out = &used.format_desc.blocking;
        out->inner_nblks = blocking->inner_nblks;
        memcpy(out->strides, blocking->strides, dims * sizeof *blocking->strides);
        memcpy(out->inner_blks, blocking->inner_blks, blocks * sizeof *blocking->inner_blks);
        memcpy(out->inner_idxs, blocking->inner_idxs, blocks * sizeof *blocking->inner_idxs);
    } else {
        used.format_desc = desc->format_desc;
    }
    used.extra.flags = desc->extra.flags;
    if (desc->extra.flags != dnnl_memory_extra_flag_none) {
        used.extra.compensation_mask = desc->extra.compensation_mask;
        used.extra.scale_adjust = desc->extra.scale_adjust;
        used.extra.asymm_compensation_mask = desc->extra.asymm_compensation_mask;
    }
    return packed_hash_of(&used, sizeof used);
}

struct packed_hash onednn_weights_hash(const struct onednn_weights *weights)
{
    if (weights->winograd == NULL) {
        return onednn_form_hash(&weights->forms[0].desc);
    }
    const uint64_t form[] = {WINOGRAD_FORM, weights->winograd->panel, (uint64_t)weights->dims[0],
                             (uint64_t)weights->dims[1]};
    return packed_hash_of(form, sizeof form);
}

size_t onednn_weights_bytes(const struct onednn_weights *weights)
{
    return weights->winograd == NULL
               ? dnnl_memory_desc_get_size(&weights->forms[0].desc)
               : onednn_winograd_weights_bytes(weights->winograd, (size_t)weights->dims[1],
                                               (size_t)weights->dims[0]);
}

/* The first form from the shared file. oneDNN reads weights and never writes to them. */
static int form_find(const struct onednn_machine *machine, const struct onednn_weights *weights,
                     const dnnl_memory_desc_t *desc, struct onednn_form *out)
{
    struct packed_hash wanted = onednn_form_hash(desc);
    const struct packed_section *found = packed_file_find(weights->packed, weights->layer,
                                                          PACKED_WEIGHTS, &wanted);
    if (found == NULL || found->bytes != dnnl_memory_desc_get_size(desc)) {
        return -ESTALE;
    }
    struct onednn_form form = {.desc = *desc, .mapped = true};
    form.data = (void *)(uintptr_t)(weights->packed->data + found->offset);
    dnnl_status_t status = dnnl_memory_create(&form.memory, &form.desc, machine->engine, form.data);
    if (status != dnnl_success) {
        return onednn_error(status);
    }
    *out = form;
    return 0;
}

int onednn_weights_get(const struct onednn_machine *machine, struct onednn_weights *weights,
                       const dnnl_memory_desc_t *desc, dnnl_memory_t *out)
{
    for (size_t i = 0; i < ONEDNN_WEIGHT_FORMS; i++) {
        struct onednn_form *form = &weights->forms[i];
        if (form->memory == NULL) {
            int error = i == 0 && weights->packed != NULL
                            ? form_find(machine, weights, desc, form)
                            : form_create(machine, weights, desc, form);
            if (error != 0) {
                return error;
            }
        }
        if (dnnl_memory_desc_equal(&form->desc, desc) != 0) {
            *out = form->memory;
            return 0;
        }
    }
    return -EBUSY;
}
