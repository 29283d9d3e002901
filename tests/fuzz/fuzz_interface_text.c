/* Any text: refused, or an interface that comes back the same when it is written and read again. */
#include "unetserve/interface_text.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct unetserve_interface interface, again;
    memset(&interface, 0, sizeof interface);
    memset(&again, 0, sizeof again);
    if (interface_from_json((const char *)data, size, &interface))
        return 0;
    char *text = interface_to_json(&interface);
    if (!text || interface_from_json(text, strlen(text), &again))
        abort();
    /* There is no padding: lib/queue.c asserts it. */
    /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
    if (memcmp(&interface, &again, sizeof again) != 0)
        abort();
    free(text);
    return 0;
}
