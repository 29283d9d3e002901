#include "raster.h"

#include "image.h"

#include <errno.h>
#include <gdal/cpl_error.h>
#include <gdal/cpl_string.h>
#include <gdal/gdal.h>
#include <gdal/ogr_srs_api.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct raster_reference {
    char *projection; /* WKT, "" if none */
    char name[64];
    bool has_transform;
    double transform[6];
};

/* GDAL prints by itself otherwise; its last message goes into our sentence instead. */
static void raster_start_once(void)
{
    CPLSetErrorHandler(CPLQuietErrorHandler);
    GDALAllRegister();
}

static void raster_start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, raster_start_once);
}

static const char *raster_complaint(void)
{
    const char *message = CPLGetLastErrorMsg();
    return message && *message ? message : "no reason given";
}

/* ---- types ---- */

struct raster_type {
    GDALDataType file;
    GDALDataType memory;
    enum unetserve_dtype dtype;
};

static const struct raster_type raster_types[] = {
    {GDT_Byte, GDT_Byte, UNETSERVE_U8},        {GDT_UInt16, GDT_UInt16, UNETSERVE_U16},
    {GDT_Int16, GDT_Int16, UNETSERVE_I16},     {GDT_UInt32, GDT_Float32, UNETSERVE_F32},
    {GDT_Int32, GDT_Float32, UNETSERVE_F32},   {GDT_Float32, GDT_Float32, UNETSERVE_F32},
    {GDT_Float64, GDT_Float64, UNETSERVE_F64},
};

/* The type that holds all bands, or NULL (complex numbers, 64-bit integers). */
static const struct raster_type *raster_type_of(GDALDatasetH dataset)
{
    GDALDataType type = GDALGetRasterDataType(GDALGetRasterBand(dataset, 1));
    for (int band = 2; band <= GDALGetRasterCount(dataset); band++)
        type = GDALDataTypeUnion(type, GDALGetRasterDataType(GDALGetRasterBand(dataset, band)));
    for (size_t i = 0; i < sizeof raster_types / sizeof *raster_types; i++)
        if (raster_types[i].file == type)
            return &raster_types[i];
    return NULL;
}

/* ---- reading ---- */

static struct raster_reference *raster_reference_read(GDALDatasetH dataset)
{
    struct raster_reference *reference = calloc(1, sizeof *reference);
    if (!reference)
        return NULL;
    const char *projection = GDALGetProjectionRef(dataset);
    reference->projection = strdup(projection ? projection : "");
    if (!reference->projection) {
        free(reference);
        return NULL;
    }
    reference->has_transform = GDALGetGeoTransform(dataset, reference->transform) == CE_None;
    if (reference->projection[0]) {
        OGRSpatialReferenceH system = OSRNewSpatialReference(reference->projection);
        const char *authority = OSRGetAuthorityName(system, NULL);
        const char *code = OSRGetAuthorityCode(system, NULL);
        if (authority && code)
            snprintf(reference->name, sizeof reference->name, "%s:%s", authority, code);
        OSRDestroySpatialReference(system);
    }
    return reference;
}

void raster_reference_free(struct raster_reference *reference)
{
    if (!reference)
        return;
    free(reference->projection);
    free(reference);
}

const char *raster_reference_name(const struct raster_reference *reference)
{
    return reference ? reference->name : "";
}

/* Mark the pixels of one band that are its "no data", or no number. */
static int raster_hide_band(GDALRasterBandH band, uint32_t height, uint32_t width, uint8_t **hidden)
{
    int has_nodata = 0;
    double nodata = GDALGetRasterNoDataValue(band, &has_nodata);
    bool real = GDALDataTypeIsFloating(GDALGetRasterDataType(band));
    if (!has_nodata && !real)
        return 0;
    double *row = malloc(width * sizeof *row);
    if (!row)
        return -ENOMEM;
    int rc = 0;
    for (uint32_t y = 0; rc == 0 && y < height; y++) {
        if (GDALRasterIO(band, GF_Read, 0, (int)y, (int)width, 1, row, (int)width, 1, GDT_Float64,
                         0, 0) != CE_None)
            rc = -EIO;
        for (uint32_t x = 0; rc == 0 && x < width; x++) {
            if (!isnan(row[x]) && (!has_nodata || row[x] != nodata))
                continue;
            if (!*hidden)
                *hidden = calloc(height, width);
            if (*hidden)
                (*hidden)[(size_t)y * width + x] = 1;
            else
                rc = -ENOMEM;
        }
    }
    free(row);
    return rc;
}

static int raster_hide(GDALDatasetH dataset, struct image *image)
{
    int rc = 0;
    for (int band = 1; rc == 0 && band <= GDALGetRasterCount(dataset); band++)
        rc = raster_hide_band(GDALGetRasterBand(dataset, band), (uint32_t)image->shape.dims[1],
                              (uint32_t)image->shape.dims[2], &image->hidden);
    return rc;
}

