#include "supervisor/named_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A pipe is refused, not waited for. */
static const char *what_is_wrong(const char *path, int *error)
{
    struct stat status;
    const char *wrong = NULL;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    *error = 0;
    if (fd < 0 || fstat(fd, &status)) {
        *error = -errno;
        wrong = strerror(errno);
    } else if (!S_ISREG(status.st_mode)) {
        *error = -EINVAL;
        wrong = "it is no regular file";
    }
    if (fd >= 0)
        close(fd);
    return wrong;
}

int named_files_check(const struct config *config, char *error, size_t error_size)
{
    const struct {
        const char *key, *path;
    } files[] = {
        {"api_key_file", config->api_key_file},
        {"tls_certificate", config->tls_certificate},
        {"tls_key", config->tls_key},
        {"tls_client_ca", config->tls_client_ca},
        {"oauth_client_secret_file", config->oauth.client_secret_file},
        {"oauth_ca_file", config->oauth.ca_file},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        int failed = 0;
        const char *wrong = files[i].path[0] ? what_is_wrong(files[i].path, &failed) : NULL;
        if (wrong) {
            snprintf(error, error_size, "key '%s': %s: %s", files[i].key, files[i].path, wrong);
            return failed;
        }
    }
    return 0;
}
