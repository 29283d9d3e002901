/*
 * Whole bodies: the first byte chooses format and model, the second how the body is split; the rest
 * is the body. Fed whole and in pieces, it must come to the same answer, and every answer must be
 * within its bounds.
 */
#include "unetserve/body_reader.h"

#include "lib/json_scan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SINK_MAX = 1 << 16 };

struct sink {
    void *data;
};

struct outcome {
    int status;
    struct unetserve_shape shape;
    size_t bytes;
    struct problem problem;
    enum image_file file;
    struct sink sink;
};

static void check(int condition)
{
    if (!condition)
        abort();
}

/* Gives exactly what is asked for, up to a limit, so that a write beyond it is seen. */
static void *grow(void *opaque, size_t used, size_t needed, size_t *capacity,
                  struct problem *problem)
{
    struct sink *sink = opaque;
    if (needed > SINK_MAX) {
        problem_set(problem, 413, "Payload too large");
        return NULL;
    }
    char *data = aligned_alloc(64, (needed + 63) / 64 * 64);
    check(data != NULL);
    if (used)
        memcpy(data, sink->data, used);
    free(sink->data);
    sink->data = data;
    *capacity = needed;
    return data;
}

static struct unetserve_interface choose_model(uint8_t choice)
{
    return (struct unetserve_interface){
        .input_field = "image",
        .input_dtypes = choice & 4 ? 1u << UNETSERVE_F32 : 0xfe,
        .channels = choice & 8 ? 2 : 1,
        .size_multiple = choice & 16 ? 2 : 1,
        .size_min = 1,
        .size_max = choice & 32 ? 64 : 0,
        .max_batch = choice & 64 ? 3 : 1,
    };
}

static int read_pieces(struct body_reader *reader, const uint8_t *body, size_t size, unsigned seed,
                       struct problem *problem)
{
    for (size_t at = 0; at < size;) {
        size_t length = size - at;
        if (seed) {
            seed = seed * 1103515245u + 12345u;
            size_t wanted = 1 + (seed >> 16) % (seed & 0x100 ? 1 : 40);
            length = length < wanted ? length : wanted;
        }
        if (body_reader_feed(reader, body + at, length, problem))
            return -1;
        at += length;
    }
    return 0;
}

static void read_body(const struct unetserve_interface *interface, enum body_format format,
                      const uint8_t *body, size_t size, unsigned seed, struct outcome *outcome)
{
    struct body_reader reader;
    struct unetserve_shape raw = {
        .dtype = UNETSERVE_F64, .rank = 3, .dims = {interface->channels, 2, 4}};
    if (size && format == BODY_RAW)
        raw.dtype = 1 + body[0] % 7;
    memset(outcome, 0, sizeof *outcome);
    outcome->status = -1;
    if (body_reader_init(&reader, interface, format, &raw, NULL, 0, grow, &outcome->sink,
                         &outcome->problem))
        return;
    if (read_pieces(&reader, body, size, seed, &outcome->problem))
        return;
    outcome->status = body_reader_finish(&reader, &outcome->shape, &outcome->bytes,
                                         &outcome->problem);
    outcome->file = body_reader_file(&reader);
}

static void check_accepted(const struct unetserve_interface *interface,
                           const struct outcome *outcome)
{
    struct problem problem;
    uint64_t bytes;
    check(outcome->bytes <= SINK_MAX);
    if (outcome->shape.rank == 0)
        return; /* a document */
    check(body_check_shape(interface, &outcome->shape, &problem) == 0);
    check(unetserve_shape_bytes(&outcome->shape, &bytes) == 0);
    if (outcome->file)
        return; /* the file as it came */
    check(bytes == outcome->bytes);
    const float *values = outcome->sink.data;
    for (size_t i = 0; outcome->shape.dtype == UNETSERVE_F32 && i < bytes / sizeof *values; i++)
        check(isfinite(values[i]));
}

static void check_refused(const struct problem *problem)
{
    check(problem->status == 400 || problem->status == 413 || problem->status == 415 ||
          problem->status == 422);
    check(strlen(problem->body) < sizeof problem->body);
    check(json_is_valid(problem->body, strlen(problem->body)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct outcome whole, split;
    if (size < 2)
        return 0;
    enum body_format format = data[0] & 128 ? BODY_FILE : (enum body_format)(data[0] & 3);
    struct unetserve_interface interface = choose_model(data[0]);
    read_body(&interface, format, data + 2, size - 2, 0, &whole);
    read_body(&interface, format, data + 2, size - 2, data[1] + 1u, &split);

    check(whole.status == split.status && whole.bytes == split.bytes);
    check(whole.file == split.file);
    check(memcmp(&whole.shape, &split.shape, sizeof whole.shape) == 0);
    if (whole.status == 0) {
        check(whole.bytes == 0 || memcmp(whole.sink.data, split.sink.data, whole.bytes) == 0);
        check_accepted(&interface, &whole);
    } else if (format != BODY_DOCUMENT) {
        check(whole.problem.status == split.problem.status &&
              strcmp(whole.problem.body, split.problem.body) == 0);
        check_refused(&whole.problem);
    }
    free(whole.sink.data);
    free(split.sink.data);
    return 0;
}
