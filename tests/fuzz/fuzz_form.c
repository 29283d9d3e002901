/*
 * Forms: the first byte chooses kind and model, the second how the body is split; the rest is the
 * body, with the boundary "b". Fed whole and in pieces it must come to the same content, JSON where
 * the model takes documents, or to the same refusal.
 */
#include "unetserve/body_reader.h"

#include "lib/json_scan.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ROOM (1u << 18)

struct outcome {
    int failed;
    struct unetserve_shape shape;
    size_t bytes;
    struct problem problem;
    _Alignas(64) char data[ROOM];
};

static void check(int condition)
{
    if (!condition)
        abort();
}

static struct unetserve_interface choose_model(uint8_t choice)
{
    return (struct unetserve_interface){
        .input_kind = choice & 2 ? UNETSERVE_TENSOR : UNETSERVE_DOCUMENT,
        .flags = choice & 4 ? UNETSERVE_TAKES_FILES : 0,
        .input_field = "image",
        .input_dtypes = 0xfe,
        .channels = 1,
        .size_multiple = 1,
        .max_batch = 1,
    };
}

static void read_body(const struct unetserve_interface *interface, enum body_format format,
                      const uint8_t *body, size_t size, unsigned seed, struct outcome *outcome)
{
    struct body_reader reader;
    struct unetserve_shape raw = {.dtype = UNETSERVE_U8, .rank = 3, .dims = {1, 3, 5}};
    memset(&outcome->problem, 0, sizeof outcome->problem);
    check(body_reader_init(&reader, interface, format, &raw, outcome->data, ROOM, NULL, NULL,
                           &outcome->problem) == 0);
    check(body_reader_begin_form(&reader, "multipart/form-data; boundary=b", &outcome->problem) ==
          0);
    outcome->failed = 0;
    for (size_t at = 0; at < size && !outcome->failed;) {
        size_t length = size - at;
        if (seed) {
            seed = seed * 1103515245u + 12345u;
            size_t wanted = 1 + (seed >> 16) % (seed & 0x100 ? 1 : 40);
            length = length < wanted ? length : wanted;
        }
        outcome->failed = body_reader_feed(&reader, body + at, length, &outcome->problem);
        at += length;
    }
    if (!outcome->failed)
        outcome->failed = body_reader_finish(&reader, &outcome->shape, &outcome->bytes,
                                             &outcome->problem);
    body_reader_close(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct outcome whole, split;
    if (size < 2)
        return 0;
    enum body_format format = data[0] & 1 ? BODY_URLENCODED : BODY_MULTIPART;
    struct unetserve_interface interface = choose_model(data[0]);
    read_body(&interface, format, data + 2, size - 2, 0, &whole);
    read_body(&interface, format, data + 2, size - 2, data[1] + 1u, &split);
    check(whole.failed == split.failed);
    if (whole.failed) {
        check(whole.problem.status == split.problem.status &&
              strcmp(whole.problem.body, split.problem.body) == 0);
        check(whole.problem.status >= 400 && whole.problem.status < 423);
        check(json_is_valid(whole.problem.body, strlen(whole.problem.body)));
        return 0;
    }
    check(whole.bytes == split.bytes && whole.bytes <= ROOM);
    check(memcmp(whole.data, split.data, whole.bytes) == 0);
    bool json = interface.input_kind == UNETSERVE_DOCUMENT && format == BODY_MULTIPART;
    check(!json || json_is_valid(whole.data, whole.bytes));
    return 0;
}
