#include "image.h"

#include "command.h"
#include "unetserve/mask_writer.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NPY_HEADER_MAX 65536

/* ---- .npy ---- */

static void swap_elements(unsigned char *data, size_t bytes, size_t width)
{
    for (size_t at = 0; at + width <= bytes; at += width) {
        for (size_t i = 0; i < width / 2; i++) {
            unsigned char low = data[at + i];
            data[at + i] = data[at + width - 1 - i];
            data[at + width - 1 - i] = low;
        }
    }
}

/* The header of an open .npy, and the file's position behind it. */
static int npy_read_head(FILE *file, struct unetserve_shape *shape, int *big_endian, char *error,
                         size_t error_size)
{
    char head[NPY_HEADER_MAX];
    size_t got = fread(head, 1, sizeof head, file);
    size_t data_offset;
    int rc = npy_header_read(head, got, shape, big_endian, &data_offset, error, error_size);
    if (rc == -EAGAIN) {
        snprintf(error, error_size, "its header is cut short");
        return -EBADMSG;
    }
    if (rc == 0 && fseek(file, (long)data_offset, SEEK_SET) != 0)
        return -EIO;
    return rc;
}

int image_read_npy(FILE *file, struct image *image, char *error, size_t error_size)
{
    int big_endian = 0;
    int rc = npy_read_head(file, &image->shape, &big_endian, error, error_size);
    if (rc < 0)
        return rc;
    char text[160];
    uint64_t bytes;
    unetserve_shape_format(&image->shape, text, sizeof text);
    if (image->shape.rank != 3 && image->shape.rank != 4) {
        snprintf(error, error_size, "its shape is %s, expected C x H x W or N x C x H x W", text);
        return -EBADMSG;
    }
    if (unetserve_shape_bytes(&image->shape, &bytes) < 0 || bytes > IMAGE_BYTES_MAX || bytes == 0) {
        snprintf(error, error_size, "its shape is %s, expected 1 byte to %llu MiB", text,
                 (unsigned long long)(IMAGE_BYTES_MAX >> 20));
        return -EFBIG;
    }
    /* The header may lie: look at what is there before taking memory for it. */
    struct stat status;
    long at = ftell(file);
    if (fstat(fileno(file), &status) == 0 && S_ISREG(status.st_mode) &&
        (uint64_t)status.st_size - (uint64_t)at != bytes) {
        snprintf(error, error_size, "%s are %llu bytes, but %llu follow the header", text,
                 (unsigned long long)bytes,
                 (unsigned long long)status.st_size - (unsigned long long)at);
        return -EBADMSG;
    }
    image->bytes = (size_t)bytes;
    image->data = malloc(image->bytes);
    if (!image->data || fread(image->data, 1, image->bytes, file) != image->bytes) {
        snprintf(error, error_size, "%s", image->data ? "it is cut short" : "no memory for it");
        return image->data ? -EBADMSG : -ENOMEM;
    }
    if (big_endian)
        swap_elements(image->data, image->bytes, unetserve_dtype_size(image->shape.dtype));
    return 0;
}

static int npy_read(const char *path, struct image *out, char *error, size_t error_size)
{
    FILE *file = fopen(path, "rbe");
    if (!file) {
        int rc = -errno;
        snprintf(error, error_size, "cannot read '%s': %s", path, strerror(errno));
        return rc;
    }
    struct image image = {.data = NULL};
    char reason[512] = "cannot seek in it";
    int rc = image_read_npy(file, &image, reason, sizeof reason);
    fclose(file);
    if (rc < 0) {
        snprintf(error, error_size, "cannot use '%s': %s", path, reason);
        image_free(&image);
        return rc;
    }
    *out = image;
    return 0;
}

/* ---- tiles ---- */

int image_read(const char *path, struct image *out, char *error, size_t error_size)
{
    struct stat status;
    if (stat(path, &status) != 0) {
        int rc = -errno;
        snprintf(error, error_size, "cannot read '%s': %s", path, strerror(errno));
        return rc;
    }
    if (S_ISDIR(status.st_mode)) {
        snprintf(error, error_size, "'%s' is a directory, expected a .npy or GeoTIFF file", path);
        return -EISDIR;
    }
    return command_has_suffix(path, ".npy") ? npy_read(path, out, error, error_size)
                                            : raster_read(path, out, error, error_size);
}

