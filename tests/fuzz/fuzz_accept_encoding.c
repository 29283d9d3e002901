/* Accept-Encoding, as text: one of the codings that are offered, or 406. */
#include "gateway/compress.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config config;
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    for (unsigned offered = 0; offered < 4; offered++) {
        enum coding coding;
        struct problem problem;
        config.gzip_level = offered & 1;
        config.zstd_level = offered & 2;
        compress_configure(&config);
        if (compress_choose(text, &coding, &problem)) {
            if (problem.status != 406)
                abort();
        } else if ((coding == CODING_GZIP && !config.gzip_level) ||
                   (coding == CODING_ZSTD && !config.zstd_level)) {
            abort();
        }
    }
    free(text);
    return 0;
}
