/*
 * The weights of one convolution in the formats that oneDNN's primitives ask for. Which format that
 * is depends on the shape of the image; in practice nearly all shapes agree. So there is one packed
 * form, made at create or found in the file that all workers map (onednn_packed.h), and room for a
 * second one, made from the first when a shape wants it: never more than twice the weights, and no
 * plain copy.
 */
#ifndef ONEDNN_WEIGHTS_H
#define ONEDNN_WEIGHTS_H

#include "onednn_kernels.h"
#include "onednn_winograd.h"
#include "workers/backends/packed_file.h"
#include "workers/backends/quantise.h"
#include "workers/models/unet/network.h"

#include <oneapi/dnnl/dnnl.h>

#define ONEDNN_WEIGHT_FORMS 2

/* Where everything of an instance runs. */
struct onednn_machine {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_attr_t plain; /* scratch memory is ours */
    dnnl_primitive_attr_t relu;  /* the same, and ReLU after the convolution */
};

/* memory is NULL, and desc says nothing, where they are transformed for our own kernel. */
struct onednn_form {
    dnnl_memory_desc_t desc;
    dnnl_memory_t memory;
    void *data;
    bool mapped; /* data lies in the shared file: read-only, and not ours to free */
};

struct onednn_weights {
    enum onednn_type type;                         /* S8: integers */
    dnnl_dims_t dims;                              /* out, in, kernel, kernel, as oneDNN is told */
    const struct onednn_winograd_kernel *winograd; /* that the only form is for; NULL: oneDNN */
    struct onednn_form forms[ONEDNN_WEIGHT_FORMS];
    const void *plain; /* out x in x kernel x kernel, until the first form is made: the network's */
    void *turned;      /* or these, of CONV_UP, or of integers */
    const struct packed_view *packed; /* where the first form is, instead of plain; or NULL */
    uint32_t layer;                   /* its number there */
    float *bias;
    float *scales; /* of integers: what each output's sum is multiplied by; else NULL */
    dnnl_memory_t bias_memory;
};

/* Take a convolution's weights, which must stay where they are until the first form is made.
 * in_channels: what the layer reads. CONV_UP becomes a 1 x 1 convolution to 4 x channels,
 * [dy][dx][channel]. 0, -ENOMEM, -EIO. Free with onednn_weights_free. */
int onednn_weights_create(const struct onednn_machine *machine, const struct network_layer *layer,
                          enum onednn_type type, uint32_t in_channels, struct onednn_weights *out);

/* The same, transformed for that kernel, in f32; nothing of the layer is needed afterwards. */
int onednn_weights_create_winograd(const struct onednn_machine *machine,
                                   const struct network_layer *layer,
                                   const struct onednn_winograd_kernel *kernel,
                                   uint32_t in_channels, uint32_t threads,
                                   struct onednn_weights *out);

/* The same from integers, which are the weights' own from then on, also on failure. */
int onednn_weights_create_integer(const struct onednn_machine *machine,
                                  const struct network_layer *layer, uint32_t in_channels,
                                  struct quantise_conv *integers, struct onednn_weights *out);

/* The same from a file of packed weights, which must stay mapped until onednn_weights_free: the
 * first form is used where it lies. kernel: as for onednn_weights_create_winograd, or NULL.
 * -ESTALE: the file lacks the layer. */
int onednn_weights_adopt(const struct onednn_machine *machine, const struct network_layer *layer,
                         enum onednn_type type, const struct onednn_winograd_kernel *kernel,
                         uint32_t in_channels, const struct packed_view *packed, uint32_t number,
                         struct onednn_weights *out);
void onednn_weights_free(struct onednn_weights *weights);

/* The form that desc describes, made if need be. -EBUSY: there is no room for another form; after
 * onednn_weights_drop_second there is. -ESTALE: the first form is wanted, and the file of packed
 * weights has another. The memory stays the weights' own. 0, -ENOMEM, -EIO. */
int onednn_weights_get(const struct onednn_machine *machine, struct onednn_weights *weights,
                       const dnnl_memory_desc_t *desc, dnnl_memory_t *out);

/* Free the second form. No primitive's arguments may name it any more. */
void onednn_weights_drop_second(struct onednn_weights *weights);

/* How a memory is laid out, as a hash: equal for descriptors that oneDNN takes for equal. */
struct packed_hash onednn_form_hash(const dnnl_memory_desc_t *desc);

/* Of the first form, if there is one: its hash, and bytes. */
struct packed_hash onednn_weights_hash(const struct onednn_weights *weights);
size_t onednn_weights_bytes(const struct onednn_weights *weights);

/* A large buffer, aligned for vectors and, from 2 MiB on, for huge pages. Free with free(). NULL if
 * there is no memory. */
void *onednn_buffer_create(size_t bytes);

/* A negative errno for a status of oneDNN's. */
int onednn_error(dnnl_status_t status);

#endif