void image_free(struct image *image)
{
    free(image->data);
    free(image->hidden);
    raster_reference_free(image->reference);
    *image = (struct image){.data = NULL};
}

static int32_t clamp(int64_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : (int32_t)value;
}

int image_add_offset(struct image *image, int offset)
{
    size_t count = image->bytes / unetserve_dtype_size(image->shape.dtype);
    for (size_t i = 0; i < count; i++) {
        switch (image->shape.dtype) {
        case UNETSERVE_U8: {
            uint8_t *value = (uint8_t *)image->data + i;
            *value = (uint8_t)clamp((int64_t)*value + offset, 0, UINT8_MAX);
            break;
        }
        case UNETSERVE_I8: {
            int8_t *value = (int8_t *)image->data + i;
            *value = (int8_t)clamp((int64_t)*value + offset, INT8_MIN, INT8_MAX);
            break;
        }
        case UNETSERVE_U16: {
            uint16_t *value = (uint16_t *)image->data + i;
            *value = (uint16_t)clamp((int64_t)*value + offset, 0, UINT16_MAX);
            break;
        }
        case UNETSERVE_I16: {
            int16_t *value = (int16_t *)image->data + i;
            *value = (int16_t)clamp((int64_t)*value + offset, INT16_MIN, INT16_MAX);
            break;
        }
        case UNETSERVE_F32: ((float *)image->data)[i] += (float)offset; break;
        case UNETSERVE_F64: ((double *)image->data)[i] += offset; break;
        default: return -ENOTSUP;
        }
    }
    return 0;
}

void image_blank_hidden(struct image *image)
{
    if (!image->hidden)
        return;
    size_t width = unetserve_dtype_size(image->shape.dtype);
    size_t pixels = (size_t)(image->shape.dims[1] * image->shape.dims[2]);
    unsigned char *data = image->data;
    for (uint64_t band = 0; band < image->shape.dims[0]; band++)
        for (size_t pixel = 0; pixel < pixels; pixel++)
            if (image->hidden[pixel])
                memset(data + (band * pixels + pixel) * width, 0, width);
}

static double half_value(uint16_t bits)
{
    int exponent = bits >> 10 & 31;
    double fraction = bits & 1023;
    double value = exponent == 31  ? (fraction != 0 ? (double)NAN : (double)INFINITY)
                   : exponent == 0 ? ldexp(fraction, -24)
                                   : ldexp(fraction + 1024, exponent - 25);
    return bits & 0x8000 ? -value : value;
}

static double image_element(const struct image *image, size_t i)
{
    switch (image->shape.dtype) {
    case UNETSERVE_U8: return ((const uint8_t *)image->data)[i];
    case UNETSERVE_I8: return ((const int8_t *)image->data)[i];
    case UNETSERVE_U16: return ((const uint16_t *)image->data)[i];
    case UNETSERVE_I16: return ((const int16_t *)image->data)[i];
    case UNETSERVE_F16: return half_value(((const uint16_t *)image->data)[i]);
    case UNETSERVE_F32: return (double)((const float *)image->data)[i];
    default: return ((const double *)image->data)[i];
    }
}

void image_measure(const struct image *image, struct image_figures *out)
{
    struct image_figures figures = {DBL_MAX, -DBL_MAX, 0};
    size_t count = image->bytes / unetserve_dtype_size(image->shape.dtype);
    for (size_t i = 0; i < count; i++) {
        double value = image_element(image, i);
        if (!isfinite(value)) {
            figures.not_finite++;
            continue;
        }
        figures.least = fmin(figures.least, value);
        figures.largest = fmax(figures.largest, value);
    }
    if (figures.not_finite == count)
        figures.least = figures.largest = 0;
    *out = figures;
}

/* ---- masks ---- */

