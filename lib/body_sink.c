#include "lib/body_sink.h"

#include <assert.h>

int body_sink_reserve(struct body_sink *sink, size_t used, size_t needed, struct problem *problem)
{
    if (needed <= sink->capacity)
        return 0;
    if (!sink->grow) {
        problem_set(problem, 413, "the request needs %zu bytes, and there is room for %zu", needed,
                    sink->capacity);
        return -1;
    }
    size_t capacity = 0;
    void *data = sink->grow(sink->opaque, used, needed, &capacity, problem);
    if (!data)
        return -1;
    assert(capacity >= needed);
    sink->data = data;
    sink->capacity = capacity;
    return 0;
}
