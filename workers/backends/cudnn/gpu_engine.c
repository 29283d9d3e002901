#include "gpu_engine.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define HEAD_BYTES 12 /* id, knob_count */
#define KNOB_BYTES 12 /* type, value */
/* Beyond what any cuDNN has. */
#define MOST_ID   (INT64_C(1) << 20)
#define MOST_TYPE 4096

size_t gpu_engine_write(const struct gpu_engine *engine, uint8_t *out)
{
    memcpy(out, &engine->id, 8);
    memcpy(out + 8, &engine->knob_count, 4);
    uint8_t *at = out + HEAD_BYTES;
    for (uint32_t i = 0; i < engine->knob_count; i++) {
        memcpy(at, &engine->knobs[i].type, 4);
        memcpy(at + 4, &engine->knobs[i].value, 8);
        at += KNOB_BYTES;
    }
    return (size_t)(at - out);
}

static bool is_known(const struct gpu_engine *engine, int32_t type)
{
    for (uint32_t i = 0; i < engine->knob_count; i++) {
        if (engine->knobs[i].type == type) {
            return true;
        }
    }
    return false;
}

int gpu_engine_read(const uint8_t *data, size_t bytes, struct gpu_engine *out)
{
    struct gpu_engine engine = {.id = 0};
    uint32_t count = 0;
    if (bytes < HEAD_BYTES) {
        return -EBADMSG;
    }
    memcpy(&engine.id, data, 8);
    memcpy(&count, data + 8, 4);
    if (engine.id < 0 || engine.id > MOST_ID || count > GPU_MAX_KNOBS ||
        bytes != HEAD_BYTES + (size_t)count * KNOB_BYTES) {
        return -EBADMSG;
    }
    for (const uint8_t *at = data + HEAD_BYTES; at < data + bytes; at += KNOB_BYTES) {
        struct gpu_knob knob;
        memset(&knob, 0, sizeof knob);
        memcpy(&knob.type, at, 4);
        memcpy(&knob.value, at + 4, 8);
        if (knob.type < 0 || knob.type > MOST_TYPE || is_known(&engine, knob.type)) {
            return -EBADMSG;
        }
        engine.knobs[engine.knob_count++] = knob;
    }
    *out = engine;
    return 0;
}
