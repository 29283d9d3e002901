/*
 * Which of cuDNN's engines runs a convolution, and how it is set: what is worth keeping of a
 * choice, and the bytes that it is kept as. Those are read like anybody's; pure, no device library.
 */
#ifndef GPU_ENGINE_H
#define GPU_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#define GPU_MAX_KNOBS 32

struct gpu_knob {
    int32_t type;
    int64_t value;
};

struct gpu_engine {
    int64_t id;
    uint32_t knob_count;
    struct gpu_knob knobs[GPU_MAX_KNOBS];
};

#define GPU_ENGINE_MOST_BYTES (12 + 12 * GPU_MAX_KNOBS)

/* Bytes that it is kept as. Returns how many, at most GPU_ENGINE_MOST_BYTES. */
size_t gpu_engine_write(const struct gpu_engine *engine, uint8_t *out);

/* And back. 0, or -EBADMSG: too short, too long, or with numbers that no engine has. */
int gpu_engine_read(const uint8_t *data, size_t bytes, struct gpu_engine *out);

#endif
