/* Tiles for unetctl calibrate: files by name, and the pieces that a network takes. */
#include "calibrate.h"
#include "command.h"
#include "image.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>

/* Larger images are cut, without overlap: what lies at a cut has less around it than a server would
 * show, which is the same for both precisions. */
#define PIECE_SIDE 512u

/* ---- names ---- */

static int add_file(struct calibrate_files *files, const char *path)
{
    if (files->count >= CALIBRATE_FILES_MAX)
        return command_fail(EX_USAGE, "more than %d tiles", CALIBRATE_FILES_MAX);
    char **paths = realloc(files->paths, (files->count + 1) * sizeof *paths);
    if (!paths)
        return command_fail(EX_OSERR, "no memory");
    files->paths = paths;
    files->paths[files->count] = strdup(path);
    if (!files->paths[files->count])
        return command_fail(EX_OSERR, "no memory");
    files->count++;
    return 0;
}

static int is_tile(const struct dirent *entry)
{
    return command_has_suffix(entry->d_name, ".npy") || command_has_suffix(entry->d_name, ".tif") ||
           command_has_suffix(entry->d_name, ".tiff");
}

static int add_directory(struct calibrate_files *files, const char *path)
{
    struct dirent **entries = NULL;
    int found = scandir(path, &entries, is_tile, alphasort);
    if (found < 0)
        return command_fail(command_exit_code(-errno), "%s: %s", path, strerror(errno));
    int code = found ? 0 : command_fail(EX_NOINPUT, "%s: no .npy and no .tif in it", path);
    for (int i = 0; i < found; i++) {
        char name[4096];
        int length = snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        if (code == 0 && (size_t)length >= sizeof name)
            code = command_fail(EX_NOINPUT, "%.200s: the path is too long", path);
        if (code == 0)
            code = add_file(files, name);
        free(entries[i]);
    }
    free((void *)entries);
    return code;
}

int calibrate_files_add(struct calibrate_files *files, const char *path)
{
    struct stat status;
    if (stat(path, &status) < 0)
        return command_fail(command_exit_code(-errno), "%s: %s", path, strerror(errno));
    return S_ISDIR(status.st_mode) ? add_directory(files, path) : add_file(files, path);
}

void calibrate_files_free(struct calibrate_files *files)
{
    for (size_t i = 0; i < files->count; i++)
        free(files->paths[i]);
    free((void *)files->paths);
    *files = (struct calibrate_files){0};
}

/* ---- pieces ---- */

/* One image of C x H x W. */
struct plane {
    const unsigned char *data;
    size_t element;
    uint32_t dtype;
    uint32_t channels;
    uint32_t height;
    uint32_t width;
};

static uint32_t side_of(uint32_t left, const struct network *network)
{
    uint32_t multiple = network->size_multiple ? network->size_multiple : 1;
    uint32_t side = left < PIECE_SIDE ? left : PIECE_SIDE;
    side -= side % multiple;
    return side < network->size_min ? 0 : side;
}

static void cut(const struct plane *plane, uint32_t top, uint32_t left, uint32_t height,
                uint32_t width, unsigned char *out)
{
    size_t row = (size_t)width * plane->element;
    for (uint32_t c = 0; c < plane->channels; c++) {
        for (uint32_t y = 0; y < height; y++) {
            size_t from = ((size_t)c * plane->height + top + y) * plane->width + left;
            memcpy(out, plane->data + from * plane->element, row);
            out += row;
        }
    }
}

static int walk_plane(const struct plane *plane, const struct network *network, unsigned char *room,
                      calibrate_visit *visit, void *opaque)
{
    int code = 0;
    uint32_t height;
    uint32_t width;
    for (uint32_t top = 0; (height = side_of(plane->height - top, network)) > 0; top += height) {
        for (uint32_t left = 0; (width = side_of(plane->width - left, network)) > 0;
             left += width) {
            cut(plane, top, left, height, width, room);
            struct calibrate_piece piece = {room, plane->dtype, height, width};
            code = visit(opaque, &piece);
            if (code != 0)
                return code;
        }
    }
    return code;
}

/* Networks take no float64; in place. */
static void narrow(struct image *image)
{
    size_t count = image->bytes / sizeof(double);
    unsigned char *data = image->data;
    for (size_t i = 0; i < count; i++) {
        double wide;
        memcpy(&wide, data + i * sizeof wide, sizeof wide);
        float value = (float)wide;
        memcpy(data + i * sizeof value, &value, sizeof value);
    }
    image->shape.dtype = UNETSERVE_F32;
}

static int prepare(const char *path, const struct network *network, int offset, struct image *image)
{
    const uint64_t *dims = image->shape.dims + image->shape.rank - 3;
    image_blank_hidden(image);
    if (offset && image_add_offset(image, offset) < 0)
        return command_fail(EX_DATAERR, "%s: cannot add an offset to float16", path);
    if (image->shape.dtype == UNETSERVE_F64)
        narrow(image);
    if (image->shape.dtype < UNETSERVE_U8 || image->shape.dtype > UNETSERVE_F32)
        return command_fail(EX_DATAERR, "%s: %s is no type of tiles", path,
                            unetserve_dtype_name(image->shape.dtype));
    if (dims[0] != network->in_channels)
        return command_fail(EX_DATAERR, "%s: it has %llu channels, the network takes %u", path,
                            (unsigned long long)dims[0], network->in_channels);
    if (dims[1] > UINT32_MAX || dims[2] > UINT32_MAX || side_of((uint32_t)dims[1], network) == 0 ||
        side_of((uint32_t)dims[2], network) == 0)
        return command_fail(EX_DATAERR, "%s: it is smaller than the network takes", path);
    return 0;
}

static int walk_image(const struct image *image, const struct network *network,
                      calibrate_visit *visit, void *opaque)
{
    const uint64_t *dims = image->shape.dims + image->shape.rank - 3;
    size_t element = unetserve_dtype_size(image->shape.dtype);
    struct plane plane = {.element = element,
                          .dtype = image->shape.dtype,
                          .channels = (uint32_t)dims[0],
                          .height = (uint32_t)dims[1],
                          .width = (uint32_t)dims[2]};
    size_t bytes = (size_t)dims[0] * dims[1] * dims[2] * element;
    uint64_t count = image->shape.rank == 4 ? image->shape.dims[0] : 1;
    size_t most = (size_t)PIECE_SIDE * PIECE_SIDE * plane.channels * element;
    unsigned char *room = malloc(bytes < most ? bytes : most);
    if (!room)
        return command_fail(EX_OSERR, "no memory");
    int code = 0;
    for (uint64_t i = 0; i < count && code == 0; i++) {
        plane.data = (const unsigned char *)image->data + i * bytes;
        code = walk_plane(&plane, network, room, visit, opaque);
    }
    free(room);
    return code;
}

int calibrate_walk(const char *path, const struct network *network, int offset,
                   calibrate_visit *visit, void *opaque)
{
    char error[COMMAND_ERROR_MAX];
    struct image image;
    int rc = image_read(path, &image, error, sizeof error);
    if (rc < 0)
        return command_fail(command_exit_code(rc), "%s", error);
    int code = prepare(path, network, offset, &image);
    if (code == 0)
        code = walk_image(&image, network, visit, opaque);
    image_free(&image);
    return code;
}
