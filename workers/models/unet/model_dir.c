#include "model_dir.h"

#include "lib/json_whole.h"

#include "class_colours.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODEL_JSON_MAX_BYTES (1u << 20)

static int refuse(char *error, size_t error_size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int refuse(char *error, size_t error_size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, error_size, format, arguments);
    va_end(arguments);
    return -EBADMSG;
}

/* Not the data's fault: whoever starts workers tries again. */
static int no_memory(char *error, size_t error_size)
{
    snprintf(error, error_size, "out of memory");
    return -ENOMEM;
}

/* Where a value goes and where a complaint about it goes. */
struct place {
    const char *key;
    char *error;
    size_t error_size;
};

/* ---- single values ---- */

static int take_text(const struct place *at, const json_t *value, char *out, size_t size)
{
    if (!json_is_string(value))
        return refuse(at->error, at->error_size, "\"%s\" must be a text", at->key);
    if (json_string_length(value) >= size)
        return refuse(at->error, at->error_size, "\"%s\" is longer than %zu bytes", at->key,
                      size - 1);
    snprintf(out, size, "%s", json_string_value(value));
    return 0;
}

/* Names go into lists, a line each. */
static int take_name(const struct place *at, const json_t *value, char *out, size_t size)
{
    int rc = take_text(at, value, out, size);
    for (const unsigned char *byte = (const unsigned char *)out; rc == 0 && *byte; byte++)
        if (*byte < ' ' || *byte == 0x7f)
            rc = refuse(at->error, at->error_size,
                        "\"%s\" must be a text without control characters", at->key);
    return rc;
}

static int take_whole(const struct place *at, const json_t *value, json_int_t least,
                      json_int_t largest, uint32_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < least ||
        json_integer_value(value) > largest)
        return refuse(at->error, at->error_size,
                      "\"%s\" must be a whole number from %" JSON_INTEGER_FORMAT
                      " to %" JSON_INTEGER_FORMAT,
                      at->key, least, largest);
    *out = (uint32_t)json_integer_value(value);
    return 0;
}

static int take_number(const struct place *at, const json_t *value, float *out)
{
    float number = (float)json_number_value(value);
    if (!json_is_number(value) || !isfinite(number))
        return refuse(at->error, at->error_size, "\"%s\" must be a number", at->key);
    *out = number;
    return 0;
}

static int take_choice(const struct place *at, const json_t *value, const char *const *choices,
                       char *out, size_t size)
{
    char allowed[160] = "";
    size_t used = 0;
    for (size_t i = 0; choices[i]; i++) {
        if (json_is_string(value) && strcmp(json_string_value(value), choices[i]) == 0) {
            snprintf(out, size, "%s", choices[i]);
            return 0;
        }
        used += (size_t)snprintf(allowed + used, sizeof allowed - used, "%s%s", i ? ", " : "",
                                 choices[i]);
        if (used >= sizeof allowed)
            break;
    }
    return refuse(at->error, at->error_size, "\"%s\" must be one of %s", at->key, allowed);
}

/* ---- preprocess ---- */

static int take_clip(const struct place *outer, const json_t *value, struct model_dir *out)
{
    struct place at = {"preprocess.clip", outer->error, outer->error_size};
    if (json_is_null(value)) {
        out->clip = false;
        return 0;
    }
    if (json_array_size(value) != 2)
        return refuse(at.error, at.error_size, "\"%s\" must be two numbers or null", at.key);
    int rc = take_number(&at, json_array_get(value, 0), &out->clip_low);
    if (rc == 0)
        rc = take_number(&at, json_array_get(value, 1), &out->clip_high);
    if (rc == 0 && out->clip_low > out->clip_high)
        rc = refuse(at.error, at.error_size, "\"%s\": the first number must not be larger", at.key);
    out->clip = true;
    return rc;
}

