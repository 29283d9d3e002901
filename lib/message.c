#include "lib/message.h"

#include "lib/npy.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int too_long(size_t max, char *error, size_t error_size)
{
    snprintf(error, error_size, "it is longer than %zu bytes", max);
    return -EFBIG;
}

static int measure_npy(const void *data, size_t size, size_t max, size_t *bytes, char *error,
                       size_t error_size)
{
    struct unetserve_shape shape;
    int big_endian;
    size_t offset;
    uint64_t payload;
    int rc = npy_header_read(data, size, &shape, &big_endian, &offset, error, error_size);
    if (rc == -ENOTSUP)
        return -EBADMSG;
    if (rc < 0)
        return rc;
    if (unetserve_shape_bytes(&shape, &payload) < 0 || offset > max || payload > max - offset)
        return too_long(max, error, error_size);
    *bytes = offset + (size_t)payload;
    return 0;
}

int message_measure(const void *data, size_t size, size_t seen, size_t max, struct message *out,
                    char *error, size_t error_size)
{
    assert(seen <= size);
    if (size == 0)
        return -EAGAIN;
    struct message message = {MESSAGE_LINE, 0};
    if (*(const unsigned char *)data == 0x93) {
        message.kind = MESSAGE_NPY;
        int rc = measure_npy(data, size, max, &message.bytes, error, error_size);
        if (rc < 0)
            return rc;
        if (message.bytes > size)
            return -EAGAIN;
    } else {
        const char *end = memchr((const char *)data + seen, '\n', size - seen);
        if (!end && size < max)
            return -EAGAIN;
        if (!end || (size_t)(end - (const char *)data) >= max)
            return too_long(max, error, error_size);
        message.bytes = (size_t)(end - (const char *)data) + 1;
    }
    *out = message;
    return 0;
}
