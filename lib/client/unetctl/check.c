/*
 * unetctl check: would this tile, model or configuration do? Nothing needs to run.
 */
#include "command.h"
#include "image.h"
#include "inspect.h"
#include "unetserve/config.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

static const char help_text[] =
    "usage: unetctl check FILE [--json]\n"
    "\n"
    "  FILE    a tile (.npy or any raster that GDAL reads): type, shape, range, missing values\n"
    "          a model (.safetensors, .pth, .so, a directory): as unetctl inspect\n"
    "          a configuration (.conf): errors with file, line and key\n";

static int check_configuration(const char *path, bool json)
{
    static struct config config;
    struct config_error error = {.text = ""};
    config_init(&config);
    int rc = config_load(path, &config, &error);
    if (rc < 0 && rc != -EINVAL)
        return command_fail(command_exit_code(rc), "%s",
                            error.text[0] ? error.text : strerror(-rc));
    if (rc == 0)
        rc = config_validate(&config, &error);
    if (rc < 0)
        return command_fail(EX_CONFIG, "%s", error.text);
    if (json)
        printf("{\"file\": \"configuration\", \"models\": %u}\n", config.model_count);
    else
        printf("%s: a configuration of %u model%s, in order\n", path, config.model_count,
               config.model_count == 1 ? "" : "s");
    return EX_OK;
}

static int print_tile_json(const struct image *image, const struct image_figures *figures,
                           uint64_t hidden)
{
    json_t *dims = json_array();
    for (uint32_t i = 0; i < image->shape.rank; i++)
        json_array_append_new(dims, json_integer((json_int_t)image->shape.dims[i]));
    json_t *document = json_pack(
        "{s:s, s:s, s:o, s:f, s:f, s:I, s:I, s:s}", "file", "tile", "dtype",
        unetserve_dtype_name(image->shape.dtype), "shape", dims, "least", figures->least, "largest",
        figures->largest, "not_finite", (json_int_t)figures->not_finite, "no_data_pixels",
        (json_int_t)hidden, "crs", raster_reference_name(image->reference));
    if (!document)
        return command_fail(EX_SOFTWARE, "no memory");
    json_dumpf(document, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(document);
    return EX_OK;
}

static int check_tile(const char *path, bool json)
{
    char error[COMMAND_ERROR_MAX];
    char text[160];
    struct image image;
    int rc = image_read(path, &image, error, sizeof error);
    if (rc < 0)
        return command_fail(command_exit_code(rc), "%s", error);
    struct image_figures figures;
    uint64_t hidden = 0;
    image_measure(&image, &figures);
    for (uint64_t i = 0; image.hidden && i < image.shape.dims[1] * image.shape.dims[2]; i++)
        hidden += image.hidden[i];
    int code = EX_OK;
    if (json) {
        code = print_tile_json(&image, &figures, hidden);
    } else {
        printf("%s: %s, %g to %g", path, unetserve_shape_format(&image.shape, text, sizeof text),
               figures.least, figures.largest);
        if (*raster_reference_name(image.reference))
            printf(", %s", raster_reference_name(image.reference));
        if (hidden > 0)
            printf(", %llu pixels without data", (unsigned long long)hidden);
        putchar('\n');
    }
    /* In rasters what is not a number is "no data", and is blanked before it is sent. */
    if (figures.not_finite > 0 && !image.hidden)
        code = command_fail(EX_DATAERR, "'%s' has %llu values that are NaN or infinite", path,
                            (unsigned long long)figures.not_finite);
    image_free(&image);
    return code;
}

int command_check(int argc, char **argv)
{
    bool json = false;
    int code = EX_OK;
    const char *path = command_one_file(argc, argv, "file", help_text, &json, &code);
    if (!path)
        return code;
    if (command_has_suffix(path, ".conf") || command_has_suffix(path, ".ini"))
        return check_configuration(path, json);
    if (command_looks_like_model(path))
        return inspect_model(path, json);
    return check_tile(path, json);
}
