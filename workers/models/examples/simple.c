/*
 * The tutorial's SimpleLitAPI as a plugin: {"input": x} -> {"output": x^2 + x^3}.
 *
 * "input" is a JSON number, integer or not; text that looks like one is refused, since the tutorial
 * declares no type that would convert it. The answer is always a float (80.0, not 80), written with
 * the fewest digits that read back to the same number.
 */
#include "lib/json_text.h"
#include "unetserve/model.h"

#include "lib/json_whole.h"
#include "unetserve/problem.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int describe(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                    char *error, size_t error_size)
{
    (void)error, (void)error_size;
    memset(interface, 0, sizeof *interface);
    snprintf(interface->name, sizeof interface->name, "simple");
    snprintf(interface->version, sizeof interface->version, "1");
    interface->input_kind = UNETSERVE_DOCUMENT;
    interface->output_kind = UNETSERVE_DOCUMENT;
    snprintf(interface->input_field, sizeof interface->input_field, "input");
    snprintf(interface->output_field, sizeof interface->output_field, "output");
    interface->size_multiple = 1;
    interface->max_batch = setup->max_batch ? setup->max_batch : 32;
    return 0;
}

/* There is nothing to load: the model is a formula. */
static int setup(const struct unetserve_setup *options, void **model,
                 struct unetserve_interface *interface, char *error, size_t error_size)
{
    *model = NULL;
    return describe(options, interface, error, error_size);
}

static int write_document(struct unetserve_item *item, const char *text)
{
    size_t size = strlen(text);
    if (size > item->output_capacity)
        return -ENOSPC;
    memcpy(item->output, text, size);
    item->output_bytes = size;
    return 0;
}

static int refuse(struct unetserve_item *item, const struct problem *problem)
{
    item->status = (uint32_t)problem->status;
    return write_document(item, problem->body);
}

static int refuse_value(struct unetserve_item *item, const char *type, const char *field,
                        const char *message, const json_t *value)
{
    struct problem problem;
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    problem_set_value(&problem, type, field, NULL, 0, message, text);
    free(text);
    return refuse(item, &problem);
}

static int refuse_nothing(struct unetserve_item *item)
{
    struct problem problem;
    problem_set_missing(&problem, NULL, "null");
    return refuse(item, &problem);
}

static int refuse_missing(struct unetserve_item *item, const json_t *document)
{
    struct problem problem;
    char *text = json_dumps(document, JSON_COMPACT);
    problem_set_missing(&problem, "input", text);
    free(text);
    return refuse(item, &problem);
}

/* With pow, as Python's ** does it: x * x * x would round twice. */
static double square_plus_cube(double x)
{
    return pow(x, 2) + pow(x, 3);
}

static int take_input(struct unetserve_item *item, const json_t *document)
{
    if (!json_is_object(document))
        return refuse_value(item, "model_attributes_type", NULL,
                            "Input should be a valid dictionary or object to extract fields from",
                            document);
    const json_t *input = json_object_get(document, "input");
    if (!input)
        return refuse_missing(item, document);
    if (!json_is_number(input))
        return refuse_value(item, "float_type", "input", "Input should be a valid number", input);
    double x = json_number_value(input);
    if (!isfinite(square_plus_cube(x)))
        return refuse_value(item, "finite_number", "input",
                            "Input should be a number whose cube is finite", input);
    double *kept = malloc(sizeof *kept);
    if (!kept)
        return -ENOMEM;
    *kept = x;
    item->user = kept;
    return 0;
}

static int decode_request(void *model, struct unetserve_item *item)
{
    (void)model;
    json_error_t error;
    if (item->input_bytes == 0)
        return refuse_nothing(item);
    const char *text = item->input;
    /* Some clients put a byte order mark in front. Python's json reads over it. */
    size_t mark = item->input_bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    json_t *document = json_whole_load(text + mark, item->input_bytes - mark,
                                       JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL,
                                       &error);
    if (!document && errno == ENOMEM)
        return -ENOMEM;
    if (!document) {
        struct problem problem;
        problem_set_json_invalid(&problem, error.position > 0 ? (size_t)error.position : 0,
                                 error.text);
        return refuse(item, &problem);
    }
    int result = take_input(item, document);
    json_decref(document);
    return result;
}

static int predict(void *model, struct unetserve_item *const *items, size_t count)
{
    (void)model;
    for (size_t i = 0; i < count; i++) {
        double *x = items[i]->user;
        assert(x); /* decode_request has accepted the item */
        *x = square_plus_cube(*x);
    }
    return 0;
}

static int encode_response(void *model, struct unetserve_item *item)
{
    (void)model;
    int result = 0;
    if (item->status == 200) {
        char buffer[96];
        struct json_text text;
        json_text_init(&text, buffer, sizeof buffer);
        json_text_raw(&text, "{\"output\":");
        json_text_float(&text, *(const double *)item->user);
        json_text_raw(&text, "}");
        result = write_document(item, buffer);
    }
    free(item->user);
    item->user = NULL;
    return result;
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
        .name = "simple",
        .describe = describe,
        .setup = setup,
        .decode_request = decode_request,
        .predict = predict,
        .encode_response = encode_response,
        .teardown = teardown,
    };
    return &ops;
}
