/*
 * The tutorial's SimpleBatchedAPI: {"input": [x, ...]} -> {"output": [x^2, ...]}, up to eight
 * requests squared in one go. batch lays their arrays end to end, predict is one loop over all of
 * them, and unbatch gives each request its part.
 */
#include "unetserve/model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct squares {
    const struct unetserve_host *host;
    double *numbers; /* of the batch at hand */
    size_t count;
};

static int describe(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                    char *error, size_t error_size)
{
    (void)error, (void)error_size;
    *interface = (struct unetserve_interface){
        .name = "batched",
        .version = "1",
        .input_kind = UNETSERVE_DOCUMENT,
        .output_kind = UNETSERVE_DOCUMENT,
        .size_multiple = 1,
        .max_batch = setup->max_batch ? setup->max_batch : 8,
        .batch_timeout_ms = 50,
        .request_field_count = 1,
        .request_fields = {{.name = "input", .type = UNETSERVE_FLOAT, .depth = 1, .or_bare = 1}},
        .response_field_count = 1,
        .response_fields = {{.name = "output", .type = UNETSERVE_FLOAT, .depth = 1, .or_bare = 1}},
    };
    return 0;
}

static int setup(const struct unetserve_setup *options, void **model,
                 struct unetserve_interface *interface, char *error, size_t error_size)
{
    struct squares *squares = calloc(1, sizeof *squares);
    if (!squares)
        return -ENOMEM;
    squares->host = options->host;
    *model = squares;
    return describe(options, interface, error, error_size);
}

static int batch(void *model, struct unetserve_item *const *items, size_t count)
{
    struct squares *squares = model;
    size_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += items[i]->values[0].count;
    squares->numbers = malloc((total ? total : 1) * sizeof *squares->numbers);
    if (!squares->numbers)
        return -ENOMEM;
    squares->count = 0;
    for (size_t i = 0; i < count; i++) {
        const struct unetserve_value *input = &items[i]->values[0];
        if (input->count)
            memcpy(squares->numbers + squares->count, input->numbers,
                   input->count * sizeof *input->numbers);
        squares->count += input->count;
    }
    return 0;
}

static int predict(void *model, struct unetserve_item *const *items, size_t count)
{
    (void)items, (void)count;
    const struct squares *squares = model;
    for (size_t i = 0; i < squares->count; i++)
        squares->numbers[i] *= squares->numbers[i];
    return 0;
}

static int refuse(struct unetserve_item *item)
{
    static const char document[] = "{\"detail\":\"a number is too large to be squared\"}";
    item->status = 422;
    item->output_bytes = sizeof document - 1;
    memcpy(item->output, document, item->output_bytes);
    return 0;
}

static int unbatch(void *model, struct unetserve_item *const *items, size_t count)
{
    struct squares *squares = model;
    const double *next = squares->numbers;
    int error = 0;
    for (size_t i = 0; next && i < count && !error; i++) {
        const struct unetserve_value *input = &items[i]->values[0];
        struct unetserve_value output = {
            .bare = input->bare, .numbers = next, .count = input->count};
        error = squares->host->respond(squares->host, items[i], &output);
        if (error == -EDOM)
            error = refuse(items[i]);
        next += output.count;
    }
    free(squares->numbers);
    squares->numbers = NULL;
    return error;
}

static void teardown(void *model)
{
    free(model);
}

const struct unetserve_model_ops *unetserve_model(void)
{
    static const struct unetserve_model_ops ops = {
        .abi = UNETSERVE_MODEL_ABI,
        .size = sizeof ops,
        .name = "batched",
        .describe = describe,
        .setup = setup,
        .batch = batch,
        .predict = predict,
        .unbatch = unbatch,
        .teardown = teardown,
    };
    return &ops;
}
