/*
 * Tensors as every part of unetserve and every model plugin names them: an element type, a shape,
 * and bytes in C order (last dimension fastest), little-endian, packed. Images are N x C x H x W or
 * C x H x W; label masks are H x W or N x H x W.
 */
#ifndef UNETSERVE_TENSOR_H
#define UNETSERVE_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#define UNETSERVE_MAX_DIMS 6

/* name (as numpy and X-Unetserve-Dtype spell it), size in bytes. The numbers are part of the
 * shared-memory layout. */
#define UNETSERVE_DTYPES(X)                                                                        \
    X(NONE, 0, "none", 0)                                                                          \
    X(U8, 1, "uint8", 1)                                                                           \
    X(I8, 2, "int8", 1)                                                                            \
    X(U16, 3, "uint16", 2)                                                                         \
    X(I16, 4, "int16", 2)                                                                          \
    X(F16, 5, "float16", 2)                                                                        \
    X(F32, 6, "float32", 4)                                                                        \
    X(F64, 7, "float64", 8)

enum unetserve_dtype {
#define UNETSERVE_DTYPE_ENUM(id, number, name, size) UNETSERVE_##id = number,
    UNETSERVE_DTYPES(UNETSERVE_DTYPE_ENUM)
#undef UNETSERVE_DTYPE_ENUM
};

/* What a tensor looks like, without its bytes. Lives in shared memory: fixed widths only. */
struct unetserve_shape {
    uint32_t dtype; /* enum unetserve_dtype */
    uint32_t rank;  /* dimensions in use, 0..UNETSERVE_MAX_DIMS */
    uint64_t dims[UNETSERVE_MAX_DIMS];
};

/* Bytes of one element; 0 for NONE and for numbers that name no type. */
size_t unetserve_dtype_size(uint32_t dtype);

/* The numpy name of a type, "none" for anything unknown. Static storage. */
const char *unetserve_dtype_name(uint32_t dtype);

/* The type of a numpy name ("uint16"), UNETSERVE_NONE if there is none of that name. */
enum unetserve_dtype unetserve_dtype_parse(const char *name);

/* Elements and bytes of a shape. Return 0 and write *out, or -EOVERFLOW / -EINVAL (unknown type,
 * rank too large). */
int unetserve_shape_elements(const struct unetserve_shape *shape, uint64_t *out);
int unetserve_shape_bytes(const struct unetserve_shape *shape, uint64_t *out);

/* "uint16[12, 256, 256]" into text, always terminated, cut if it does not fit. Returns text. */
const char *unetserve_shape_format(const struct unetserve_shape *shape, char *text, size_t size);

#endif
