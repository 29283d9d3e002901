#include "bench/counts/paths.h"
#include "gateway/head_gate.h"
#include "tests/image_interface.h"
#include "unetserve/body_reader.h"
#include "unetserve/mask_writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHANNELS = 12,
    SIDE = 64,
    VALUES = CHANNELS * SIDE * SIDE,
    TEXT_MAX = VALUES * 26,
    PIECE = 16384, /* as libmicrohttpd hands a body on */
    MASK_SIDE = 256,
    HEADS = 200,
};

static const struct unetserve_interface interface = {
    .name = "counts",
    IMAGE_INTERFACE,
    .channels = CHANNELS,
    .size_min = 1,
    .max_batch = 1,
    .class_count = 11,
};

struct body {
    char bytes[TEXT_MAX];
    size_t size;
};

static struct body integers, floats, npy;
static _Alignas(64) float tensor[VALUES];
static _Alignas(64) uint8_t labels[MASK_SIDE * MASK_SIDE];

/* The same numbers everywhere. */
static uint32_t next_random(void)
{
    static uint32_t state = 12345;
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

static void json_value(struct body *body, bool whole)
{
    char *at = body->bytes + body->size;
    size_t room = sizeof body->bytes - body->size;
    int length = whole ? snprintf(at, room, "%u", next_random() % 10000)
                       : snprintf(at, room, "%.17g", next_random() / 16777216.0 * 1.0000000123);
    PATH_MUST(length > 0 && (size_t)length < room);
    body->size += (size_t)length;
}

static void json_add(struct body *body, const char *text)
{
    size_t length = strlen(text);
    PATH_MUST(length < sizeof body->bytes - body->size);
    memcpy(body->bytes + body->size, text, length);
    body->size += length;
}

static void json_make(struct body *body, bool whole)
{
    json_add(body, "{\"image\": [");
    for (int channel = 0; channel < CHANNELS; channel++) {
        json_add(body, channel ? ", [" : "[");
        for (int row = 0; row < SIDE; row++) {
            json_add(body, row ? ", [" : "[");
            for (int column = 0; column < SIDE; column++) {
                json_add(body, column ? ", " : "");
                json_value(body, whole);
            }
            json_add(body, "]");
        }
        json_add(body, "]");
    }
    json_add(body, "]}");
}

static void npy_make(struct body *body)
{
    const struct unetserve_shape shape = {UNETSERVE_U16, 3, {CHANNELS, SIDE, SIDE}};
    int header = npy_header_write(&shape, body->bytes, sizeof body->bytes);
    PATH_MUST(header > 0);
    body->size = (size_t)header;
    for (int i = 0; i < VALUES; i++) {
        uint16_t value = (uint16_t)(next_random() % 10000);
        memcpy(body->bytes + body->size, &value, sizeof value);
        body->size += sizeof value;
    }
}

/* Fields of one class, with borders, as masks have them. */
static void labels_make(void)
{
    for (int row = 0; row < MASK_SIDE; row++)
        for (int column = 0; column < MASK_SIDE; column++)
            labels[row * MASK_SIDE + column] = (uint8_t)((row / 24 + column / 40 * 3) % 11);
}

void path_bodies_begin(void)
{
    json_make(&integers, true);
    json_make(&floats, false);
    npy_make(&npy);
    labels_make();
}

static void read_body(enum body_format format, const struct unetserve_shape *raw, const char *bytes,
                      size_t size)
{
    static struct body_reader reader;
    struct problem problem = {0};
    struct unetserve_shape shape;
    size_t input_bytes;
    PATH_MUST(!body_reader_init(&reader, &interface, format, raw, tensor, sizeof tensor, NULL, NULL,
                                &problem));
    for (size_t at = 0; at < size; at += PIECE)
        PATH_MUST(!body_reader_feed(&reader, bytes + at, size - at < PIECE ? size - at : PIECE,
                                    &problem));
    PATH_MUST(!body_reader_finish(&reader, &shape, &input_bytes, &problem));
    PATH_MUST(shape.rank == 3 && shape.dims[2] == SIDE);
}

static void run_json_integers(void)
{
    read_body(BODY_JSON, NULL, integers.bytes, integers.size);
}

static void run_json_floats(void)
{
    read_body(BODY_JSON, NULL, floats.bytes, floats.size);
}

static void run_npy(void)
{
    read_body(BODY_NPY, NULL, npy.bytes, npy.size);
}

static void run_raw(void)
{
    static const struct unetserve_shape shape = {UNETSERVE_U16, 3, {CHANNELS, SIDE, SIDE}};
    read_body(BODY_RAW, &shape, npy.bytes + npy.size - sizeof(uint16_t) * VALUES,
              sizeof(uint16_t) * VALUES);
}

static void write_mask(enum mask_format format)
{
    const struct unetserve_shape shape = {UNETSERVE_U8, 2, {MASK_SIDE, MASK_SIDE}};
    void *out = NULL;
    size_t size = 0;
    PATH_MUST(!mask_encode(format, &interface, &shape, labels, &out, &size) && size > 0);
    free(out);
}

static void run_mask_json(void)
{
    write_mask(MASK_JSON);
}

static void run_mask_npy(void)
{
    write_mask(MASK_NPY);
}

static void run_mask_png(void)
{
    write_mask(MASK_PNG);
}

static void run_head_gate(void)
{
    static const char head[] = "POST /predict HTTP/1.1\r\n"
                               "Host: unetserve.example:8000\r\n"
                               "User-Agent: python-requests/2.28.1\r\n"
                               "Accept-Encoding: gzip, deflate\r\n"
                               "Accept: application/json\r\n"
                               "Connection: keep-alive\r\n"
                               "Content-Type: application/x-npy\r\n"
                               "X-API-Key: 0123456789abcdef0123456789abcdef\r\n"
                               "Content-Length: 12\r\n\r\nabcdefghijkl";
    struct head_gate gate;
    head_gate_init(&gate);
    for (int i = 0; i < HEADS; i++) {
        struct head_gate_report report;
        size_t in_order = head_gate_feed(&gate, head, sizeof head - 1, &report);
        PATH_MUST(in_order == sizeof head - 1 && report.status == 0);
    }
    PATH_MUST(gate.requests == HEADS);
}

const struct path path_bodies[] = {
    {"head gate: 200 requests", run_head_gate},
    {"JSON array: 12 x 64 x 64 integers", run_json_integers},
    {"JSON array: 12 x 64 x 64 floats of 17 digits", run_json_floats},
    {"npy: 12 x 64 x 64 uint16", run_npy},
    {"raw: 12 x 64 x 64 uint16", run_raw},
    {"mask of 256 x 256 as JSON", run_mask_json},
    {"mask of 256 x 256 as npy", run_mask_npy},
    {"mask of 256 x 256 as PNG", run_mask_png},
    {NULL, NULL},
};
