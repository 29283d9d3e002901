/*
 * What the interfaces of networks in tests have in common: one image in, uint16 or float32, and a
 * byte of label for each pixel out. For initialisers: struct unetserve_interface unet = {
 * IMAGE_INTERFACE, .name = "unet", .channels = 12, .max_batch = 1}.
 */
#ifndef IMAGE_INTERFACE_H
#define IMAGE_INTERFACE_H

#include "unetserve/model.h"

#define IMAGE_INTERFACE                                                                            \
    .version = "1", .input_kind = UNETSERVE_TENSOR, .output_kind = UNETSERVE_TENSOR,               \
    .input_field = "image", .output_field = "output",                                              \
    .input_dtypes = 1u << UNETSERVE_U16 | 1u << UNETSERVE_F32, .size_multiple = 1,                 \
    .output_dtype = UNETSERVE_U8

#endif
