#include "gateway/outcome.h"

#include "lib/base64.h"
#include "unetserve/mask_writer.h"

#include <stdlib.h>
#include <string.h>

void outcome_say(struct job_outcome *outcome, int status, const char *sentence)
{
    struct problem problem;
    problem_set(&problem, status, "%s", sentence);
    outcome->status = status;
    outcome->type = "application/json";
    outcome->body = strdup(problem.body);
    outcome->size = outcome->body ? strlen(problem.body) : 0;
}

void outcome_fail(struct job_outcome *outcome, unsigned faults, unsigned kills)
{
    struct problem problem;
    if (faults > 0)
        problem_set(&problem, 500, "The model crashed or hung on this input %u time%s", faults,
                    faults == 1 ? "" : "s");
    else if (kills > 0)
        problem_set(&problem, 500, "The workers that ran this request were killed %u time%s", kills,
                    kills == 1 ? "" : "s");
    else
        problem_set(&problem, 500, "The model failed on this input");
    outcome->status = 500;
    outcome->type = "application/json";
    outcome->body = strdup(problem.body);
    outcome->size = outcome->body ? strlen(problem.body) : 0;
}

static void copy_out(struct job_outcome *outcome, int status, const char *type, const void *bytes,
                     size_t size)
{
    void *copy = malloc(size ? size : 1);
    if (!copy) {
        outcome_say(outcome, 503, "Out of memory, try again later");
        return;
    }
    memcpy(copy, bytes, size);
    outcome->status = status;
    outcome->type = type;
    outcome->body = copy;
    outcome->size = size;
}

/* Labels, one byte a pixel: does the shape say how many bytes there are? */
static bool labels_fit(const struct unetserve_shape *shape, uint64_t output_bytes)
{
    uint64_t bytes;
    return shape->dtype == UNETSERVE_U8 && (shape->rank == 2 || shape->rank == 3) &&
           unetserve_shape_bytes(shape, &bytes) == 0 && bytes == output_bytes;
}

/* {"image": "..."}, as LitServe's ImageOutput is sent. */
static void wrap_png(struct job_outcome *outcome)
{
    static const char head[] = "{\"image\":\"", tail[] = "\"}";
    size_t letters = BASE64_LETTERS(outcome->size), at = sizeof head - 1;
    void *png = outcome->body;
    char *text = malloc(at + letters + sizeof tail);
    if (text) {
        memcpy(text, head, at);
        base64_encode(png, outcome->size, text + at);
        memcpy(text + at + letters, tail, sizeof tail);
        outcome->body = text;
        outcome->size = at + letters + sizeof tail - 1;
    } else {
        outcome_say(outcome, 503, "Out of memory, try again later");
    }
    free(png);
}

static void encode_labels(struct job_outcome *outcome, const struct unetserve_interface *interface,
                          enum job_form form, const struct unetserve_shape *shape,
                          const void *labels, size_t size)
{
    static const struct {
        enum mask_format format;
        const char *type;
    } forms[] = {
        [JOB_JSON] = {MASK_JSON, "application/json"},
        [JOB_NPY] = {MASK_NPY, "application/x-npy"},
        [JOB_PNG] = {MASK_PNG, "image/png"},
        [JOB_JSON_PNG] = {MASK_PNG, "application/json"},
    };
    if (form == JOB_TENSOR) {
        outcome->shape = *shape;
        copy_out(outcome, 200, "application/octet-stream", labels, size);
        return;
    }
    if (form == JOB_PNG && shape->rank != 2) {
        outcome_say(
            outcome, 406,
            "image/png holds one mask: ask for application/json or application/x-npy for a batch");
        return;
    }
    void *body;
    size_t body_size;
    if (mask_encode(forms[form].format, interface, shape, labels, &body, &body_size)) {
        outcome_say(outcome, 503, "Out of memory, try again later");
        return;
    }
    outcome->status = 200;
    outcome->type = forms[form].type;
    outcome->body = body;
    outcome->size = body_size;
    if (form == JOB_JSON_PNG)
        wrap_png(outcome);
}

void outcome_encode(struct job_outcome *outcome, const struct unetserve_interface *interface,
                    enum job_form form, const struct queue *queue, uint32_t number)
{
    const struct queue_slot *slot = &queue->slots[number];
    const void *output = queue_output(queue, number);
    uint64_t begun_ns = queue_now_ns();
    uint32_t status = slot->status;
    uint64_t bytes = slot->output_bytes;
    struct unetserve_shape shape = slot->output_shape;
    bool tensor = status == 200 && interface->output_kind == UNETSERVE_TENSOR;
    bool sound = bytes <= queue_output_capacity(queue, number) &&
                 (status == 200 || (status >= 400 && status <= 599));
    if (!sound || (tensor && !labels_fit(&shape, bytes)))
        outcome_say(outcome, 500, "The model gave an answer that makes no sense");
    else if (tensor)
        encode_labels(outcome, interface, form, &shape, output, bytes);
    else
        copy_out(outcome, (int)status, "application/json", output, bytes);
    outcome->times.encode_ms += (double)(queue_now_ns() - begun_ns) / 1e6;
}