static int take_preprocess(const struct place *outer, const json_t *value, struct model_dir *out)
{
    if (!json_is_object(value))
        return refuse(outer->error, outer->error_size, "\"%s\" must be an object", outer->key);
    const char *key;
    const json_t *entry;
    int rc = 0;
    json_object_foreach((json_t *)(uintptr_t)value, key, entry)
    {
        struct place at = {"preprocess.offset", outer->error, outer->error_size};
        if (strcmp(key, "offset") == 0) {
            rc = take_number(&at, entry, &out->offset);
        } else if (strcmp(key, "scale") == 0) {
            at.key = "preprocess.scale";
            rc = take_number(&at, entry, &out->scale);
            if (rc == 0 && out->scale == 0.0f)
                rc = refuse(at.error, at.error_size, "\"%s\" must not be 0", at.key);
        } else if (strcmp(key, "clip") == 0) {
            rc = take_clip(&at, entry, out);
        } else {
            rc = refuse(at.error, at.error_size,
                        "unknown key \"preprocess.%.64s\" (known: offset, scale, clip)", key);
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- classes ---- */

/* "#rrggbb", or three numbers. */
static int take_colour(const struct place *at, const json_t *value, uint8_t *rgb)
{
    const char *text = json_string_value(value);
    if (text && strlen(text) == 7 && text[0] == '#' &&
        strspn(text + 1, "0123456789abcdefABCDEF") == 6) {
        unsigned long packed = strtoul(text + 1, NULL, 16);
        for (int i = 0; i < 3; i++)
            rgb[i] = (uint8_t)(packed >> (16 - 8 * i));
        return 0;
    }
    if (json_array_size(value) != 3)
        return refuse(at->error, at->error_size,
                      "\"%s\" must be \"#rrggbb\" or three numbers from 0 to 255", at->key);
    for (size_t i = 0; i < 3; i++) {
        uint32_t part = 0;
        int rc = take_whole(at, json_array_get(value, i), 0, 255, &part);
        if (rc < 0)
            return rc;
        rgb[i] = (uint8_t)part;
    }
    return 0;
}

static int take_class_entry(const struct place *outer, const char *key, const json_t *value,
                            struct unetserve_class *out)
{
    struct place at = {"classes[].name", outer->error, outer->error_size};
    if (strcmp(key, "name") == 0)
        return take_name(&at, value, out->name, sizeof out->name);
    if (strcmp(key, "code") == 0) {
        uint32_t code = 0;
        at.key = "classes[].code";
        int rc = take_whole(&at, value, 0, UINT16_MAX, &code);
        out->code = (uint16_t)code;
        return rc;
    }
    if (strcmp(key, "color") == 0 || strcmp(key, "colour") == 0) {
        at.key = "classes[].color";
        return take_colour(&at, value, out->rgb);
    }
    return refuse(at.error, at.error_size,
                  "unknown key \"classes[].%.64s\" (known: name, code, color)", key);
}

static int take_class(const struct place *at, const json_t *value, uint32_t index,
                      struct unetserve_class *out)
{
    struct unetserve_class class = {.code = (uint16_t)index};
    class_colour_default(index, class.rgb);
    snprintf(class.name, sizeof class.name, "class_%u", index);
    int rc = 0;
    if (json_is_string(value)) {
        rc = take_name(at, value, class.name, sizeof class.name);
    } else if (json_is_object(value)) {
        const char *key;
        const json_t *entry;
        json_object_foreach((json_t *)(uintptr_t)value, key, entry)
        {
            rc = take_class_entry(at, key, entry, &class);
            if (rc < 0)
                return rc;
        }
    } else {
        rc = refuse(at->error, at->error_size, "\"classes\" must hold names or objects");
    }
    *out = class;
    return rc;
}

static int take_classes(const struct place *at, const json_t *value, struct model_dir *out)
{
    size_t count = json_array_size(value);
    if (!json_is_array(value) || count == 0 || count > UNETSERVE_MAX_CLASSES)
        return refuse(at->error, at->error_size, "\"classes\" must be an array of 1 to %d entries",
                      UNETSERVE_MAX_CLASSES);
    for (uint32_t i = 0; i < count; i++) {
        int rc = take_class(at, json_array_get(value, i), i, &out->classes[i]);
        if (rc < 0)
            return rc;
    }
    out->class_count = (uint32_t)count;
    return 0;
}

/* ---- the document ---- */

static int take_weights(const struct place *at, const json_t *value, struct model_dir *out)
{
    char name[256] = "";
    int rc = take_text(at, value, name, sizeof name);
    if (rc < 0)
        return rc;
    if (name[0] == '\0' || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return refuse(at->error, at->error_size,
                      "\"weights\" must name a file in the same directory, without \"/\"");
    snprintf(out->weights_path, sizeof out->weights_path, "%s", name);
    return 0;
}

static int take_entry(const struct place *at, const json_t *value, struct model_dir *out)
{
    static const char *const precisions[] = {"auto", "f32", "bf16", "f16", "int8", NULL};
    static const char *const convolutions[] = {"auto", "direct", "winograd", NULL};
    static const char *const families[] = {"milesial",     "mateuszbuda", "aladdinpersson",
                                           "zhoudaxia233", "plain",       "cbr",
                                           "fepegar",      "smp",         NULL};
    static const char *const orders[] = {"skip_up", "up_skip", NULL};
    const char *key = at->key;
    if (strcmp(key, "name") == 0)
        return take_name(at, value, out->name, sizeof out->name);
    if (strcmp(key, "version") == 0)
        return take_name(at, value, out->version, sizeof out->version);
    if (strcmp(key, "family") == 0)
        return take_choice(at, value, families, out->family, sizeof out->family);
    if (strcmp(key, "concat") == 0)
        return take_choice(at, value, orders, out->concat, sizeof out->concat);
    if (strcmp(key, "weights") == 0)
        return take_weights(at, value, out);
    if (strcmp(key, "in_channels") == 0)
        return take_whole(at, value, 1, 65535, &out->in_channels);
    if (strcmp(key, "tile") == 0)
        return take_whole(at, value, 1, 65536, &out->tile);
    if (strcmp(key, "classes") == 0)
        return take_classes(at, value, out);
    if (strcmp(key, "preprocess") == 0)
        return take_preprocess(at, value, out);
    if (strcmp(key, "precision") == 0)
        return take_choice(at, value, precisions, out->precision, sizeof out->precision);
    if (strcmp(key, "convolution") == 0)
        return take_choice(at, value, convolutions, out->convolution, sizeof out->convolution);
    if (strcmp(key, "license") == 0)
        return take_text(at, value, out->license, sizeof out->license);
    if (strcmp(key, "source") == 0)
        return take_text(at, value, out->source, sizeof out->source);
    return refuse(
        at->error, at->error_size,
        "unknown key \"%.64s\" (known: name, version, family, concat, weights, in_channels, tile, "
        "classes, preprocess, precision, convolution, license, source)",
        key);
}

static void set_defaults(struct model_dir *out)
{
    *out = (struct model_dir){.version = "1",
                              .precision = "auto",
                              .convolution = "auto",
                              .tile = 256,
                              .scale = 10000.0f,
                              .clip = true};
    out->clip_high = 1.0f;
}

int model_dir_parse(const char *text, size_t size, struct model_dir *out, char *error,
                    size_t error_size)
{
    json_error_t problem;
    json_t *document = json_whole_load(text, size, JSON_REJECT_DUPLICATES, &problem);
    if (!document && errno == ENOMEM)
        return no_memory(error, error_size);
    if (!document)
        return refuse(error, error_size, "line %d: %s", problem.line, problem.text);
    struct model_dir *parsed = malloc(sizeof *parsed);
    int rc = parsed ? 0 : no_memory(error, error_size);
    if (rc == 0 && !json_is_object(document))
        rc = refuse(error, error_size, "not a JSON object");
    if (rc == 0) {
        const char *key;
        const json_t *value;
        set_defaults(parsed);
        json_object_foreach(document, key, value)
        {
            struct place at = {key, error, error_size};
            rc = take_entry(&at, value, parsed);
            if (rc < 0)
                break;
        }
    }
    if (rc == 0)
        *out = *parsed;
    free(parsed);
    json_decref(document);
    return rc;
}

/* ---- files ---- */

int model_dir_read_text(const char *path, char **out, size_t *out_bytes, char *error,
                        size_t error_size)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) {
        int rc = -errno;
        snprintf(error, error_size, "%s: %s", path, strerror(errno));
        return rc;
    }
    if (fstat(fd, &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) {
        close(fd);
        return refuse(error, error_size, "%s: it is no regular file", path);
    }
    char *text = malloc(MODEL_JSON_MAX_BYTES + 1);
    size_t used = 0;
    ssize_t got = text ? 1 : -1;
    while (got > 0 && used <= MODEL_JSON_MAX_BYTES) {
        got = read(fd, text + used, MODEL_JSON_MAX_BYTES + 1 - used);
        if (got > 0)
            used += (size_t)got;
    }
    close(fd);
    if (!text)
        return no_memory(error, error_size);
    if (got < 0 || used > MODEL_JSON_MAX_BYTES) {
        free(text);
        return refuse(error, error_size, "%s: cannot be read, or is larger than %u bytes", path,
                      MODEL_JSON_MAX_BYTES);
    }
    *out = text;
    *out_bytes = used;
    return 0;
}

static int load_json(const char *path, struct model_dir *out, char *error, size_t error_size)
{
    char *text = NULL;
    size_t bytes = 0;
    int rc = model_dir_read_text(path, &text, &bytes, error, error_size);
    if (rc < 0)
        return rc;
    char reason[512] = "out of memory";
    rc = model_dir_parse(text, bytes, out, reason, sizeof reason);
    free(text);
    if (rc < 0)
        snprintf(error, error_size, "%s: %s", path, reason);
    return rc;
}

/* Does the name end as weights files do? */
static bool is_weights_name(const char *name)
{
    static const char *const suffixes[] = {".safetensors", ".pth", ".pt", ".ckpt"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t tail = strlen(suffixes[i]);
        if (length > tail && strcmp(name + length - tail, suffixes[i]) == 0)
            return true;
    }
    return false;
}

/* The only weights file of a directory. */
static int find_weights(const char *directory, char *name, size_t name_size, char *error,
                        size_t error_size)
{
    DIR *dir = opendir(directory);
    if (!dir) {
        int rc = -errno;
        snprintf(error, error_size, "%s: %s", directory, strerror(errno));
        return rc;
    }
    size_t found = 0;
    for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        if (!is_weights_name(entry->d_name))
            continue;
        if (found++ == 0)
            snprintf(name, name_size, "%s", entry->d_name);
    }
    closedir(dir);
    if (found == 1)
        return 0;
    if (found == 0) {
        snprintf(error, error_size,
                 "%s: no .safetensors, .pth, .pt or .ckpt file in this directory", directory);
        return -ENOENT;
    }
    return refuse(error, error_size,
                  "%s: %zu weights files; \"weights\" in model.json must name one", directory,
                  found);
}

static int join_path(const char *directory, const char *name, char *out, size_t size, char *error,
                     size_t error_size)
{
    int length = snprintf(out, size, "%s/%s", directory, name);
    if (length > 0 && (size_t)length < size)
        return 0;
    snprintf(error, error_size, "%.200s: the path is too long", directory);
    return -ENAMETOOLONG;
}

/* A model without a name is called like its file or directory. */
static void name_after(const char *path, struct model_dir *out)
{
    if (out->name[0])
        return;
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    const char *dot = memrchr(path + start, '.', end - start);
    if (dot && dot > path + start && is_weights_name(path))
        end = (size_t)(dot - path);
    snprintf(out->name, sizeof out->name, "%.*s", (int)(end - start), path + start);
}

static int load_directory(const char *path, struct model_dir *out, char *error, size_t error_size)
{
    char json_path[PATH_MAX];
    char name[256];
    int rc = join_path(path, "model.json", json_path, sizeof json_path, error, error_size);
    if (rc == 0)
        rc = load_json(json_path, out, error, error_size);
    if (rc == -ENOENT) {
        set_defaults(out);
        rc = 0;
    }
    if (rc < 0)
        return rc;
    snprintf(name, sizeof name, "%.255s", out->weights_path);
    if (!name[0])
        rc = find_weights(path, name, sizeof name, error, error_size);
    if (rc == 0)
        rc = join_path(path, name, out->weights_path, sizeof out->weights_path, error, error_size);
    if (rc == 0 && access(out->weights_path, R_OK) < 0) {
        rc = -errno;
        snprintf(error, error_size, "%.400s: %s", out->weights_path, strerror(errno));
    }
    name_after(path, out);
    return rc;
}

/* A weights file; the model.json beside it counts only if it names this file. */
static int load_file(const char *path, struct model_dir *out, char *error, size_t error_size)
{
    char directory[PATH_MAX];
    char json_path[PATH_MAX];
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    snprintf(directory, sizeof directory, "%.*s", slash ? (int)(slash - path) : 1,
             slash ? path : ".");
    set_defaults(out);
    int rc = join_path(directory, "model.json", json_path, sizeof json_path, error, error_size);
    if (rc < 0)
        return rc;
    /* One that cannot be read might have named this file: serving without it could mean wrong
     * numbers. */
    rc = load_json(json_path, out, error, error_size);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (rc == -ENOENT || strcmp(out->weights_path, base) != 0)
        set_defaults(out);
    snprintf(out->weights_path, sizeof out->weights_path, "%s", path);
    name_after(path, out);
    return 0;
}

int model_dir_load(const char *path, struct model_dir *out, char *error, size_t error_size)
{
    struct stat status;
    if (strlen(path) >= PATH_MAX) {
        snprintf(error, error_size, "%.200s: the path is too long", path);
        return -ENAMETOOLONG;
    }
    if (stat(path, &status) < 0) {
        int rc = -errno;
        snprintf(error, error_size, "%s: %s", path, strerror(errno));
        return rc;
    }
    struct model_dir *loaded = malloc(sizeof *loaded);
    if (!loaded)
        return no_memory(error, error_size);
    int rc = S_ISDIR(status.st_mode) ? load_directory(path, loaded, error, error_size)
                                     : load_file(path, loaded, error, error_size);
    if (rc == 0)
        *out = *loaded;
    free(loaded);
    return rc;
}
