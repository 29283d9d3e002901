/*
 * A worker that does nothing: whatever is asked, the answer is {}. What its requests cost is what
 * the server around a model costs.
 */
#include "unetserve/model.h"

#include <stdio.h>
#include <string.h>

static int describe(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                    char *error, size_t error_size)
{
    (void)error, (void)error_size;
    memset(interface, 0, sizeof *interface);
    snprintf(interface->name, sizeof interface->name, "noop");
    snprintf(interface->version, sizeof interface->version, "1");
    interface->input_kind = UNETSERVE_DOCUMENT;
    interface->output_kind = UNETSERVE_DOCUMENT;
    interface->size_multiple = 1;
    interface->max_batch = setup->max_batch ? setup->max_batch : 32;
    return 0;
}

static int setup(const struct unetserve_setup *options, void **model,
                 struct unetserve_interface *interface, char *error, size_t error_size)
{
    *model = NULL;
    return describe(options, interface, error, error_size);
}

static int predict(void *model, struct unetserve_item *const *items, size_t count)
{
    (void)model;
    for (size_t i = 0; i < count; i++) {
        memcpy(items[i]->output, "{}", 2);
        items[i]->output_bytes = 2;
    }
    return 0;
}

static void teardown(void *model)
{
    (void)model;
}

const struct unetserve_model_ops *unetserve_model(void)
{
    static const struct unetserve_model_ops ops = {
        .abi = UNETSERVE_MODEL_ABI,
        .size = sizeof ops,
        .name = "noop",
        .describe = describe,
        .setup = setup,
        .predict = predict,
        .teardown = teardown,
    };
    return &ops;
}