static int raster_read_open(GDALDatasetH dataset, struct image *image, char *error,
                            size_t error_size)
{
    int bands = GDALGetRasterCount(dataset);
    if (bands < 1) {
        snprintf(error, error_size, "it has no bands");
        return -EBADMSG;
    }
    const struct raster_type *type = raster_type_of(dataset);
    if (!type) {
        snprintf(error, error_size,
                 "its type is %s, expected real numbers of at most 32 bits, or float64",
                 GDALGetDataTypeName(GDALGetRasterDataType(GDALGetRasterBand(dataset, 1))));
        return -EBADMSG;
    }
    int width = GDALGetRasterXSize(dataset);
    int height = GDALGetRasterYSize(dataset);
    image->shape = (struct unetserve_shape){
        type->dtype, 3, {(uint64_t)bands, (uint64_t)height, (uint64_t)width}};
    uint64_t bytes;
    if (unetserve_shape_bytes(&image->shape, &bytes) < 0 || bytes > IMAGE_BYTES_MAX) {
        snprintf(error, error_size, "%d bands of %d x %d are more than %llu MiB, cut it first",
                 bands, height, width, (unsigned long long)(IMAGE_BYTES_MAX >> 20));
        return -EFBIG;
    }
    image->bytes = (size_t)bytes;
    image->data = malloc(image->bytes);
    image->reference = raster_reference_read(dataset);
    if (!image->data || !image->reference) {
        snprintf(error, error_size, "no memory for %llu bytes", (unsigned long long)bytes);
        return -ENOMEM;
    }
    if (GDALDatasetRasterIOEx(dataset, GF_Read, 0, 0, width, height, image->data, width, height,
                              type->memory, bands, NULL, 0, 0, 0, NULL) != CE_None ||
        raster_hide(dataset, image) < 0) {
        snprintf(error, error_size, "%s", raster_complaint());
        return -EBADMSG;
    }
    return 0;
}

int raster_read(const char *path, struct image *out, char *error, size_t error_size)
{
    raster_start();
    CPLErrorReset();
    GDALDatasetH dataset = GDALOpenEx(
        path, GDAL_OF_RASTER | GDAL_OF_READONLY | GDAL_OF_VERBOSE_ERROR, NULL, NULL, NULL);
    if (!dataset) {
        snprintf(error, error_size, "cannot read '%s': %s", path, raster_complaint());
        return -EBADMSG;
    }
    struct image image = {.data = NULL};
    char reason[512];
    int rc = raster_read_open(dataset, &image, reason, sizeof reason);
    GDALClose(dataset);
    if (rc < 0) {
        snprintf(error, error_size, "cannot use '%s': %s", path, reason);
        image_free(&image);
        return rc;
    }
    *out = image;
    return 0;
}

/* ---- writing ---- */

static void raster_set_legend(GDALRasterBandH band, bool codes,
                              const struct unetserve_interface *legend)
{
    GDALColorTableH colors = GDALCreateColorTable(GPI_RGB);
    char **names = NULL;
    uint32_t highest = 0;
    for (uint32_t label = 0; label < legend->class_count; label++) {
        const struct unetserve_class *class = &legend->classes[label];
        uint32_t value = codes ? class->code : label;
        if (value >= RASTER_NODATA)
            continue;
        const GDALColorEntry entry = {class->rgb[0], class->rgb[1], class->rgb[2], 255};
        GDALSetColorEntry(colors, (int)value, &entry);
        highest = value > highest ? value : highest;
    }
    /* GDAL numbers category names from 0 without gaps. */
    for (uint32_t value = 0; legend->class_count > 0 && value <= highest; value++) {
        const char *name = "";
        for (uint32_t label = 0; label < legend->class_count; label++)
            if ((codes ? legend->classes[label].code : label) == value)
                name = legend->classes[label].name;
        names = CSLAddString(names, name);
    }
    GDALSetRasterColorTable(band, colors);
    if (names)
        GDALSetRasterCategoryNames(band, names);
    CSLDestroy(names);
    GDALDestroyColorTable(colors);
}

/* With what GDAL may have put beside it. */
static void raster_remove(const char *path)
{
    char beside[PATH_MAX + sizeof ".aux.xml"];
    snprintf(beside, sizeof beside, "%s.aux.xml", path);
    unlink(path);
    unlink(beside);
}

int raster_write(const char *path, uint32_t height, uint32_t width, uint8_t *values, bool codes,
                 bool nodata, const struct unetserve_interface *legend,
                 const struct raster_reference *reference, char *error, size_t error_size)
{
    raster_start();
    CPLErrorReset();
    char *options[] = {(char *)"COMPRESS=DEFLATE", (char *)"BIGTIFF=IF_SAFER", NULL};
    GDALDatasetH dataset = GDALCreate(GDALGetDriverByName("GTiff"), path, (int)width, (int)height,
                                      1, GDT_Byte, options);
    if (!dataset) {
        snprintf(error, error_size, "cannot create '%s': %s", path, raster_complaint());
        return -EACCES;
    }
    GDALRasterBandH band = GDALGetRasterBand(dataset, 1);
    if (reference && reference->has_transform)
        GDALSetGeoTransform(dataset, (double *)reference->transform);
    if (reference && reference->projection[0])
        GDALSetProjection(dataset, reference->projection);
    if (nodata)
        GDALSetRasterNoDataValue(band, RASTER_NODATA);
    if (legend->class_count > 0)
        raster_set_legend(band, codes, legend);
    CPLErr written = GDALRasterIO(band, GF_Write, 0, 0, (int)width, (int)height, values, (int)width,
                                  (int)height, GDT_Byte, 0, 0);
    /* What closing could not write is known by GDAL's error state only. */
    GDALClose(dataset);
    if (written != CE_None || CPLGetLastErrorType() >= CE_Failure) {
        snprintf(error, error_size, "cannot write '%s': %s", path, raster_complaint());
        raster_remove(path);
        return -EIO;
    }
    return 0;
}
