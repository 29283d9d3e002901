#include "onednn_weights.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CACHE_LINE_BYTES 64u
#define HUGE_PAGE_BYTES  (2u << 20)

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
static void turn_up_weights(const struct network_layer *layer, size_t in, float *plain)
{
    size_t out = layer->channels;
    for (size_t i = 0; i < in; i++) {
        for (size_t o = 0; o < out; o++) {
            for (size_t k = 0; k < 4; k++) {
                plain[(k * out + o) * in + i] = layer->weights[(i * out + o) * 4 + k];
            }
        }
    }
}

int onednn_weights_create(const struct onednn_machine *machine, const struct network_layer *layer,
                          enum onednn_type type, uint32_t in_channels, struct onednn_weights *out)
{
    bool up = layer->op == NETWORK_CONV_UP;
    size_t repeats = up ? 4 : 1;
    size_t outputs = repeats * layer->channels;
    int64_t kernel = up ? 1 : layer->kernel;
    struct onednn_weights weights = {.type = type,
                                     .dims = {(int64_t)outputs, in_channels, kernel, kernel}};
    size_t elements = outputs * in_channels * (size_t)(kernel * kernel);
    weights.plain = (float *)malloc(elements * sizeof(float));
    weights.bias = (float *)onednn_buffer_create(outputs * sizeof(float));
    if (weights.plain == NULL || weights.bias == NULL) {
        onednn_weights_free(&weights);
        return -ENOMEM;
    }
    if (up) {
        turn_up_weights(layer, in_channels, weights.plain);
    } else {
        memcpy(weights.plain, layer->weights, elements * sizeof(float));
    }
    for (size_t i = 0; i < repeats; i++) {
        memcpy(weights.bias + i * layer->channels, layer->bias, layer->channels * sizeof(float));
    }
    dnnl_memory_desc_t desc;
    dnnl_status_t status = dnnl_memory_desc_init_by_tag(&desc, 1, weights.dims, dnnl_f32, dnnl_x);
    if (status == dnnl_success) {
        status = dnnl_memory_create(&weights.bias_memory, &desc, machine->engine, weights.bias);
    }
    if (status != dnnl_success) {
        onednn_weights_free(&weights);
        return onednn_error(status);
    }
    *out = weights;
    return 0;
}

static void form_free(struct onednn_form *form)
{
    if (form->memory != NULL) {
        dnnl_memory_destroy(form->memory);
    }
    free(form->data);
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
    free(weights->plain);
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
    dnnl_status_t status = dnnl_memory_desc_init_by_tag(&desc, 4, weights->dims, dnnl_f32,
                                                        dnnl_oihw);
    if (status == dnnl_success) {
        status = dnnl_memory_create(&plain, &desc, machine->engine, weights->plain);
    }
    if (status == dnnl_success) {
        status = reorder(machine, &desc, plain, &form->desc, form->memory);
        dnnl_memory_destroy(plain);
    }
    if (status == dnnl_success) {
        free(weights->plain);
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

int onednn_weights_get(const struct onednn_machine *machine, struct onednn_weights *weights,
                       const dnnl_memory_desc_t *desc, dnnl_memory_t *out)
{
    for (size_t i = 0; i < ONEDNN_WEIGHT_FORMS; i++) {
        struct onednn_form *form = &weights->forms[i];
        if (form->memory == NULL) {
            int error = form_create(machine, weights, desc, form);
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
