/* npy headers: what is read can be written and read again, and every shorter prefix asks for more
 * or is refused. */
#include "unetserve/mask_writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static void check_round_trip(const struct unetserve_shape *shape)
{
    char header[512], error[200];
    struct unetserve_shape again;
    int big_endian;
    size_t offset;
    int length = npy_header_write(shape, header, sizeof header);
    check(length > 0 && length % 64 == 0);
    check(npy_header_read(header, (size_t)length, &again, &big_endian, &offset, error,
                          sizeof error) == 0);
    check(memcmp(&again, shape, sizeof again) == 0 && big_endian == 0 && offset == (size_t)length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct unetserve_shape shape;
    int big_endian;
    size_t offset;
    char error[200] = "";
    int status = npy_header_read(data, size, &shape, &big_endian, &offset, error, sizeof error);
    check(status == 0 || status == -EAGAIN ||
          ((status == -EBADMSG || status == -ENOTSUP) && error[0]));
    if (status == 0) {
        check(offset <= size && shape.rank <= UNETSERVE_MAX_DIMS &&
              unetserve_dtype_size(shape.dtype) > 0);
        check(npy_header_read(data, offset - 1, &shape, &big_endian, &offset, error,
                              sizeof error) == -EAGAIN);
        check_round_trip(&shape);
    }
    return 0;
}
