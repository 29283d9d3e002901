/*
 * A model on a GPU that fails as long as the file PATH.UUID holds something: what was set up loses
 * its device at the next request, and nothing new is set up. It answers with the UUID of its GPU.
 */
#include "unetserve/model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fragile {
    int fd; /* of that file */
    char uuid[96];
};

static bool is_broken(int fd)
{
    struct stat status;
    return fstat(fd, &status) != 0 || status.st_size > 0;
}

static int describe(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                    char *error, size_t error_size)
{
    (void)setup, (void)error, (void)error_size;
    memset(interface, 0, sizeof *interface);
    snprintf(interface->name, sizeof interface->name, "fragile");
    interface->input_kind = UNETSERVE_DOCUMENT;
    interface->output_kind = UNETSERVE_DOCUMENT;
    interface->size_multiple = 1;
    interface->max_batch = 1;
    return 0;
}

static int setup(const struct unetserve_setup *options, void **model,
                 struct unetserve_interface *interface, char *error, size_t error_size)
{
    char path[4096];
    const char *uuid = getenv("CUDA_VISIBLE_DEVICES");
    struct fragile *fragile = calloc(1, sizeof *fragile);
    if (!fragile)
        return -ENOMEM;
    snprintf(fragile->uuid, sizeof fragile->uuid, "%s", uuid ? uuid : "none");
    snprintf(path, sizeof path, "%s.%s", options->path, fragile->uuid);
    fragile->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fragile->fd < 0 || is_broken(fragile->fd)) {
        snprintf(error, error_size, "the device is broken");
        if (fragile->fd >= 0)
            close(fragile->fd);
        free(fragile);
        return -ENODEV;
    }
    *model = fragile;
    return describe(options, interface, error, error_size);
}

static int predict(void *model, struct unetserve_item *const *items, size_t count)
{
    const struct fragile *fragile = model;
    if (is_broken(fragile->fd))
        return -EIO;
    for (size_t i = 0; i < count; i++)
        items[i]->output_bytes = (size_t)snprintf(items[i]->output, items[i]->output_capacity,
                                                  "{\"device\": \"%s\"}", fragile->uuid);
    return 0;
}

static void teardown(void *model)
{
    struct fragile *fragile = model;
    close(fragile->fd);
    free(fragile);
}

const struct unetserve_model_ops *unetserve_model(void)
{
    static const struct unetserve_model_ops ops = {
        .abi = UNETSERVE_MODEL_ABI,
        .size = sizeof ops,
        .name = "fragile",
        .describe = describe,
        .setup = setup,
        .predict = predict,
        .teardown = teardown,
    };
    return &ops;
}
