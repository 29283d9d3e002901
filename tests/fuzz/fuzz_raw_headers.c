/* X-Unetserve-Shape and X-Unetserve-Dtype, one line each: a shape within bounds, or a 400 that is
 * JSON. */
#include "unetserve/body_reader.h"

#include "lib/json_scan.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    char *line = strchr(text, '\n');
    if (line)
        *line++ = '\0';

    struct unetserve_shape shape;
    struct problem problem;
    if (body_parse_raw_headers(text, line, &shape, &problem) == 0) {
        check(shape.rank >= 1 && shape.rank <= UNETSERVE_MAX_DIMS &&
              unetserve_dtype_size(shape.dtype) > 0);
    } else {
        check(problem.status == 400 && strlen(problem.body) < sizeof problem.body);
        check(json_is_valid(problem.body, strlen(problem.body)));
    }
    free(text);
    return 0;
}
