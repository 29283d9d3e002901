/* The directory that unetctl calibrate writes. */
#include "calibrate.h"
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#define COPY_BYTES (1u << 20)

static int join(const char *directory, const char *name, char *out)
{
    int length = snprintf(out, PATH_MAX, "%s/%s", directory, name);
    if (length < 0 || length >= PATH_MAX)
        return command_fail(EX_CANTCREAT, "%.200s: the path is too long", directory);
    return 0;
}

static int cannot(const char *path)
{
    return command_fail(EX_CANTCREAT, "cannot write '%s': %s", path, strerror(errno));
}

/* A file appears when it is whole. */
static int write_text(const char *directory, const char *name, const char *text)
{
    char path[PATH_MAX];
    char part[PATH_MAX + 8];
    int code = join(directory, name, path);
    if (code != 0)
        return code;
    snprintf(part, sizeof part, "%s.part", path);
    FILE *file = fopen(part, "we");
    bool good = file && fputs(text, file) >= 0 && fputc('\n', file) != EOF;
    if (file)
        good = fclose(file) == 0 && good;
    if (good && rename(part, path) == 0)
        return 0;
    code = cannot(path);
    (void)unlink(part);
    return code;
}

static bool copy_bytes(int from, int to)
{
    char *block = malloc(COPY_BYTES);
    ssize_t got = block ? 1 : -1;
    while (got > 0) {
        got = read(from, block, COPY_BYTES);
        for (ssize_t done = 0; done < got;) {
            ssize_t put = write(to, block + done, (size_t)(got - done));
            if (put < 0) {
                free(block);
                return false;
            }
            done += put;
        }
    }
    free(block);
    return got == 0;
}

static int copy_file(const char *from, const char *path)
{
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return command_fail(command_exit_code(-errno), "%s: %s", from, strerror(errno));
    int out = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    bool good = out >= 0 && copy_bytes(in, out);
    int code = good ? 0 : cannot(path);
    close(in);
    if (out >= 0 && close(out) < 0 && code == 0)
        code = cannot(path);
    return code;
}

/* The same file by another name where the file system can do that, else a copy; nothing where it is
 * there already. */
static int place_weights(const char *directory, const char *name, const char *weights)
{
    char path[PATH_MAX];
    struct stat there;
    struct stat here;
    int code = join(directory, name, path);
    if (code != 0)
        return code;
    if (stat(weights, &here) < 0)
        return command_fail(command_exit_code(-errno), "%s: %s", weights, strerror(errno));
    if (stat(path, &there) == 0) {
        if (here.st_ino == there.st_ino && here.st_dev == there.st_dev)
            return 0;
        return command_fail(EX_CANTCREAT, "'%s' is there already, and is another file", path);
    }
    return link(weights, path) == 0 ? 0 : copy_file(weights, path);
}

static const char *base_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The text of the model.json that describes this model, to be freed; NULL if there is none. */
static char *description_of(const char *model, const char *weights)
{
    char path[PATH_MAX];
    char error[512];
    char *text = NULL;
    size_t bytes = 0;
    struct stat status;
    bool directory = stat(model, &status) == 0 && S_ISDIR(status.st_mode);
    int head = (int)(base_of(weights) - weights);
    snprintf(path, sizeof path, "%.*smodel.json", head, weights);
    if (model_dir_read_text(path, &text, &bytes, error, sizeof error) < 0)
        return NULL;
    struct model_dir *dir = malloc(sizeof *dir);
    bool ours = dir && model_dir_parse(text, bytes, dir, error, sizeof error) == 0 &&
                (directory || strcmp(dir->weights_path, base_of(weights)) == 0);
    free(dir);
    char *copy = ours ? strndup(text, bytes) : NULL;
    free(text);
    return copy;
}

static int write_description(const char *directory, const char *model, const struct source *source)
{
    char *text = description_of(model, source->dir.weights_path);
    if (!text) {
        json_t *made = json_pack("{s:s, s:s}", "name", source->dir.name, "weights",
                                 base_of(source->dir.weights_path));
        text = made ? json_dumps(made, JSON_INDENT(2)) : NULL;
        json_decref(made);
    }
    if (!text)
        return command_fail(EX_DATAERR, "%s: its name is not UTF-8", source->dir.weights_path);
    size_t end = strlen(text);
    while (end > 0 && text[end - 1] == '\n')
        text[--end] = '\0';
    int code = write_text(directory, "model.json", text);
    free(text);
    return code;
}

static bool same_directory(const char *directory, const char *weights)
{
    char parent[PATH_MAX];
    struct stat a;
    struct stat b;
    int head = (int)(base_of(weights) - weights);
    snprintf(parent, sizeof parent, "%.*s", head ? head : 1, head ? weights : ".");
    return stat(directory, &a) == 0 && stat(parent, &b) == 0 && a.st_ino == b.st_ino &&
           a.st_dev == b.st_dev;
}

int calibrate_write(const char *directory, const char *model, const struct source *source,
                    const struct quantise_file *file, const char *report)
{
    const char *weights = source->dir.weights_path;
    if (mkdir(directory, 0777) < 0 && errno != EEXIST)
        return cannot(directory);
    int code = 0;
    if (!same_directory(directory, weights)) {
        code = place_weights(directory, base_of(weights), weights);
        if (code == 0)
            code = write_description(directory, model, source);
    }
    char *text = quantise_file_print(file);
    if (code == 0 && !text)
        code = command_fail(EX_SOFTWARE, "the ranges cannot be written as JSON");
    if (code == 0)
        code = write_text(directory, QUANTISE_FILE_NAME, text);
    if (code == 0)
        code = write_text(directory, "quantization-report.json", report);
    free(text);
    return code;
}
