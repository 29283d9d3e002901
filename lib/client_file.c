#include "lib/client_file.h"

#include "lib/json_whole.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The program, with @URL@ and @MODELS@ where those belong; put in by the assembler. */
__asm__(".pushsection .rodata\n"
        ".local client_program\n"
        "client_program:\n"
        ".incbin \"lib/client_file.py\"\n"
        ".byte 0\n"
        ".popsection\n");
extern const char client_program[];

/* For a raw string between three ' in Python: JSON needs no ', and a \ is no matter there. */
static bool put_json(FILE *out, const json_t *value)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_INDENT(1) | JSON_ENSURE_ASCII);
    bool whole = text != NULL;
    for (const char *at = text; at && *at; at++)
        if (*at == '\'')
            fputs("\\u0027", out);
        else
            fputc(*at, out);
    free(text);
    return whole;
}

/* False: there is no memory. */
static bool put_program(FILE *out, const json_t *url, const json_t *models)
{
    const char *at = client_program;
    const char *mark;
    while ((mark = strstr(at, "'''@"))) {
        mark += strlen("'''");
        bool is_url = strncmp(mark, "@URL@", 5) == 0;
        fwrite(at, 1, (size_t)(mark - at), out);
        if (!put_json(out, is_url ? url : models))
            return false;
        at = mark + strlen(is_url ? "@URL@" : "@MODELS@");
    }
    fputs(at, out);
    return true;
}

int client_file_write(const char *path, const char *url, const json_t *models)
{
    json_t *url_text = json_whole_string(url, strlen(url));
    if (!url_text)
        return -ENOMEM;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_EXCL, 0777);
    FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
    int rc = out ? 0 : -errno;
    if (out) {
        errno = 0;
        bool whole = put_program(out, url_text, models);
        bool wrong = ferror(out) != 0;
        if (fclose(out) != 0 || wrong)
            rc = errno ? -errno : -EIO;
        else if (!whole)
            rc = -ENOMEM;
    } else if (fd >= 0) {
        close(fd);
    }
    if (rc < 0 && fd >= 0)
        unlink(path);
    json_decref(url_text);
    return rc;
}
