/* The built-in UNet plugin (models/unet.so): unet.h behind the plugin ABI. */
#include "unet.h"

static int setup(const struct unetserve_setup *options, void **model,
                 struct unetserve_interface *interface, char *error, size_t error_size)
{
    struct unet *unet;
    int failure = unet_setup(options, &unet, interface, error, error_size);
    if (!failure)
        *model = unet;
    return failure;
}

static int predict(void *model, struct unetserve_item *const *items, size_t count)
{
    return unet_predict(model, items, count);
}

static uint32_t together(void *model, const struct unetserve_shape *shape, uint32_t waiting,
                         bool *settled)
{
    return unet_together(model, shape, waiting, settled);
}

static void teardown(void *model)
{
    unet_teardown(model);
}

const struct unetserve_model_ops *unetserve_model(void)
{
    static const struct unetserve_model_ops ops = {
        .abi = UNETSERVE_MODEL_ABI,
        .size = sizeof ops,
        .name = "unet",
        .describe = unet_describe,
        .setup = setup,
        .predict = predict,
        .teardown = teardown,
        .together = together,
    };
    return &ops;
}
