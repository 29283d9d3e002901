/* Bodies of typed models: whatever comes, it is read or refused, and what was read can be written.
 */
#include "workers/fields.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct unetserve_interface interface = {
    .input_kind = UNETSERVE_DOCUMENT,
    .request_field_count = 5,
    .request_fields = {{.name = "f", .type = UNETSERVE_FLOAT},
                       {.name = "i", .type = UNETSERVE_INT, .optional = 1, .fallback = 1},
                       {.name = "s", .type = UNETSERVE_STR, .optional = 1},
                       {.name = "b", .type = UNETSERVE_BOOL, .optional = 1},
                       {.name = "l", .type = UNETSERVE_FLOAT, .depth = 2}},
    .response_field_count = 5,
    .response_fields = {{.name = "f", .type = UNETSERVE_FLOAT},
                        {.name = "i", .type = UNETSERVE_INT},
                        {.name = "s", .type = UNETSERVE_STR},
                        {.name = "b", .type = UNETSERVE_BOOL},
                        {.name = "l", .type = UNETSERVE_FLOAT, .depth = 2}},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char output[16384];
    struct unetserve_item item = {.input = data,
                                  .input_bytes = size,
                                  .output = output,
                                  .output_capacity = sizeof output,
                                  .status = 200};
    struct fields *fields;
    size_t length;
    if (fields_read(&interface, &item, &fields))
        abort();
    if (!fields) {
        if (item.status < 400 || item.output_bytes == 0 || item.output_bytes > sizeof output)
            abort();
        return 0;
    }
    if (fields_write(&interface, item.values, output, sizeof output, &length) == 0 &&
        (length >= sizeof output || output[length] != '\0'))
        abort();
    fields_free(fields);
    return 0;
}
