/*
 * The tutorial's streaming AsyncLitAPI: {"input": x} -> ten items {"output": (x+i)^2 + (x+i)^3},
 * each sent as soon as it is made.
 */
#include "unetserve/model.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define ITEMS 10

static int describe(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                    char *error, size_t error_size)
{
    (void)setup, (void)error, (void)error_size;
    *interface = (struct unetserve_interface){
        .name = "streaming",
        .version = "1",
        .input_kind = UNETSERVE_DOCUMENT,
        .output_kind = UNETSERVE_DOCUMENT,
        .flags = UNETSERVE_STREAMS,
        .size_multiple = 1,
        .max_batch = 1,
        .request_field_count = 1,
        .request_fields = {{.name = "input", .type = UNETSERVE_FLOAT}},
        .response_field_count = 1,
        .response_fields = {{.name = "output", .type = UNETSERVE_FLOAT}},
    };
    return 0;
}

static int setup(const struct unetserve_setup *options, void **model,
                 struct unetserve_interface *interface, char *error, size_t error_size)
{
    *model = (void *)options->host;
    return describe(options, interface, error, error_size);
}

/* Before the first item it is the whole answer, with its status; later it ends the stream. */
static int refuse(struct unetserve_item *item)
{
    static const char document[] = "{\"detail\":\"input is too large to be cubed\"}";
    item->status = 422;
    item->output_bytes = sizeof document - 1;
    memcpy(item->output, document, item->output_bytes);
    return 0;
}

static int stream(const struct unetserve_host *host, struct unetserve_item *item)
{
    for (int i = 0; i < ITEMS; i++) {
        double x = item->values[0].number + i;
        struct unetserve_value output = {.number = pow(x, 2) + pow(x, 3)};
        int error = host->emit_values(host, item, &output);
        if (error == -EDOM)
            return refuse(item);
        if (error)
            return error; /* -ECANCELED: its client has left */
    }
    return 0;
}

static int predict(void *model, struct unetserve_item *const *items, size_t count)
{
    int error = 0;
    for (size_t i = 0; i < count && !error; i++)
        error = stream(model, items[i]);
    return error;
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
        .name = "streaming",
        .describe = describe,
        .setup = setup,
        .predict = predict,
        .teardown = teardown,
    };
    return &ops;
}
