/*
 * The tutorial's SimpleLitAPI with declared types: {"input": x} -> {"output": x^2 + x^3}, where
 * input and output are floats. The declarations are all that there is about JSON here: a body that
 * is not as declared is answered 422 before it comes to predict.
 */
#include "unetserve/model.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static int describe(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                    char *error, size_t error_size)
{
    (void)error, (void)error_size;
    *interface = (struct unetserve_interface){
        .name = "typed",
        .version = "1",
        .input_kind = UNETSERVE_DOCUMENT,
        .output_kind = UNETSERVE_DOCUMENT,
        .size_multiple = 1,
        .max_batch = setup->max_batch ? setup->max_batch : 32,
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
    *model = (void *)options->host; /* a formula: all that is needed is whom to give the answer */
    return describe(options, interface, error, error_size);
}

static int refuse(struct unetserve_item *item, const char *document)
{
    item->status = 422;
    item->output_bytes = strlen(document);
    memcpy(item->output, document, item->output_bytes);
    return 0;
}

static int answer(const struct unetserve_host *host, struct unetserve_item *item)
{
    double x = item->values[0].number;
    struct unetserve_value output = {.number = pow(x, 2) + pow(x, 3)};
    int error = host->respond(host, item, &output);
    return error == -EDOM ? refuse(item, "{\"detail\":\"input is too large to be cubed\"}") : error;
}

static int predict(void *model, struct unetserve_item *const *items, size_t count)
{
    int error = 0;
    for (size_t i = 0; i < count && !error; i++)
        error = answer(model, items[i]);
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
        .name = "typed",
        .describe = describe,
        .setup = setup,
        .predict = predict,
        .teardown = teardown,
    };
    return &ops;
}