enum mask_file mask_file_kind(const char *path)
{
    if (command_has_suffix(path, ".png"))
        return MASK_FILE_PNG;
    if (command_has_suffix(path, ".npy"))
        return MASK_FILE_NPY;
    if (command_has_suffix(path, ".tif") || command_has_suffix(path, ".tiff"))
        return MASK_FILE_TIF;
    return MASK_FILE_UNKNOWN;
}

/* head first, then data. */
static int write_file(const char *path, const void *head, size_t head_size, const void *data,
                      size_t size, char *error, size_t error_size)
{
    FILE *file = fopen(path, "wbe");
    if (!file) {
        int rc = -errno;
        snprintf(error, error_size, "cannot create '%s': %s", path, strerror(errno));
        return rc;
    }
    bool written = fwrite(head, 1, head_size, file) == head_size &&
                   fwrite(data, 1, size, file) == size;
    written = fclose(file) == 0 && written;
    if (!written) {
        snprintf(error, error_size, "cannot write '%s': %s", path, strerror(errno));
        unlink(path);
        return -EIO;
    }
    return 0;
}

int image_write_npy(const char *path, const struct image *image, char *error, size_t error_size)
{
    char header[256];
    int header_bytes = npy_header_write(&image->shape, header, sizeof header);
    if (header_bytes < 0) {
        snprintf(error, error_size, "cannot write '%s' as .npy", path);
        return header_bytes;
    }
    return write_file(path, header, (size_t)header_bytes, image->data, image->bytes, error,
                      error_size);
}

static int mask_file_encode(const char *path, enum mask_format format,
                            const struct unetserve_shape *shape, const uint8_t *labels,
                            const struct unetserve_interface *legend, char *error,
                            size_t error_size)
{
    void *bytes;
    size_t size;
    int rc = mask_encode(format, legend, shape, labels, &bytes, &size);
    if (rc < 0) {
        snprintf(error, error_size, "cannot encode '%s': %s", path, strerror(-rc));
        return rc;
    }
    rc = write_file(path, "", 0, bytes, size, error, error_size);
    free(bytes);
    return rc;
}

/* A server that tells no colours: shades of grey, so that the classes can be seen. */
static void legend_fill_grey(struct unetserve_interface *legend)
{
    legend->class_count = UNETSERVE_MAX_CLASSES;
    for (uint32_t i = 0; i < UNETSERVE_MAX_CLASSES; i++) {
        struct unetserve_class *class = &legend->classes[i];
        snprintf(class->name, sizeof class->name, "class %u", i);
        class->code = (uint16_t)i;
        memset(class->rgb, (int)((i * 23) & 255), sizeof class->rgb);
    }
}

static void labels_to_codes(uint8_t *labels, size_t count, const struct unetserve_interface *legend)
{
    for (size_t i = 0; i < count; i++)
        if (labels[i] < legend->class_count)
            labels[i] = (uint8_t)legend->classes[labels[i]].code;
}

int mask_file_write(const char *path, const struct unetserve_shape *shape, uint8_t *labels,
                    bool codes, const struct unetserve_interface *legend, const struct image *image,
                    char *error, size_t error_size)
{
    enum mask_file kind = mask_file_kind(path);
    if (shape->rank != 2 && kind != MASK_FILE_NPY) {
        snprintf(error, error_size, "a batch of masks can be written as .npy only, not '%s'", path);
        return -EINVAL;
    }
    uint64_t count;
    if (unetserve_shape_elements(shape, &count) < 0)
        return -EINVAL;
    if (codes)
        labels_to_codes(labels, (size_t)count, legend);
    static _Thread_local struct unetserve_interface grey;
    switch (kind) {
    case MASK_FILE_TIF:
        return raster_write(path, (uint32_t)shape->dims[0], (uint32_t)shape->dims[1], labels, codes,
                            image->hidden != NULL, legend, image->reference, error, error_size);
    case MASK_FILE_NPY:
        return mask_file_encode(path, MASK_NPY, shape, labels, legend, error, error_size);
    default:
        legend_fill_grey(&grey);
        return mask_file_encode(path, MASK_PNG, shape, labels,
                                legend->class_count > 0 ? legend : &grey, error, error_size);
    }
}
