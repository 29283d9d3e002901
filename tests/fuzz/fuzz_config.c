/* Any text: it is refused with a sentence, or it is a configuration that comes back the same when
 * it is written and read again. */
#include "unetserve/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config config, again;
    static char text[256 << 10], second[256 << 10];
    struct config_error error = {""};
    config_init(&config);
    if (config_parse((const char *)data, size, "fuzz", &config, &error)) {
        if (error.text[0] == '\0')
            abort();
        return 0;
    }
    config_validate(&config, &error);
    long length = config_write(&config, text, sizeof text);
    config_init(&again);
    if (length < 0 || config_parse(text, (size_t)length, "again", &again, &error))
        abort();
    if (config_write(&again, second, sizeof second) != length ||
        memcmp(text, second, (size_t)length) != 0)
        abort();
    return 0;
}
