/*
 * Rasters through GDAL. The only file of unetserve that knows GDAL is raster.c.
 */
#ifndef RASTER_H
#define RASTER_H

#include "unetserve/model.h"

struct image;
struct raster_reference;

#define RASTER_NODATA 255

/* All bands of a raster as C x H x W, the smallest type that holds every band; what the file calls
 * "no data" (or NaN) in image->hidden; the georeference in image->reference. 0 or negative errno
 * with a sentence. */
int raster_read(const char *path, struct image *out, char *error, size_t error_size);
void raster_reference_free(struct raster_reference *reference);

/* "EPSG:32631" or "", for messages. */
const char *raster_reference_name(const struct raster_reference *reference);

/* A GeoTIFF of one uint8 band with the legend as colour table and category names. codes: values are
 * the classes' codes. nodata: RASTER_NODATA is declared as such. */
int raster_write(const char *path, uint32_t height, uint32_t width, uint8_t *values, bool codes,
                 bool nodata, const struct unetserve_interface *legend,
                 const struct raster_reference *reference, char *error, size_t error_size);

#endif
