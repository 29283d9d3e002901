#include "gpu_areas.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gpu_area_piece {
    const char *data;
    size_t bytes;
    bool writable;
};

int gpu_areas_open(struct gpu_device *device, const struct backend_options *options,
                   struct gpu_areas *out)
{
    int read_only = 0;
    int code = gpu_call(device, cuDeviceGetAttribute, &read_only,
                        CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED, device->number);
    if (code == 0) {
        *out = (struct gpu_areas){
            .device = device, .options = options, .read_only = read_only != 0};
    }
    return code;
}

/* The driver takes addresses that it might write to. */
static void *plain(const char *data)
{
    return (void *)(uintptr_t)data; /* NOLINT(performance-no-int-to-ptr) */
}

void gpu_areas_close(struct gpu_areas *areas)
{
    for (size_t i = 0; i < areas->count; i++) {
        areas->device->driver->cuMemHostUnregister(plain(areas->pieces[i].data));
    }
    free(areas->pieces);
    *areas = (struct gpu_areas){.device = NULL};
}

/* How many pieces begin at that address or before it. */
static size_t rank_of(const struct gpu_areas *areas, const char *address)
{
    size_t low = 0;
    size_t high = areas->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (areas->pieces[middle].data <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static const struct gpu_area_piece *find(const struct gpu_areas *areas, const char *address)
{
    size_t rank = rank_of(areas, address);
    const struct gpu_area_piece *piece = rank > 0 ? &areas->pieces[rank - 1] : NULL;
    return piece != NULL && address < piece->data + piece->bytes ? piece : NULL;
}

static int make_room(struct gpu_areas *areas)
{
    size_t room = areas->room > 0 ? 2 * areas->room : 64;
    if (areas->count < areas->room) {
        return 0;
    }
    struct gpu_area_piece *grown = (struct gpu_area_piece *)realloc(areas->pieces,
                                                                    room * sizeof *grown);
    if (grown == NULL) {
        return -ENOMEM;
    }
    areas->pieces = grown;
    areas->room = room;
    return 0;
}

static void insert(struct gpu_areas *areas, const struct gpu_area_piece *piece)
{
    size_t rank = rank_of(areas, piece->data);
    memmove(&areas->pieces[rank + 1], &areas->pieces[rank], (areas->count - rank) * sizeof *piece);
    areas->pieces[rank] = *piece;
    areas->count++;
}

/* Serve without: slower by a copy. */
static void give_up(struct gpu_areas *areas, bool writable, const char *reason)
{
    char text[256];
    areas->given_up[writable] = true;
    snprintf(text, sizeof text, "slots' %s are not page-locked, so copied once more: %s",
             writable ? "outputs" : "inputs", reason);
    if (areas->options->log != NULL) {
        areas->options->log(areas->options->opaque, 4, text);
    }
}

/* These speak of the memory; everything else is the device's end. */
static bool is_refusal(CUresult result)
{
    return result == CUDA_ERROR_NOT_SUPPORTED || result == CUDA_ERROR_INVALID_VALUE ||
           result == CUDA_ERROR_NOT_PERMITTED || result == CUDA_ERROR_OUT_OF_MEMORY ||
           result == CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}

static int lock_piece(struct gpu_areas *areas, const struct gpu_area_piece *piece)
{
    const struct gpu_driver *driver = areas->device->driver;
    const char *reason = "out of memory";
    if (!piece->writable && !areas->read_only) {
        give_up(areas, false, "the device takes no memory that is only read");
        return -ENOTSUP;
    }
    if (make_room(areas) != 0) {
        give_up(areas, piece->writable, reason);
        return -ENOTSUP;
    }
    unsigned flags = CU_MEMHOSTREGISTER_PORTABLE |
                     (piece->writable ? 0 : CU_MEMHOSTREGISTER_READ_ONLY);
    CUresult result = driver->cuMemHostRegister(plain(piece->data), piece->bytes, flags);
    if (is_refusal(result)) {
        driver->cuGetErrorString(result, &reason);
        give_up(areas, piece->writable, reason);
        return -ENOTSUP;
    }
    int code = gpu_check(areas->device, result, "cuMemHostRegister");
    if (code == 0) {
        insert(areas, piece);
    }
    return code;
}

/* The piece of an area that an address lies in. */
static int cut_piece(const struct gpu_areas *areas, const char *address, struct gpu_area_piece *out)
{
    struct unetserve_area area;
    if (areas->options->area == NULL ||
        areas->options->area(areas->options->opaque, address, &area) != 0) {
        return -ENOENT;
    }
    const char *first = (const char *)area.data;
    size_t before = (size_t)(address - first) / GPU_AREA_PIECE_BYTES * GPU_AREA_PIECE_BYTES;
    size_t left = area.bytes - before;
    *out = (struct gpu_area_piece){
        .data = first + before,
        .bytes = left < GPU_AREA_PIECE_BYTES ? left : GPU_AREA_PIECE_BYTES,
        .writable = area.writable,
    };
    return 0;
}

int gpu_areas_lock(struct gpu_areas *areas, const void *address, size_t bytes, bool written,
                   size_t *direct)
{
    const char *at = (const char *)address;
    struct gpu_area_piece cut;
    const struct gpu_area_piece *piece = find(areas, at);
    *direct = 0;
    if (piece == NULL) {
        if (cut_piece(areas, at, &cut) != 0 || areas->given_up[cut.writable]) {
            return 0;
        }
        int code = lock_piece(areas, &cut);
        if (code != 0) {
            return code == -ENOTSUP ? 0 : code;
        }
        piece = &cut;
    }
    if (piece->writable || !written) {
        size_t left = (size_t)(piece->data + piece->bytes - at);
        *direct = bytes < left ? bytes : left;
    }
    return 0;
}
