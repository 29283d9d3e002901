#include "supervisor/geometry.h"

#include <errno.h>
#include <string.h>

#define PAGE         UINT64_C(4096)
#define USUAL_TILE   256         /* of a model that names none */
#define REFUSAL_ROOM (16u << 10) /* an output area holds at least a refusal's document */
#define DOCUMENT     (64u << 10) /* a usual document, either way */
#define LONG_TEXT    (1u << 20)  /* a long one */
#define MANY         256         /* slots of the usual size, at most */
#define SOME         32          /* slots of the size above it, at most */
#define LARGER       16          /* tiles of a larger job: four times the side, or a batch */

/* What a job of one kind needs. */
struct need {
    uint64_t input, output;
};

struct needs {
    struct need usual[QUEUE_MAX_CLASSES], larger;
    uint32_t usual_count;
    uint64_t bytes_per_label; /* fewest input bytes for each output byte; 0 if there are documents
                                 only */
};

static uint64_t page_up(uint64_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

static uint64_t need_bytes(const struct need *need)
{
    return need->input + need->output;
}

static struct need need_larger(struct need a, struct need b)
{
    return (struct need){a.input > b.input ? a.input : b.input,
                         a.output > b.output ? a.output : b.output};
}

static uint64_t output_for(uint64_t input, uint64_t input_per_output)
{
    uint64_t output = input_per_output ? input / input_per_output : input;
    return page_up(output > REFUSAL_ROOM ? output : REFUSAL_ROOM);
}

/* Input bytes for each byte of output, for the type that has fewest: a class that holds a float32
 * tile holds four times the pixels as uint8, and each of them gets its label. */
static uint64_t input_per_output(const struct unetserve_interface *interface)
{
    size_t element = unetserve_dtype_size(interface->output_dtype);
    uint64_t ratio = interface->channels / (element ? element : 1);
    return interface->output_kind == UNETSERVE_TENSOR && ratio > 0 ? ratio : 1;
}

/* Add a usual size, or widen one that is nearly the same (within a quarter). The last place takes
 * what there is no room for. */
static void usual_add(struct needs *needs, struct need need)
{
    for (uint32_t i = 0; i < needs->usual_count; i++) {
        struct need *other = &needs->usual[i];
        if (need.input <= other->input + other->input / 4 &&
            other->input <= need.input + need.input / 4) {
            *other = need_larger(*other, need);
            return;
        }
    }
    /* Two places stay free, for the larger sizes. */
    if (needs->usual_count == QUEUE_MAX_CLASSES - 2) {
        struct need *last = &needs->usual[needs->usual_count - 1];
        *last = need_larger(*last, need);
        return;
    }
    needs->usual[needs->usual_count++] = need;
}

static void tensor_needs(const struct unetserve_interface *interface, uint32_t tile,
                         struct needs *needs)
{
    uint64_t side = tile ? tile : interface->tile ? interface->tile : USUAL_TILE;
    uint64_t per_label = input_per_output(interface);
    uint64_t input = page_up(interface->channels * side * side * sizeof(float));
    usual_add(needs, (struct need){input, output_for(input, per_label)});
    struct need larger = {input * LARGER, output_for(input * LARGER, per_label)};
    needs->larger = need_larger(needs->larger, larger);
    if (needs->bytes_per_label == 0 || per_label < needs->bytes_per_label)
        needs->bytes_per_label = per_label;
}

static void needs_collect(const struct geometry_request *request, struct needs *needs)
{
    memset(needs, 0, sizeof *needs);
    for (uint32_t i = 0; i < request->model_count; i++) {
        const struct unetserve_interface *interface = &request->interfaces[i];
        if (interface->input_kind == UNETSERVE_TENSOR) {
            tensor_needs(interface, request->tiles[i], needs);
            continue;
        }
        uint64_t output = request->responses[i] > DOCUMENT ? page_up(request->responses[i])
                                                           : DOCUMENT;
        usual_add(needs, (struct need){DOCUMENT, output});
        needs->larger = need_larger(needs->larger, (struct need){LONG_TEXT, LONG_TEXT});
        needs->bytes_per_label = 1; /* a document's answer may be as long as itself */
    }
    for (uint32_t i = 1; i < needs->usual_count; i++) /* few: sorted by insertion */
        for (uint32_t k = i; k > 0 && needs->usual[k].input < needs->usual[k - 1].input; k--) {
            struct need swapped = needs->usual[k];
            needs->usual[k] = needs->usual[k - 1];
            needs->usual[k - 1] = swapped;
        }
}

static void class_add(struct queue_geometry *geometry, struct need need, uint64_t count)
{
    geometry->classes[geometry->class_count++] = (struct queue_class){
        .input_bytes = need.input, .output_bytes = need.output, .count = (uint32_t)count};
}

static uint64_t at_most(uint64_t value, uint64_t most)
{
    return value < most ? value : most;
}

/* One slot of all that is left, if that is larger than any other. */
static void largest_add(struct queue_geometry *geometry, const struct needs *needs, uint64_t left,
                        uint64_t cap)
{
    const struct queue_class *last = &geometry->classes[geometry->class_count - 1];
    uint64_t ratio = needs->bytes_per_label;
    /* input + input / ratio <= left, and the room that an output needs at least */
    uint64_t input = left / (ratio + 1) * ratio;
    if (input <= REFUSAL_ROOM + PAGE)
        return;
    input = at_most(input - REFUSAL_ROOM - PAGE, cap) / PAGE * PAGE;
    struct need need = {input, output_for(input, ratio)};
    if (need.input > last->input_bytes + last->input_bytes / 4 &&
        need.output >= last->output_bytes && need_bytes(&need) <= left)
        class_add(geometry, need, 1);
}

int geometry_plan(const struct geometry_request *request, struct queue_geometry *out,
                  uint64_t *needed)
{
    struct needs needs;
    needs_collect(request, &needs);
    uint64_t least = 0;
    for (uint32_t i = 0; i < needs.usual_count; i++)
        least += need_bytes(&needs.usual[i]);
    if (needs.usual_count == 0 || least > request->memory) {
        if (needed)
            *needed = least;
        return -ENOSPC;
    }
    struct queue_geometry geometry = {.model_count = request->model_count};
    uint64_t left = request->memory;
    uint64_t cap = at_most(request->max_body_bytes, UINT64_C(1) << 39) * 2;
    for (uint32_t i = 0; i < needs.usual_count; i++) {
        uint64_t bytes = need_bytes(&needs.usual[i]);
        uint64_t count = at_most(request->memory / 2 / needs.usual_count / bytes, MANY);
        class_add(&geometry, needs.usual[i], count ? count : 1);
        left -= at_most(left, (count ? count : 1) * bytes);
    }
    /* Documents are as large as their bodies: longer ones than a body can be need no slot. */
    struct need larger = needs.larger;
    const struct queue_class *last = &geometry.classes[geometry.class_count - 1];
    uint64_t count = at_most(at_most(request->memory / 3, left) / need_bytes(&larger), SOME);
    if (count > 0 && larger.input <= cap && larger.input > last->input_bytes) {
        larger.output = larger.output > last->output_bytes ? larger.output : last->output_bytes;
        count = at_most(count, left / need_bytes(&larger));
        if (count > 0)
            class_add(&geometry, larger, count);
        left -= count * need_bytes(&larger);
    }
    largest_add(&geometry, &needs, left, page_up(cap));
    *out = geometry;
    return 0;
}
